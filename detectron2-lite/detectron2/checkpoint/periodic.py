"""When checkpoints are saved, and which of them are kept."""

import os
import re
from typing import Any

import fvcore.common.checkpoint as fvcore_checkpoint
from fvcore.common.checkpoint import Checkpointer


class PeriodicCheckpointer(fvcore_checkpoint.PeriodicCheckpointer):
    """Saves checkpoints at regular intervals and deletes old ones.

    After iteration i with `(i + 1) % period == 0` it saves `<file_prefix>_<i, 7 digits>.pth`, after
    the last iteration `<file_prefix>_final.pth`. A resumed training also counts, and in time
    deletes, the periodic files of the iterations before it; a fresh one never deletes a file that
    it has not written.

    Args:
        checkpointer: writes the files.
        period: iterations between two checkpoints, positive.
        max_iter: number of iterations of the training; None never saves a final checkpoint.
        max_to_keep: number of periodic checkpoints to keep; None keeps all.
        file_prefix: beginning of the file names.

    Raises:
        ValueError: `period` is not positive.
        AssertionError: `max_to_keep` is not positive.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        period: int,
        max_iter: int | None = None,
        max_to_keep: int | None = None,
        file_prefix: str = "model",
    ):
        if period <= 0:
            raise ValueError(f"the period of checkpoints must be positive, got {period}")
        assert max_to_keep is None or max_to_keep > 0, (
            f"max_to_keep must be positive or None, got {max_to_keep}"
        )
        super().__init__(checkpointer, period, max_iter, max_to_keep, file_prefix)
        self._first_iteration: int | None = None

    def step(self, iteration: int, **kwargs: Any) -> None:
        """Save what is due after an iteration.

        Args:
            iteration: the iteration that is done, in [0, max_iter). The first one tells how far
                earlier runs have come that this one continues.
            kwargs: extra values to store by key, besides `iteration`.
        """
        iteration = int(iteration)
        if self._first_iteration is None:
            self._first_iteration = iteration
        state = {"iteration": iteration, **kwargs}
        if (iteration + 1) % self.period == 0:
            name = f"{self.file_prefix}_{iteration:07d}"
            self.checkpointer.save(name, **state)
            self._delete_old(name)
        if self.max_iter is not None and iteration >= self.max_iter - 1:
            self.checkpointer.save(f"{self.file_prefix}_final", **state)

    def _delete_old(self, saved_name: str) -> None:
        folder = self.checkpointer.save_dir
        if self.max_to_keep is None or not folder or not self.checkpointer.save_to_disk:
            return
        if not self.recent_checkpoints:
            self.recent_checkpoints = self._earlier_files()
        self.recent_checkpoints.append(os.path.join(folder, f"{saved_name}.pth"))
        while len(self.recent_checkpoints) > self.max_to_keep:
            old = self.recent_checkpoints.pop(0)
            if self.path_manager.exists(old):
                self.path_manager.rm(old)

    def _earlier_files(self) -> list[str]:
        """Periodic files of iterations before the first one of this run, oldest first.

        Others come from another training in the same folder, whose files are not ours to delete.
        """
        folder = self.checkpointer.save_dir
        pattern = re.compile(re.escape(self.file_prefix) + r"_(\d{7,})\.pth")
        matches = filter(None, map(pattern.fullmatch, os.listdir(folder)))
        found = sorted((int(match[1]), match[0]) for match in matches)
        earlier = [name for saved_at, name in found if saved_at < self._first_iteration]
        return [os.path.join(folder, name) for name in earlier]
