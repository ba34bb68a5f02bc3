"""Saving and loading checkpoints."""

import codecs
import logging
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import IO, Any
from urllib.parse import parse_qs

import fvcore.common.checkpoint as fvcore_checkpoint
import numpy as np
import torch
import torch.distributed as dist
from fvcore.common.checkpoint import Checkpointer
from tabulate import tabulate
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2.utils import comm
from detectron2.utils.file_io import PathManager, atomic_write

__all__ = ["DetectionCheckpointer"]

UNSAFE_LOAD_VARIABLE = "DETECTRON2_ALLOW_UNSAFE_LOAD"

logger = logging.getLogger(__name__)


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
            checkpoint["model"], mapping = _align(self.model.state_dict(), checkpoint["model"])
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
            return _as_checkpoint(_read_pickle(f), f)
        loaded = _read_torch(f)
        if f.endswith(".pyth"):
            if not isinstance(loaded, dict) or "model_state" not in loaded:
                raise ValueError(f"{f} is not a pycls checkpoint: it has no 'model_state'")
            model = loaded["model_state"]
            loaded = {"model": model, "__author__": "pycls", "matching_heuristics": True}
        elif isinstance(loaded, dict) and "model" not in loaded:
            loaded = {"model": loaded}
        return _as_checkpoint(loaded, f)

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


def _as_checkpoint(loaded: Any, file: str) -> dict[str, Any]:
    """Check that a loaded object is a dict whose `model` maps names to tensors or arrays."""
    if not isinstance(loaded, dict) or not isinstance(loaded.get("model"), Mapping):
        content = sorted(map(str, loaded))[:5] if isinstance(loaded, dict) else type(loaded)
        raise ValueError(
            f"{file} is not a checkpoint: it must hold a state dict, or a dict with the state dict "
            f"as 'model'; it holds {content}"
        )
    for name, value in loaded["model"].items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor | np.ndarray):
            raise ValueError(
                f"{file} is not a checkpoint: a model state must map names to tensors or arrays, "
                f"its entry {name!r} is {type(value).__name__}. If the weights lie deeper, save "
                "them as {'model': state_dict}"
            )
    return loaded


def _unsafe_load_allowed(file: str) -> bool:
    if os.environ.get(UNSAFE_LOAD_VARIABLE) != "1":
        return False
    logger.warning(f"{UNSAFE_LOAD_VARIABLE}=1: code that {file} may contain is executed")
    return True


def _refusal(file: str, type_name: str) -> ValueError:
    return ValueError(
        f"{file} contains {type_name}, which a checkpoint must not: loading it could execute code "
        f"from the file. If you trust its source, set {UNSAFE_LOAD_VARIABLE}=1"
    )


# The functions by which numpy restores arrays and scalars; they do nothing but build values. Files
# hold them under the module names of numpy 1 (core) or numpy 2 (_core).
_NUMPY_FUNCTIONS = {
    "multiarray._reconstruct": np.zeros(1).__reduce__()[0],
    "multiarray.scalar": np.float64(0).__reduce__()[0],
    "numeric._frombuffer": np.zeros(1).__reduce_ex__(5)[0],
}
_NUMPY_GLOBALS = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    **{f"numpy.core.{name}": function for name, function in _NUMPY_FUNCTIONS.items()},
    **{f"numpy._core.{name}": function for name, function in _NUMPY_FUNCTIONS.items()},
}


def _read_torch(file: str) -> Any:
    """Read a file of `torch.save` on the CPU, without executing code from it."""
    if _unsafe_load_allowed(file):
        return torch.load(file, map_location="cpu", weights_only=False)
    dtypes = [type(np.dtype(code)) for code in np.typecodes["AllInteger"] + "?efdSU"]
    numpy_globals = [(function, name) for name, function in _NUMPY_GLOBALS.items()]
    try:
        with torch.serialization.safe_globals([*numpy_globals, *dtypes]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as e:  # of any type: torch reads whatever the bytes may mean to it
        # Of a file that it refuses torch tells at length how to load it all the same.
        cause = None if isinstance(e, pickle.UnpicklingError) else e
        refused = re.search(r"GLOBAL ([\w.]+)", str(e))  # the only place where torch says it
        if refused:
            raise _refusal(file, refused[1]) from cause
        raise ValueError(
            f"{file} is damaged or not a checkpoint of torch.save ({type(e).__name__}); "
            "fetch or save it again"
        ) from cause


class _ArrayUnpickler(pickle.Unpickler):
    """Reads numpy arrays and plain containers, and refuses everything else."""

    _ALLOWED = _NUMPY_GLOBALS | {
        "collections.OrderedDict": OrderedDict,
        "_codecs.encode": codecs.encode,
    }

    def __init__(self, file: IO[bytes]):
        super().__init__(file, encoding="latin1")  # many of these files come from Python 2
        self._name = file.name

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The allowed object of this name."""
        full_name = f"{module_name}.{global_name}"
        if full_name not in self._ALLOWED:
            raise _refusal(self._name, full_name)
        return self._ALLOWED[full_name]


def _read_pickle(file: str) -> Any:
    """Read a pickled checkpoint of numpy arrays, without executing code from it."""
    with open(file, "rb") as f:
        if _unsafe_load_allowed(file):
            loaded = pickle.load(f, encoding="latin1")
        else:
            try:
                loaded = _ArrayUnpickler(f).load()
            except (pickle.UnpicklingError, EOFError, AttributeError, IndexError) as e:
                raise ValueError(f"{file} is damaged or not a pickle: {e}") from e
    if isinstance(loaded, dict) and "model" not in loaded:
        raise ValueError(
            f"{file} has no 'model': it looks like a Caffe2 checkpoint, whose names "
            "detectron2-lite cannot convert; load and save it once with upstream Detectron2"
        )
    return loaded


def _align(
    model: Mapping[str, torch.Tensor], checkpoint: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Rename checkpoint entries to the model entries whose names they end.

    Args:
        model: state dict of the model.
        checkpoint: name to tensor or array.

    Returns:
        The renamed entries, followed by those that match nothing, and the dict from model entry to
        checkpoint entry.

    Raises:
        ValueError: one checkpoint entry matches two model entries.
    """
    mapping: dict[str, str] = {}
    for name, value in model.items():
        match = _longest_suffix(name, checkpoint)
        if match is None:
            continue
        shape = tuple(checkpoint[match].shape)
        if shape == tuple(value.shape):
            mapping[name] = match
        else:
            logger.warning(
                f"Shape of {match} in checkpoint is {shape}, while shape of {name} in model is "
                f"{tuple(value.shape)}; {match} will not be loaded"
            )
    if not mapping:
        logger.warning("No weights in the checkpoint matched with the model.")
    else:
        _check_unambiguous(mapping)
        _log_matches(mapping, model)
    taken = set(mapping.values())
    rest = {name: value for name, value in checkpoint.items() if name not in taken}
    return {name: checkpoint[match] for name, match in mapping.items()} | rest, mapping


def _longest_suffix(name: str, candidates: Mapping[str, Any]) -> str | None:
    """The longest of `candidates` that equals `name` or ends it after a dot."""
    parts = name.split(".")
    suffixes = (".".join(parts[start:]) for start in range(len(parts)))
    return next((suffix for suffix in suffixes if suffix in candidates), None)


def _check_unambiguous(mapping: Mapping[str, str]) -> None:
    takers: dict[str, list[str]] = {}
    for name, match in mapping.items():
        takers.setdefault(match, []).append(name)
    for match, names in takers.items():
        if len(names) > 1:
            raise ValueError(
                f"ambiguous names: checkpoint entry {match!r} matches the model entries {names}; "
                "rename the checkpoint entries to the full names and load without heuristics"
            )


def _log_matches(mapping: Mapping[str, str], model: Mapping[str, torch.Tensor]) -> None:
    rows = [(name, match, tuple(model[name].shape)) for name, match in mapping.items()]
    table = tabulate(
        rows, headers=["Names in Model", "Names in Checkpoint", "Shapes"], tablefmt="pipe"
    )
    owner = ".".join(os.path.commonprefix([name.split(".")[:-1] for name in mapping]))
    place = f"submodule {owner}" if owner else "model"
    logger.info(f"Following weights matched with {place} - Total num: {len(mapping)}\n{table}")
