"""Whether the checkpoint files that a config names are what it takes them for.

Names and shapes are read, weights stay in the files.
"""

from functools import partial

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from detectron2.config import instantiate
from mimdet.checkpoint.address import is_address
from mimdet.checkpoint.convert.mae import strip_prefixes
from mimdet.checkpoint.file import read_tensors, tensors_in
from mimdet.checkpoint.identity import WHOLE, identify
from mimdet.checkpoint.newest import read_of_run
from mimdet.checkpoint.start import StartingWeights, check_decoder, check_kind
from mimdet.config import key_behind


def check_checkpoints(cfg: DictConfig) -> list[str]:
    """What is wrong with the files that a run starts from or evaluates, a sentence per file.

    Addresses are passed over: they are fetched when the run asks for them.

    Args:
        cfg: of the run; `train.init_checkpoint` stands before `train.starting_weights`.
    """
    if cfg.train.get("init_checkpoint"):
        checks = [partial(_check_whole, cfg)]
    else:
        files: dict[str, dict[str, Tensor]] = {}
        entries = range(len(cfg.train.get("starting_weights", ())))
        checks = [partial(_check_start, cfg, i, files) for i in entries]
    errors = []
    for check in checks:
        try:
            check()
        except (OSError, ValueError) as e:
            errors.append(" ".join(str(e).split()))
    return list(dict.fromkeys(errors))  # two parts may start from the same file


def _check_whole(cfg: DictConfig) -> None:
    path = str(cfg.train.init_checkpoint)
    # A query asks for another way to match names, and so do files of pycls.
    if is_address(path) or "?" in path or path.endswith(".pyth"):
        return
    identity = identify(tensors_in(read_of_run(path, WHOLE, mapped=True), path, WHOLE))
    # Models without a backbone are those of pretraining, which have the names of files to start
    # from, and classifiers.
    if "backbone" in cfg.model and WHOLE not in identity.keys:
        raise ValueError(
            f"{path} must be a checkpoint of the whole detector ({WHOLE}), but it is "
            f"{identity.what}; {identity.remedy}"
        )


def _check_start(cfg: DictConfig, i: int, files: dict[str, dict[str, Tensor]]) -> None:
    key = f"train.starting_weights.{i}"
    entry: StartingWeights = instantiate(cfg.train.starting_weights[i])
    if not entry.path or entry.from_scratch or is_address(entry.path):
        return
    path_key = key_behind(cfg, f"{key}.path")
    if entry.path not in files:
        files[entry.path] = read_tensors(entry.path, path_key, mapped=True)
    part = OmegaConf.select(cfg.model, entry.to) if entry.to else cfg.model
    if not isinstance(part, DictConfig) or "timm." in str(part.get("_target_")):
        return  # a model of timm's, of whatever kind: the names of the built one tell
    check_kind(files[entry.path], entry, path_key)
    if "decoder_embed_dim" in part:
        scratch_key = key_behind(cfg, f"{key}.from_scratch")
        check_decoder(strip_prefixes(files[entry.path]), entry, path_key, scratch_key)
