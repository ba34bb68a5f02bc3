"""The folder into which a run writes: a training owns it, from the first file to the last."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from detectron2.utils import comm
from mimdet.checkpoint.newest import tagged_checkpoint
from mimdet.engine.folder_owner import in_use, owned, owner_of
from mimdet.engine.resume import settle_checkpoint
from mimdet.engine.used_folder import move_aside, refuse_used, remove_unfinished
from mimdet.whole_files import refuse_file


def make_output_folder(path: str) -> None:
    """Make `train.output_dir`, and find out whether files can be written into it.

    Raises:
        ValueError: if it has no name.
        OSError: if it cannot be written.
    """
    if not path:
        raise ValueError(
            f"train.output_dir is empty ({path!r}); name a folder for the checkpoints and logs of "
            "this run: train.output_dir=output/my_run"
        )
    try:
        os.makedirs(path, exist_ok=True)
        # Tried out: what os.access says need not hold, on network disks above all.
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as e:
        raise OSError(
            f"train.output_dir={path!r} cannot be written ({e}); choose a folder in which this "
            "user may create files"
        ) from e


def look_at_folder(cfg: DictConfig, resume: bool, eval_only: bool = False) -> None:
    """Refuse the folder of a run as `training_folder` will, or `evaluation_folder`.

    Nothing is written.

    Raises:
        ValueError: if it is in use, or an earlier training has left files in it.
        NotADirectoryError: if it is a file, or below one.
    """
    folder = OmegaConf.select(cfg, "train.output_dir")
    if not folder:
        return
    refuse_file(folder, f"train.output_dir={folder}")
    if eval_only or not Path(folder).is_dir():
        return
    if owner := owner_of(folder):
        raise in_use(owner, folder)
    _check_intention(cfg, resume)


@contextlib.contextmanager
def training_folder(cfg: DictConfig, resume: bool) -> Iterator[list[str]]:
    """Make `train.output_dir` that of this training alone until the block ends.

    The main process does it and all processes of the job call it: if the folder is refused, all of
    them end with exit code 2, after one line on the standard error.

    Args:
        cfg: of the run; ``train.overwrite`` is false afterwards, so that the config that is saved
            does not ask for it again.
        resume: go on from the newest whole checkpoint in the folder.

    Yields:
        What to warn of when there is a log.
    """
    notes, refusal = [], None
    with contextlib.ExitStack() as stack:
        if comm.is_main_process():
            try:
                make_output_folder(cfg.train.output_dir)
                notes = _take(cfg, resume, stack)
            except (OSError, ValueError) as e:
                refusal = " ".join(str(e).split())
        refusal = comm.all_gather(refusal)[0]
        if refusal and comm.is_main_process():
            print(f"mimdet: error: {refusal}", file=sys.stderr, flush=True)
        if refusal:
            raise SystemExit(2)
        yield notes


def _take(cfg: DictConfig, resume: bool, stack: contextlib.ExitStack) -> list[str]:
    """Own the folder and put its files in order -> what to warn of."""
    folder, notes = cfg.train.output_dir, []
    # First of all: only for the owner are temporary files what a dead process has left, and only
    # while the folder is owned do the files stay as they are found here.
    if former := stack.enter_context(owned(folder)):
        notes.append(f"{former} has ended without freeing {folder}, which is taken over")
    _check_intention(cfg, resume)
    if removed := remove_unfinished(folder):
        notes.append(f"What a killed run had not finished is removed: {', '.join(removed)}")
    if resume:
        notes += settle_checkpoint(folder, cfg.train.get("resume_from_older", True))
    elif cfg.train.get("overwrite", False):
        cfg.train.overwrite = False
        if aside := move_aside(cfg):
            notes.append(f"The files of an earlier training are in {aside} (train.overwrite)")
    return notes


def _check_intention(cfg: DictConfig, resume: bool) -> None:
    tagged_checkpoint(cfg.train.output_dir)  # refuses a folder in its place
    overwrite = cfg.train.get("overwrite", False)
    if resume and overwrite:
        raise ValueError(
            "--resume goes on with a training and train.overwrite=True starts a new one: leave one "
            "of them out"
        )
    if not (resume or overwrite):
        refuse_used(cfg.train.output_dir)


def evaluation_folder(cfg: DictConfig) -> list[str]:
    """Make the folder of an evaluation: `train.output_dir`, or one in it while a training owns it.

    Evaluating while training goes on is everyday work, and must not touch what the training writes
    (`config.yaml`, the numbering of its results). All processes of the job call this.

    Args:
        cfg: of the evaluation; its `train.output_dir` may change.

    Returns:
        What to warn of when there is a log.

    Raises:
        ValueError, OSError: see `make_output_folder`.
    """
    folder, notes = cfg.train.output_dir, []
    if comm.is_main_process():
        make_output_folder(folder)
        if owner := owner_of(folder):
            folder = os.path.join(folder, "evaluation")
            os.makedirs(folder, exist_ok=True)
            notes.append(f"{owner} trains in {cfg.train.output_dir}: results go to {folder}")
    cfg.train.output_dir = comm.all_gather(folder)[0]
    return notes
