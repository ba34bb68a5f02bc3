"""What lets a run that was interrupted end as it would have ended without the interruption."""

import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detectron2.config import instantiate
from detectron2.data import build_detection_train_loader
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.registry import locate
from mimdet.checkpoint.newest import (
    TAG,
    checkpoints_in,
    fault_of,
    newest_whole,
    tagged_checkpoint,
)
from mimdet.data.detection_loader import build_repeatable_train_loader
from mimdet.engine.shared_index import share_index
from mimdet.whole_files import written_whole

_SEED_FILE = "seed.txt"
_OF_CLOCKS = ("time", "seconds/")


def settle_seed(cfg: DictConfig, resume: bool) -> None:
    """Let `train.seed` of all processes be the seed of the run, and keep it in its output folder.

    Where it is negative (or absent), a resumed run takes the one that it finds there, and a new
    run one that is drawn. Call it before anything random is made: with the same seed, a resumed
    run starts as the run before did.

    Args:
        cfg: of the run, changed in place; its output folder exists.
        resume: whether the run is to go on from what is in the folder.

    Raises:
        ValueError: if the file in the folder holds no seed.
    """
    path = Path(cfg.train.output_dir) / _SEED_FILE
    seed = OmegaConf.select(cfg, "train.seed")
    if seed is None or seed < 0:
        # 31 bits: numpy takes seeds below 2^32, and the rank is added to this one.
        seed = _read_seed(path) if resume and path.is_file() else secrets.randbits(31)
    seed = comm.all_gather(seed)[0]
    OmegaConf.update(cfg, "train.seed", seed, force_add=True)
    if comm.is_main_process():
        with written_whole(path) as file:
            file.write(f"{seed}\n")


def _read_seed(path: Path) -> int:
    text = path.read_text(encoding="utf-8").strip()
    if not text.isdecimal():
        raise ValueError(
            f"{path} must hold the seed of the run, a whole number, got {text!r:.40}; write the "
            "number into it that the log of the run names, or set train.seed to it"
        )
    return int(text)


def build_train_loader(config: DictConfig) -> Iterable[Any]:
    """Build `dataloader.train`; with mimdet's loader in the place of Detectron2's for detectors.

    Both take the same arguments and give the images in the same order, but Detectron2's depends
    on what its workers have done before, so that a run cannot resume exactly.
    """
    config = share_index(config)
    target = config._target_
    target = locate(target) if isinstance(target, str) else target
    if target is build_detection_train_loader:
        config = config.copy()  # whose interpolations still find the rest of the config
        config._target_ = build_repeatable_train_loader
    return instantiate(config)


class RecentScalars(HookBase):
    """Keeps the last values of the scalars whose median is written, in checkpoints too.

    Otherwise the first lines of `metrics.json` after a resume would be medians of fewer values.

    Args:
        window_size: that of the writers, in iterations.
    """

    def __init__(self, window_size: int = 20):
        self._window_size = window_size
        self._restored: Mapping[str, list[tuple[float, int]]] = {}

    def before_step(self) -> None:
        """Put the values of the interrupted run into the storage, once."""
        # Not before the training: where no iteration is left, writers would write them again.
        for name, values in self._restored.items():
            for value, iteration in values:
                self.trainer.storage.put_scalar(name, value, cur_iter=iteration)
        self._restored = {}

    def state_dict(self) -> dict[str, list[tuple[float, int]]]:
        """Name -> values with their iterations."""
        storage = self.trainer.storage
        hints = storage._smoothing_hints  # no method of either Detectron2 tells them
        # Only those of this iteration: writers take an older one for new and write it again. That
        # leaves out those of clocks too, of which the first iterations after a resume have none.
        return {
            name: history.values()[-self._window_size :]
            for name, history in storage.histories().items()
            if hints[name]
            and not name.startswith(_OF_CLOCKS)
            and history.values()[-1][1] == storage.iter
        }

    def load_state_dict(self, state_dict: Mapping[str, list[tuple[float, int]]]) -> None:
        """Remember the values until there is a storage."""
        self._restored = state_dict


def is_resuming(cfg: DictConfig, resume: bool) -> bool:
    """Whether a run that was asked to `resume` has a checkpoint of its own to go on from."""
    folder = Path(cfg.train.output_dir or "")  # without a name it is refused later
    return resume and ((folder / TAG).exists() or bool(checkpoints_in(folder)))


def settle_checkpoint(folder: str, from_older: bool = True) -> list[str]:
    """Let `last_checkpoint` name a whole checkpoint, the one to resume from.

    Where it names one, nothing is changed. Else the newest whole one takes its place, by iteration:
    the file may be missing, and what it names may be, or be damaged.

    Args:
        folder: of the run, which owns it.
        from_older: whether to pass over damaged checkpoints (``train.resume_from_older``).

    Returns:
        What to warn of.

    Raises:
        ValueError: if there are checkpoints but none to go on from. Never is this a start from
            iteration 0.
    """
    tagged = tagged_checkpoint(folder)
    if tagged is None and not checkpoints_in(folder):
        return [f"There is no checkpoint in {folder} to go on from: training starts anew"]
    fault = fault_of(Path(folder, tagged)) if tagged else None
    if tagged and not fault:
        return []
    found = newest_whole(folder, {tagged: fault} if fault else None)
    passed_over = found.damaged
    problem = _problem(folder, tagged, passed_over)
    if found.name is None:
        raise ValueError(
            f"--resume finds no whole checkpoint: {problem}. Start anew in another folder "
            "(train.output_dir=...), or in this one without --resume and with train.overwrite=True"
        )
    if passed_over and not from_older:
        raise ValueError(
            f"{problem}. The newest whole checkpoint is {found.name}, and "
            "train.resume_from_older=False forbids to go on from it"
        )
    with written_whole(Path(folder, TAG)) as file:
        file.write(found.name)
    return [f"{problem}. Training goes on from the newest whole checkpoint, {found.name}"]


def _problem(folder: str, tagged: str | None, faults: Mapping[str, str]) -> str:
    """Why it is not clear where to go on, with the `faults` of checkpoints by their names."""
    found = [f"{os.path.join(folder, name)} {fault}" for name, fault in faults.items()]
    if tagged is None:
        found.insert(0, f"{os.path.join(folder, TAG)} is missing")
    elif not tagged:
        found.insert(0, f"{os.path.join(folder, TAG)} names no file")
    return "; ".join(found)
