"""The model of a config with the weights that the config names."""

from omegaconf import DictConfig
from torch import nn

from detectron2.config import instantiate
from mimdet.checkpoint.evaluated import load_for_evaluation


def trained_model(cfg: DictConfig) -> nn.Module:
    """Build `cfg.model` on `cfg.train.device` and load `cfg.train.init_checkpoint` into it.

    ``train.eval_weights`` chooses between the weights and their average, as in an evaluation.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if no file is named, or it does not fit the model.
    """
    if not cfg.train.init_checkpoint:
        raise ValueError("the weights must be given: train.init_checkpoint=MODEL.pth")
    model = instantiate(cfg.model).to(cfg.train.device)
    try:
        load_for_evaluation(
            model,
            cfg.train.init_checkpoint,
            cfg.train.get("eval_weights"),
            cfg.train.get("allow_unexpected", ()),
        )
    except AssertionError as e:  # Detectron2's checkpointer asserts that there is a file
        raise FileNotFoundError(f"{e} (train.init_checkpoint)") from e
    return model
