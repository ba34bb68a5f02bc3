"""The disk that a training needs for its checkpoints and logs."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from mimdet.engine.memory_plan import gib, state_bytes

# Of log.txt, metrics.json and TensorBoard's file for each time that they are written (3.6 kB in the
# demo). Detections of evaluations come on top, megabytes for a thousand images.
_LOG = 4000


@dataclass(frozen=True)
class DiskPlan:
    """What a training writes, in bytes.

    Attributes:
        folder: of the run.
        checkpoint: one of them: weights, what the optimizer keeps, the average.
        number: of checkpoints at a time, with the one that is being written.
        logs: all of them.
        present: checkpoints of the run that is resumed, which are in the folder already.
        free: on the disk of the folder.
    """

    folder: str
    checkpoint: int
    number: int
    logs: int
    present: int
    free: int

    @property
    def needed(self) -> int:
        """What is yet to be written."""
        return max(self.number * self.checkpoint - self.present, self.checkpoint) + self.logs

    def __str__(self) -> str:
        return (
            f"disk: about {gib(self.needed)} of the {gib(self.free)} free in {self.folder}: "
            f"{self.number} checkpoints of {self.checkpoint / 1e6:.0f} MB, logs of "
            f"{self.logs / 1e6:.1f} MB, and the detections of evaluations"
        )

    def warnings(self) -> list[str]:
        """What to say where the disk will be full before the end."""
        if self.free >= self.needed:
            return []
        return [
            f"{self.folder} has {gib(self.free)} free, and this training needs about "
            f"{gib(self.needed)}: keep fewer checkpoints (train.checkpointer.max_to_keep=3), or "
            "choose a folder on another disk (train.output_dir=...)"
        ]

    def errors(self) -> list[str]:
        """What to say where not even one checkpoint has room."""
        if self.free >= self.checkpoint:
            return []
        return [
            f"{self.folder} has {gib(self.free)} free, and a single checkpoint of this model takes "
            f"{gib(self.checkpoint)}; make room, or choose a folder on another disk "
            "(train.output_dir=...)"
        ]


def plan_disk(cfg: DictConfig, resuming: bool) -> DiskPlan:
    """What a training with this config will write.

    Args:
        cfg: of the run, whose heads know their classes; its output folder need not exist yet.
        resuming: the checkpoints in the folder are those of this run.
    """
    folder, train = Path(cfg.train.output_dir), cfg.train
    regular = train.max_iter // train.checkpointer.period
    if train.checkpointer.get("max_to_keep") is not None:
        regular = min(regular, train.checkpointer.max_to_keep)
    final_and_next = 2  # a file is written beside the one that it replaces
    best = train.get("best_metric") is not None
    present = sum(f.stat().st_size for f in folder.glob("*.pth")) if resuming else 0
    # The folder need not be there: its disk is that of the nearest one above it.
    existing = next(f for f in (folder, *folder.resolve().parents) if f.is_dir())
    return DiskPlan(
        folder=str(folder),
        checkpoint=state_bytes(cfg, gradients=0),
        number=regular + final_and_next + best,
        logs=_LOG * (train.max_iter // train.log_period),
        present=present,
        free=shutil.disk_usage(existing).free,
    )
