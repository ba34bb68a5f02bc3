"""Saving and loading checkpoints."""

import os
from typing import Any

import fvcore.common.checkpoint as fvcore_checkpoint
import torch.distributed as dist
from fvcore.common.checkpoint import Checkpointer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2.checkpoint.matching import match_by_suffix
from detectron2.checkpoint.reading import read_pickle, read_torch
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

__all__ = ["DetectionCheckpointer"]


class DetectionCheckpointer(Checkpointer):
    """Saves a model with everything that training needs to continue, and loads it again.

    A checkpoint is `<save_dir>/<name>.pth`, written by `torch.save`: a dict with `model` (its state
    dict), the state dict of each checkpointable under its own key, and extra values. The text file
    `last_checkpoint` names the newest one.

    Loading runs no code from the file: tensors, arrays and plain Python values are read, any other
    type is refused.

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
        # Whether names are matched by their ends, which a path can ask for.
        self._match_by_ends = False

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
            What the file holds besides.

        Raises:
            AssertionError: there is no such file.
            OSError: the process of rank 0 does not see the file.
            ValueError: unknown query, an entry that is no tensor or array, or an ambiguous match.
            pickle.UnpicklingError: a type that is not safe to load.
        """
        if self._loads_together:
            # a rank that does not see the folder has found no path in it
            path = comm.all_gather(path)[0]
        if not path:
            return super().load(path, checkpointables)
        self.logger.info(f"[DetectionCheckpointer] Loading from {path} ...")
        source, _, query = path.partition("?")
        if query not in ("", "matching_heuristics=False", "matching_heuristics=True"):
            raise ValueError(
                f"the only query of a checkpoint path is '?matching_heuristics=True', got {path!r}"
            )
        self._match_by_ends = query.endswith("True")
        file = self.path_manager.get_local_path(source)
        if self._loads_together:
            return self._load_together(file, checkpointables)
        return super().load(file, checkpointables)

    def _load_together(self, file: str, checkpointables: list[str] | None) -> dict[str, Any]:
        has_file = comm.all_gather(os.path.isfile(file))
        if not has_file[0]:
            raise OSError(f"rank 0 must see the checkpoint {file}")
        rest = super().load(file, checkpointables) if has_file[comm.get_rank()] else {}
        if not all(has_file):
            blind = [rank for rank, found in enumerate(has_file) if not found]
            self.logger.warning(
                f"Ranks {blind} cannot read checkpoint {file}: they receive the model from rank 0, "
                "but no trainer state, so training may not resume fully. Share the folder."
            )
            # Parameters and buffers, in the order of the model, which is the same everywhere.
            for value in self.model.state_dict().values():
                dist.broadcast(value, src=0)
        return rest

    def _load_file(self, f: str) -> dict[str, Any]:
        """Read a file of any supported format into a dict with the key `model`."""
        if f.endswith(".pkl"):
            return read_pickle(f)
        loaded = read_torch(f)
        if f.endswith(".pyth"):
            model = loaded["model_state"]
            return {"model": model, "__author__": "pycls", "matching_heuristics": True}
        return loaded if "model" in loaded else {"model": loaded}

    def _load_model(self, checkpoint: dict[str, Any]) -> fvcore_checkpoint._IncompatibleKeys:
        """Load the weights; what does not fit is returned, except for constants of the model."""
        if checkpoint.get("matching_heuristics", False) or self._match_by_ends:
            checkpoint["model"] = match_by_suffix(self.model.state_dict(), checkpoint["model"])
        incompatible = super()._load_model(checkpoint)
        missing = [k for k in incompatible.missing_keys if k not in ("pixel_mean", "pixel_std")]
        unexpected = [
            k for k in incompatible.unexpected_keys if "anchor_generator.cell_anchors" not in k
        ]
        return incompatible._replace(missing_keys=missing, unexpected_keys=unexpected)
