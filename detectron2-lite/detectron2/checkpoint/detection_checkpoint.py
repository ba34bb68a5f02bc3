"""Saving and loading checkpoints."""

import os
from typing import Any
from urllib.parse import parse_qs

import fvcore.common.checkpoint as fvcore_checkpoint
import torch
import torch.distributed as dist
from fvcore.common.checkpoint import Checkpointer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2.checkpoint.matching import match_by_suffix
from detectron2.checkpoint.reading import as_checkpoint, read_pickle, read_torch
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager, atomic_write

__all__ = ["DetectionCheckpointer"]


class DetectionCheckpointer(Checkpointer):
    """Saves a model with everything that training needs to continue, and loads it again.

    A checkpoint is `<save_dir>/<name>.pth`, written by `torch.save`: a dict with `model` (its state
    dict), the state dict of each checkpointable under its own key, and extra values. The text file
    `last_checkpoint` names the newest one. Files are complete or absent, never half written.

    Loading runs no code from the file: tensors, arrays and plain Python values are read, any other
    type is refused unless the environment variable `DETECTRON2_ALLOW_UNSAFE_LOAD` is 1.

    Args:
        model: the model; the wrappers of data parallel training are removed.
        save_dir: folder for checkpoints; with "" nothing is saved.
        save_to_disk: whether this process writes; by default only the main process does.
        checkpointables: objects with `state_dict` and `load_state_dict` by key, usually
            `trainer=trainer`.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ):
        if save_to_disk is None:
            save_to_disk = comm.is_main_process()
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.path_manager = PathManager
        # All processes load a distributed model at the same time, so they can agree on the file.
        self._loads_together = isinstance(model, DistributedDataParallel)

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `<save_dir>/<name>.pth` and name it in `last_checkpoint`.

        Args:
            name: file name without suffix and folder.
            kwargs: extra values to store by key.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        basename = f"{name}.pth"
        assert os.path.basename(basename) == basename, (
            f"a checkpoint name must not contain a folder, got {name!r}; set save_dir instead"
        )
        path = os.path.join(self.save_dir, basename)
        self.logger.info(f"Saving checkpoint to {path}")
        states = {key: value.state_dict() for key, value in self.checkpointables.items()}
        with atomic_write(path, "wb") as f:
            torch.save({"model": self.model.state_dict(), **states, **kwargs}, f)
        self.tag_last_checkpoint(basename)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name a file of `save_dir` as the one to resume from."""
        with atomic_write(os.path.join(self.save_dir, "last_checkpoint")) as f:
            f.write(last_filename_basename)

    def load(self, path: str | None, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a checkpoint into the model and the checkpointables.

        Entries that are missing, unexpected or of another shape are skipped and reported by
        warnings. Where the model is a `DistributedDataParallel` one, every process must call this;
        processes that cannot see the file receive the weights from rank 0.

        Args:
            path: local file, http(s) address or `detectron2://` name, of a `.pth` (or any other
                torch) file, a `.pkl` with numpy arrays or a `.pyth` of pycls. With
                `?matching_heuristics=True` at its end, model entries are matched to the longest
                entry of the file that ends their name. Empty or None loads nothing.
            checkpointables: keys to load besides the model; None takes all.

        Returns:
            What the file holds besides. After matching by heuristics `matching_heuristics` is the
            dict from model entry to entry of the file.

        Raises:
            AssertionError: there is no such file.
            OSError: the process of rank 0 does not see the file.
            ValueError: unknown query, not a checkpoint, a type that is not safe to load, or an
                ambiguous match.
        """
        if self._loads_together:
            path = comm.all_gather(path)[0]
        if not path:
            self.logger.warning("No checkpoint found. Initializing model from scratch")
            return {}
        self.logger.info(f"[DetectionCheckpointer] Loading from {path} ...")
        source, use_heuristics = _split_query(path)
        file = self.path_manager.get_local_path(source)
        if self._loads_together:
            return self._load_together(file, use_heuristics, checkpointables)
        assert os.path.isfile(file), self._not_found_message(file)
        return self._load_all(file, use_heuristics, checkpointables)

    def _load_together(
        self, file: str, use_heuristics: bool, checkpointables: list[str] | None
    ) -> dict[str, Any]:
        has_file = comm.all_gather(os.path.isfile(file))
        if not has_file[0]:
            raise OSError(f"rank 0 must see the checkpoint: {self._not_found_message(file)}")
        rest = {}
        if has_file[comm.get_rank()]:
            rest = self._load_all(file, use_heuristics, checkpointables)
        if not all(has_file):
            blind = [rank for rank, found in enumerate(has_file) if not found]
            self.logger.warning(
                f"Ranks {blind} cannot read checkpoint {file}: they receive the model from rank 0, "
                "but no trainer state, so training may not resume fully. Share the folder."
            )
            for value in self.model.state_dict().values():
                dist.broadcast(value, src=0)
        return rest

    def _not_found_message(self, file: str) -> str:
        message = f"Checkpoint {file} not found!"
        tagged = self.save_dir and self.has_checkpoint() and file == self.get_checkpoint_file()
        if not tagged:
            return f"{message} Give the path of an existing file, as train.init_checkpoint=FILE"
        existing = [os.path.basename(f) for f in self.get_all_checkpoint_files()]
        return (
            f"{message} {os.path.join(self.save_dir, 'last_checkpoint')} names it, but the "
            f"checkpoints there are {sorted(existing)}; write one of them into last_checkpoint, or "
            "delete that file to start anew"
        )

    def _load_all(
        self, file: str, use_heuristics: bool, checkpointables: list[str] | None
    ) -> dict[str, Any]:
        checkpoint = self._load_file(file)
        if checkpoint.pop("matching_heuristics", False) or use_heuristics:
            checkpoint["model"], mapping = match_by_suffix(
                self.model.state_dict(), checkpoint["model"]
            )
            checkpoint["matching_heuristics"] = mapping
        incompatible = self._load_model(checkpoint)
        self._log_incompatible_keys(incompatible)
        self._log_summary(incompatible, file)
        for key in self.checkpointables if checkpointables is None else checkpointables:
            if key in checkpoint:
                self.logger.info(f"Loading {key} from {file} ...")
                self.checkpointables[key].load_state_dict(checkpoint.pop(key))
        return checkpoint

    def _load_file(self, f: str) -> dict[str, Any]:
        """Read a file of any supported format into a dict with the key `model`."""
        if f.endswith(".pkl"):
            return as_checkpoint(read_pickle(f), f)
        loaded = read_torch(f)
        if f.endswith(".pyth"):
            if not isinstance(loaded, dict) or "model_state" not in loaded:
                raise ValueError(f"{f} is not a pycls checkpoint: it has no 'model_state'")
            model = loaded["model_state"]
            loaded = {"model": model, "__author__": "pycls", "matching_heuristics": True}
        elif isinstance(loaded, dict) and "model" not in loaded:
            loaded = {"model": loaded}
        return as_checkpoint(loaded, f)

    def _log_incompatible_keys(self, incompatible: fvcore_checkpoint._IncompatibleKeys) -> None:
        """Warn about entries that do not fit, but not about constants of the model."""
        missing = [k for k in incompatible.missing_keys if k not in ("pixel_mean", "pixel_std")]
        unexpected = [
            k for k in incompatible.unexpected_keys if "anchor_generator.cell_anchors" not in k
        ]
        super()._log_incompatible_keys(
            incompatible._replace(missing_keys=missing, unexpected_keys=unexpected)
        )

    def _log_summary(self, incompatible: fvcore_checkpoint._IncompatibleKeys, file: str) -> None:
        total = len(self.model.state_dict())
        wrong_shape = {name for name, _, _ in incompatible.incorrect_shapes}
        missing = set(incompatible.missing_keys) - wrong_shape
        loaded = total - len(missing) - len(wrong_shape)
        self.logger.info(
            f"loaded {loaded} of {total} model entries, {len(missing)} missing, "
            f"{len(incompatible.unexpected_keys)} unexpected, {len(wrong_shape)} shape mismatch"
        )
        if loaded < total / 2:
            self.logger.warning(
                f"ONLY {loaded} OF {total} MODEL ENTRIES WERE LOADED from {file}; the others keep "
                "their initial values. Is it a checkpoint of this model?"
            )


def _split_query(path: str) -> tuple[str, bool]:
    """(path without its query, whether the query switches on the matching heuristics)."""
    source, _, query = path.partition("?")
    options = parse_qs(query, keep_blank_values=True)
    choice = options.pop("matching_heuristics", ["False"])
    if options or choice not in (["True"], ["False"]):
        raise ValueError(
            f"the only query of a checkpoint path is '?matching_heuristics=True', got {path!r}"
        )
    return source, choice == ["True"]
