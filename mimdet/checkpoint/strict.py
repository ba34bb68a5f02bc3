"""A checkpoint of the whole model: everything in it and in the model fits, or the run stops."""

import fnmatch
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mimdet.checkpoint.address import is_address, local_file
from mimdet.checkpoint.card import KEY as CARD_KEY
from mimdet.checkpoint.card import Card, as_entry
from mimdet.checkpoint.convert import detect_source
from mimdet.checkpoint.convert.match import resized_table
from mimdet.checkpoint.file import state_dict_of
from mimdet.checkpoint.identity import Identity, identify
from mimdet.checkpoint.newest import read_of_run
from mimdet.checkpoint.saving import WholeCheckpointer
from mimdet.layers.pos_embed import TablesOfAnyGrid, TablesOfOneGrid

logger = logging.getLogger(__name__)

_KEY = "train.init_checkpoint"

# Names of buffers that older Detectron2 versions saved and newer ones compute.
_OBSOLETE = ("*anchor_generator.cell_anchors.*", "pixel_mean", "pixel_std")

_FILL_KEYS = {
    "mask": "backbone.bottom_up.decoder.mask_token",
    "conv": "backbone.bottom_up.decoder.conv_feat_proj.weight",
}


class StrictCheckpointer(WholeCheckpointer):
    """DetectionCheckpointer that loads everything or says why not.

    Detectron2 only warns when a checkpoint and the model differ, so a wrong file silently leaves
    random weights. Here every parameter must find its counterpart, of the same shape, unless its
    name matches a pattern of the allow-lists. Position tables that their module resizes in each
    forward pass (`TablesOfAnyGrid`) take over the grid of the checkpoint: a table resized twice is
    another table. Those of one grid (`TablesOfOneGrid`) keep it, and the checkpoint's are resized.
    Other people's names are converted to ours where `mimdet.checkpoint.convert.SOURCES` knows them.

    Args:
        model: the model to save and load.
        save_dir: folder for checkpoints.
        allow_missing: `fnmatch` patterns of model names that may be absent in the checkpoint or
            have another shape there; they keep their value
            (``roi_heads.box_predictor.*`` to fine-tune on other classes).
        allow_unexpected: patterns of checkpoint names that the model need not have.
        card: what the files say of themselves.
        **kwargs: those of DetectionCheckpointer.
    """

    remedy = (
        "if that is intended, name them in train.allow_missing (also for another shape) or "
        "train.allow_unexpected"
    )
    """What to do about a checkpoint that does not fit, the last line of the error."""

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        allow_missing: Sequence[str] = (),
        allow_unexpected: Sequence[str] = (),
        card: Card | None = None,
        **kwargs: Any,
    ):
        super().__init__(model, save_dir, **kwargs)
        self.card = card
        self.allow_missing = tuple(allow_missing)
        self.allow_unexpected = (*allow_unexpected, *_OBSOLETE)
        self._by_ends = False  # whether names are matched by their ends, which a path can ask for

    def save(self, name: str, **kwargs: Any) -> None:
        """Save a checkpoint with the card, see `DetectionCheckpointer.save`."""
        if self.card is not None:
            kwargs[CARD_KEY] = as_entry(self.card)
        super().save(name, **kwargs)

    def load(self, path: str | None, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a checkpoint, see `DetectionCheckpointer.load`; without a path, nothing."""
        if not path:
            # Detectron2 would log that the model starts from scratch, and parts of it may have
            # their weights from pretraining already.
            logger.info("No checkpoint of the whole model is loaded (train.init_checkpoint)")
            return {}
        self._by_ends = path.endswith("?matching_heuristics=True")
        if is_address(path):
            local_file(path.partition("?")[0], _KEY)  # for its check: Detectron2 makes none
        return super().load(path, checkpointables)

    def _load_file(self, f: str) -> Any:
        # Nothing of it is left to the base class: upstream's would run the code of a pickle.
        content = read_of_run(f, _KEY)
        by_ends = self._by_ends
        if f.endswith(".pyth") and "model_state" in content:  # of pycls, with names of its own
            content, by_ends = {"model": content["model_state"], "__author__": "pycls"}, True
        if not isinstance(content, Mapping) or "model" not in content:
            content = {"model": state_dict_of(content)}
        content = _with_state_dict(dict(content), f)
        return content | {"matching_heuristics": True} if by_ends else content

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        by_heuristics = bool(checkpoint.get("matching_heuristics", False))
        if not by_heuristics:
            state_dict = _without_module(checkpoint["model"])
            # Names first: tables below are found by ours.
            if source := detect_source(state_dict):
                logger.info(f"the checkpoint has names of {source.name}, which are converted")
                state_dict = source.to_native(state_dict)
            resized = _resized_tables(self.model, state_dict, self.allow_missing)
            for name, table in resized.items():
                logger.info(
                    f"{name} is resized to the model's grid: {_slots(state_dict[name])} slots of "
                    f"the checkpoint to {_slots(table)}"
                )
            state_dict = {**state_dict, **resized}
            tables = _other_grids(self.model, state_dict, self.allow_missing)
            self._check(state_dict, fitting=tables)
            for name, table in tables.items():
                parameter = self.model.get_parameter(name)
                logger.info(
                    f"{name} takes the checkpoint's grid: {table.shape[1]} slots instead of "
                    f"{parameter.shape[1]}"
                )
                # in the same Parameter, which the optimiser holds already
                parameter.data = table.clone()
            checkpoint["model"] = state_dict
        incompatible = super()._load_model(checkpoint)
        if by_heuristics:  # only now it is known which names belong together
            missing = _unmatched(incompatible.missing_keys, self.allow_missing)
            _refuse_gaps(self.remedy, missing, [], [])
        return incompatible

    def _check(self, state_dict: Mapping[str, Any], fitting: Mapping[str, Tensor]) -> None:
        own = {**self.model.state_dict(), **fitting}
        # First, because it tells more than the lists of names that would follow from it.
        _check_fill(own, state_dict)
        missing = _unmatched(own.keys() - state_dict.keys(), self.allow_missing)
        unexpected = _unmatched(state_dict.keys() - own.keys(), self.allow_unexpected)
        common = _unmatched(own.keys() & state_dict.keys(), self.allow_missing)
        shapes = [
            f"{name}: {tuple(state_dict[name].shape)} in the checkpoint, "
            f"{tuple(own[name].shape)} in the model"
            for name in common
            if tuple(state_dict[name].shape) != tuple(own[name].shape)
        ]
        _refuse_gaps(self.remedy, missing, unexpected, shapes, identify(state_dict))


def _refuse_gaps(
    remedy: str,
    missing: list[str],
    unexpected: list[str],
    shapes: list[str],
    identity: Identity | None = None,
) -> None:
    """Raise ValueError if a checkpoint and a model differ in anything that was not allowed."""
    if not (missing or unexpected or shapes):
        return
    lines = ["the checkpoint does not fit the model:"]
    lines += _listed("parameters that the checkpoint lacks", missing)
    lines += _listed("parameters that the model lacks", unexpected)
    lines += _listed("parameters of another shape", shapes)
    is_other_model = bool(missing or unexpected)
    if is_other_model and identity and identity.kind != "unknown":
        lines.append(f"the checkpoint is {identity.what}; {identity.remedy}")
    lines.append(remedy)
    raise ValueError("\n  ".join(lines))


def _with_state_dict(checkpoint: dict[str, Any], path: str) -> dict[str, Any]:
    """The checkpoint, if its model is a state dict; upstream takes any content for one."""
    model = checkpoint["model"]
    if not isinstance(model, Mapping):
        raise ValueError(
            f"{path} is not a checkpoint: its model is {type(model).__name__} ({_KEY})"
        )
    for name, value in model.items():
        if not isinstance(value, Tensor | np.ndarray):
            raise ValueError(
                f"{path} is not a checkpoint: it must hold a state dict, or a dict with one under "
                f"'model', but its entry {name!r} is {type(value).__name__} ({_KEY})"
            )
    return checkpoint


def _without_module(state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
    """Names without the prefix of parallel training, if all have it."""
    if not all(name.startswith("module.") for name in state_dict):
        return state_dict
    return {name.removeprefix("module."): value for name, value in state_dict.items()}


def _other_grids(
    model: nn.Module, state_dict: Mapping[str, Tensor], kept: Sequence[str]
) -> dict[str, Tensor]:
    """Tables of the checkpoint for those of the model that may have any grid, and another one."""
    own = {
        f"{prefix}.{name}".removeprefix("."): module.get_parameter(name)
        for prefix, module in model.named_modules()
        if isinstance(module, TablesOfAnyGrid)
        for name in module.tables_of_any_grid
    }
    found = _unmatched(own.keys() & state_dict.keys(), kept)
    tables = {name: torch.as_tensor(state_dict[name]) for name in found}
    return {
        name: table.to(own[name])
        for name, table in tables.items()
        if table.ndim == own[name].ndim == 3
        and table.shape[2] == own[name].shape[2]
        and table.shape[1] != own[name].shape[1]
    }


def _resized_tables(
    model: nn.Module, state_dict: Mapping[str, Any], kept: Sequence[str]
) -> dict[str, Tensor]:
    """Tables of the checkpoint that have another grid than the model's, at that of the model."""
    resized = {}
    for prefix, module in model.named_modules():
        if not isinstance(module, TablesOfOneGrid):
            continue
        for own_name in module.tables_of_one_grid:
            name = f"{prefix}.{own_name}".removeprefix(".")
            own = getattr(module, own_name)  # None where the module has no such table
            if own is None or name not in state_dict or not _unmatched([name], kept):
                continue
            table = torch.as_tensor(state_dict[name])
            if table.shape != own.shape:
                found = resized_table(name, table, own, module.grid_size)
                resized |= {name: found} if found is not None else {}
    return resized


def _slots(table: Any) -> int:
    """Of a table (1, slots, C) of positions or (slots, N) of relative ones."""
    return table.shape[-2]


def _check_fill(own: Mapping[str, Tensor], state_dict: Mapping[str, Tensor]) -> None:
    """Refuse a MIMDet checkpoint whose decoder fills holes in the other way."""
    for fill, other in (("mask", "conv"), ("conv", "mask")):
        if _FILL_KEYS[fill] in own and _FILL_KEYS[other] in state_dict:
            raise ValueError(
                f"the model fills dropped tokens by fill={fill!r}, the checkpoint is of a model "
                f"with fill={other!r}; use the config of that release "
                "(names ending in _convfill have fill='conv', the others fill='mask')"
            )


def _unmatched(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return sorted(n for n in names if not any(fnmatch.fnmatchcase(n, p) for p in patterns))


def _listed(title: str, names: list[str], limit: int = 8) -> list[str]:
    if not names:
        return []
    rest = [f"  ... and {len(names) - limit} more"] if len(names) > limit else []
    return [f"{len(names)} {title}:", *(f"  {name}" for name in names[:limit]), *rest]
