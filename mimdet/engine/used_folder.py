"""What an earlier training has left in the folder of a new one."""

import fnmatch
import os
import re
from itertools import count
from pathlib import Path

from omegaconf import DictConfig

from mimdet.checkpoint.newest import PATTERN, TAG, checkpoints_in

# What a training writes into its folder. Only these are moved aside: a user may keep other files
# there, and ``train.output_dir=.`` is no reason to move a whole project.
_WRITTEN = (
    *(PATTERN, TAG, "metrics.json", "seed.txt", "config.yaml*", "log.txt*"),
    *("events.out.tfevents.*", "results*.json", "*_instances_results*.json"),
    *("instances_predictions.pth", "instances_truth.json", "kept_tokens_*.npz"),
    *("reconstructions_*.npz", "run.json", "report.json", "report.html"),
)

# What a save that was killed leaves. Evaluations, which do not own the folder, write other files.
_UNFINISHED = re.compile(r"(model_\w+\.pth|last_checkpoint|seed\.txt)\.tmp\d+")


def is_used(folder: str | os.PathLike) -> bool:
    """Whether a training has begun in a folder; one that ended before its first iteration has not.

    Neither has an evaluation.
    """
    metrics = Path(folder, "metrics.json")
    has_metrics = metrics.is_file() and metrics.stat().st_size > 0
    return has_metrics or Path(folder, TAG).exists() or bool(checkpoints_in(folder))


def refuse_used(folder: str) -> None:
    """Refuse a folder in which a training has begun.

    Raises:
        ValueError: naming the ways out.
    """
    if is_used(folder):
        found = checkpoints_in(folder)
        what = f"checkpoints ({found[-1]} for one)" if found else "metrics.json"
        raise ValueError(
            f"train.output_dir={folder!r} is used: an earlier training has left {what}. Go on with "
            "it by --resume, name another folder (train.output_dir=...), or start anew with "
            "train.overwrite=True, which moves its files into a sub-folder"
        )


def move_aside(cfg: DictConfig) -> str | None:
    """Move the files of an earlier training into a new sub-folder of `train.output_dir`.

    Returns:
        The sub-folder, ``earlier_1`` for the first one; None if there was nothing to move.

    Raises:
        ValueError: if the new training starts from one of the files.
    """
    folder = Path(cfg.train.output_dir)
    names = [p.name for p in folder.iterdir() if p.is_file() and _is_written(p.name)]
    if not names:
        return None
    for key, path in _starting_files(cfg):
        if Path(path).name in names and Path(path).resolve().parent == folder.resolve():
            raise ValueError(
                f"train.overwrite=True would move {path}, from which this training starts ({key}): "
                "name another folder (train.output_dir=...)"
            )
    aside = next(new for n in count(1) if not (new := folder / f"earlier_{n}").exists())
    # Files are renamed within one file system: who is killed in between loses none.
    aside.mkdir()
    for name in names:
        os.replace(folder / name, aside / name)
    return str(aside)


def _is_written(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in _WRITTEN)


def _starting_files(cfg: DictConfig) -> list[tuple[str, str]]:
    """Config key and path of the files whose weights a training takes."""
    entries = enumerate(cfg.train.get("starting_weights") or ())
    files = [(f"train.starting_weights.{i}.path", entry.get("path")) for i, entry in entries]
    files.append(("train.init_checkpoint", cfg.train.get("init_checkpoint")))
    return [(key, str(path)) for key, path in files if path]


def remove_unfinished(folder: str | os.PathLike) -> list[str]:
    """Remove the temporary files of saves that were killed; only for the owner of the folder.

    Returns:
        Their names.
    """
    names = [p.name for p in Path(folder).iterdir() if _UNFINISHED.fullmatch(p.name)]
    for name in names:
        os.unlink(Path(folder, name))
    return names
