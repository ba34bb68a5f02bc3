"""The evaluation that a config describes: its evaluator, and what its numbers depend on."""

import contextlib
import dataclasses
import inspect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.utils.registry import locate
from mimdet.checkpoint.evaluated import EvaluatedWeights
from mimdet.config import RATIO
from mimdet.evaluation.protocol import model_settings, scorer, versions
from mimdet.evaluation.run_evaluator import RunEvaluator, Truth


def build_evaluator(cfg: DictConfig, results_file: Path) -> RunEvaluator:
    """Build `dataloader.evaluator`, whose predictions go to the run's folder by default.

    An ``output_dir`` of the evaluator in the config is another folder for them, or with None none.

    Args:
        cfg: of the run, whose test data are registered.
        results_file: what the results will be written to.
    """
    node = cfg.dataloader.evaluator.copy()
    target = node._target_
    target = locate(target) if isinstance(target, str) else target
    truth = _truth(node.get("dataset_name"))
    takes_folder = "output_dir" in inspect.signature(target).parameters
    # For a dataset without a file of its annotations the evaluator writes one, and takes it again
    # for whatever data the next run in that folder has: nobody gets that without asking for it.
    if takes_folder and "output_dir" not in node and truth.json_file:
        OmegaConf.update(node, "output_dir", cfg.train.output_dir, force_add=True)
    folder = node.get("output_dir")
    return RunEvaluator(
        instantiate(node),
        truth,
        results_file,
        Path(folder) if folder else None,
        adds_masks=node.get("tasks") is None,
    )


def _truth(dataset_name: str | None) -> Truth:
    if dataset_name is None:
        return Truth()
    metadata = MetadataCatalog.get(dataset_name)
    ids = metadata.get("thing_dataset_id_to_contiguous_id", {})
    classes = metadata.get("thing_classes", ())
    return Truth(
        json_file=metadata.get("json_file"),
        image_ids=metadata.get("file_image_ids", {}),
        category_ids=metadata.get("file_category_ids", {}),
        class_ids={classes[number]: i for i, number in ids.items()} if classes else {},
        image_root=metadata.get("image_root"),
    )


def describe_evaluation(
    cfg: DictConfig,
    model: nn.Module,
    evaluator: RunEvaluator,
    weights: EvaluatedWeights | None = None,
) -> dict[str, Any]:
    """The protocol of an evaluation, as `results.json` has it.

    Returns:
        `weights` (kind "ema" or "raw", file, iteration), settings of the model (`sample_ratio` and
        `sample_seed` where it samples, thresholds, detections per image), `resolution` (the
        augmentation of the test images), `evaluator` (with its dataset and limits), `scorer`, and
        `versions`.
    """
    mapper = cfg.dataloader.test.get("mapper") or {}
    steps = next((mapper[key] for key in ("augmentations", "transform") if key in mapper), None)
    return {
        "weights": dataclasses.asdict(weights) if weights else None,
        **model_settings(model),
        "resolution": _plain(steps),
        "evaluator": _plain(cfg.dataloader.evaluator),
        "scorer": scorer(evaluator.evaluator),
        "versions": versions(),
    }


def settle_eval_ratio(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Let a sample ratio on the command line of an evaluation stand for the config's own of it."""
    if any(text.lstrip("+").startswith(f"{RATIO}=") for text in overrides):
        OmegaConf.update(cfg, "train.eval_sample_ratio", None, force_add=True)


@contextlib.contextmanager
def at_eval_ratio(cfg: DictConfig, model: nn.Module) -> Iterator[None]:
    """A block in which MIMDet's encoder sees ``train.eval_sample_ratio`` of the tokens, if set."""
    ratio = OmegaConf.select(cfg, "train.eval_sample_ratio")
    sampled = [m for m in model.modules() if ratio is not None and hasattr(m, "sample_ratio")]
    before = [module.sample_ratio for module in sampled]
    try:
        for module in sampled:
            module.sample_ratio = ratio
        yield
    finally:
        for module, own in zip(sampled, before, strict=True):
            module.sample_ratio = own


def _plain(config: Any) -> Any:
    """A config as plain data: a call is ``{name: arguments}``."""
    if isinstance(config, ListConfig):
        return [_plain(entry) for entry in config]
    if not isinstance(config, DictConfig):
        return config if isinstance(config, str | int | float | None) else str(config)
    arguments = {key: _plain(config[key]) for key in config if key != "_target_"}
    if "_target_" not in config:
        return arguments
    target = config._target_
    return {getattr(target, "__name__", str(target).rpartition(".")[2]): arguments}
