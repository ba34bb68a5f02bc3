"""Checkpoints are whole or not there, and a disk that is full ends a run with one sentence."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from detectron2.checkpoint import DetectionCheckpointer
from mimdet.checkpoint.newest import TAG, tagged_checkpoint
from mimdet.whole_files import written_whole

# What is only said of writing.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


class WholeCheckpointer(DetectionCheckpointer):
    """DetectionCheckpointer that writes a file beside the old one and then renames it.

    Upstream's writes in place: a run that is killed while it saves leaves half a file under the
    final name.
    """

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``<save_dir>/<name>.pth`` and name it in `last_checkpoint`.

        Args:
            name: of the file, without folder and suffix.
            kwargs: extra values to store by key.

        Raises:
            SystemExit: if it cannot be written, see `ends_in_one_sentence`.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        path = Path(self.save_dir, f"{name}.pth")
        assert path.parent == Path(self.save_dir), f"a checkpoint's name has no folder, got {name}"
        self.logger.info(f"Saving checkpoint to {path}")
        states = {key: value.state_dict() for key, value in self.checkpointables.items()}
        with ends_in_one_sentence(self.save_dir, str(path)):
            with written_whole(path, "wb") as file:
                torch.save({"model": self.model.state_dict(), **states, **kwargs}, file)
            # Last, when the file is whole and in its place: killed before, a run goes on from the
            # one that was named before.
            self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name a file of `save_dir` as the one to resume from."""
        with written_whole(os.path.join(self.save_dir, TAG)) as file:
            file.write(last_filename_basename)


@contextlib.contextmanager
def ends_in_one_sentence(folder: str, file: str | None = None) -> Iterator[None]:
    """End the program with one sentence where the disk of a run's folder fails.

    The sentence names the file, the system's reason and the last good checkpoint. It comes as a
    SystemExit (exit code 1), because Detectron2's trainer logs exceptions with their traceback.

    Args:
        folder: `train.output_dir`.
        file: what is written, if it is one file: then whatever the system refuses is meant. Else
            what says that a disk is full, and what concerns a file of `folder`.

    Raises:
        SystemExit: with the sentence.
    """
    try:
        yield
    except Exception as e:
        # torch.save hides the error of a file behind one of its own.
        fault: BaseException | None = e
        while fault is not None and not isinstance(fault, OSError):
            fault = fault.__cause__ or fault.__context__
        if fault is None or not (file or _is_of_disk(fault, folder)):
            raise
        what = file or fault.filename or f"a file in {folder}, or a temporary one,"
        raise SystemExit(
            f"error: {what} cannot be written: {fault.strerror or fault}; {_last_good(folder)}"
        ) from None


def _is_of_disk(fault: OSError, folder: str) -> bool:
    name = fault.filename if isinstance(fault.filename, str) else ""
    is_inside = os.path.abspath(name).startswith(os.path.join(os.path.abspath(folder), ""))
    return fault.errno in _FULL or (bool(name) and is_inside)


def _last_good(folder: str) -> str:
    name = tagged_checkpoint(folder)
    if name and os.path.isfile(os.path.join(folder, name)):
        return f"the last good checkpoint is {os.path.join(folder, name)}: go on with --resume"
    return f"there is no checkpoint in {folder} to go on from"
