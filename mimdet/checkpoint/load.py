"""Loading weights with a report: MAE files into a new model, and checkpoints without gaps."""

import argparse
import fnmatch
import logging
import os
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detectron2.checkpoint import DetectionCheckpointer
from mimdet.checkpoint.convert.mae import has_decoder, match_mae, strip_prefixes

logger = logging.getLogger(__name__)

# Names of buffers that older Detectron2 versions saved and newer ones compute.
_OBSOLETE = ("*anchor_generator.cell_anchors.*", "pixel_mean", "pixel_std")

_FILL_KEYS = {
    "mask": "backbone.bottom_up.decoder.mask_token",
    "conv": "backbone.bottom_up.decoder.conv_feat_proj.weight",
}


def load_pretrained(model: nn.Module, *, decoder_from_scratch: bool = False) -> None:
    """Start the parts of a new model from the MAE files that they name.

    Every submodule with a `pretrained` path takes from that file what it has; each file is read
    once. What was loaded, resized, left as initialised or not used is logged.

    Args:
        model: a freshly built model.
        decoder_from_scratch: leave decoders as initialised. Needed on purpose when the file is
            the encoder-only kind.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a file is no checkpoint, does not fit the module, or lacks the decoder.
    """
    files: dict[str, dict[str, Tensor]] = {}
    for name, module in model.named_modules():
        path = getattr(module, "pretrained", None)
        if not path:
            continue
        own = module.state_dict()
        if decoder_from_scratch and has_decoder(own):
            logger.info(f"{name} stays as initialised (mae_checkpoint.decoder_from_scratch=True)")
            continue
        if path not in files:
            files[path] = read_state_dict(path)
        if has_decoder(own) and not has_decoder(files[path]):
            raise ValueError(
                f"{path} must hold MAE's decoder for {name}, but it is an encoder-only file "
                "(mae_checkpoint.path); use the full MAE checkpoint, or train the decoder from "
                "its initial weights with mae_checkpoint.decoder_from_scratch=True"
            )
        try:
            matched, report = match_mae(files[path], own)
        except ValueError as e:
            raise ValueError(f"{path} does not fit {name} (mae_checkpoint.path): {e}") from e
        module.load_state_dict(matched, strict=False)
        logger.info(f"{name} from {path}: {report}")


def read_state_dict(path: str) -> dict[str, Tensor]:
    """Read the tensors of a pretraining checkpoint, without its wrapper and prefixes.

    Args:
        path: a file of ``torch.save``: ``{"model": state_dict, ...}`` or the state dict itself.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no such checkpoint, or holds objects that loading would execute.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no checkpoint {path} (mae_checkpoint.path)")
    try:
        # MAE's training script saves its argparse.Namespace beside the model; it is plain data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # of any type: torch reads whatever the bytes may mean to it
        refused = re.search(r"GLOBAL ([\w.]+)", str(e))  # the only place where torch says it
        reason = (
            f"contains {refused[1]}, and loading that could execute code"
            if refused
            else f"cannot be read as one ({type(e).__name__})"
        )
        # Of a file that it refuses torch tells at length how to load it all the same.
        cause = None if isinstance(e, pickle.UnpicklingError) else e
        raise ValueError(
            f"{path} must be a torch checkpoint of tensors (mae_checkpoint.path), but it {reason}"
        ) from cause
    state_dict = content.get("model", content) if isinstance(content, Mapping) else content
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise ValueError(
            f"{path} must hold a state dict or a dict with one under 'model' "
            f"(mae_checkpoint.path), got {type(state_dict).__name__}"
        )
    tensors = {name: v for name, v in state_dict.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(f"{path} holds no tensors (mae_checkpoint.path)")
    return strip_prefixes(tensors)


class StrictCheckpointer(DetectionCheckpointer):
    """DetectionCheckpointer that loads everything or says why not.

    Detectron2 only warns when a checkpoint and the model differ, so a wrong file silently leaves
    random weights. Here every parameter must find its counterpart, of the same shape, unless its
    name matches a pattern of the allow-lists. Frozen position tables take over the grid of the
    checkpoint: a table resized twice is another table.

    Args:
        model: the model to save and load.
        save_dir: folder for checkpoints.
        allow_missing: `fnmatch` patterns of model names that may be absent in the checkpoint or
            have another shape there; they keep their value
            (``roi_heads.box_predictor.*`` to fine-tune on other classes).
        allow_unexpected: patterns of checkpoint names that the model need not have.
        **kwargs: those of DetectionCheckpointer.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        allow_missing: Sequence[str] = (),
        allow_unexpected: Sequence[str] = (),
        **kwargs: Any,
    ):
        super().__init__(model, save_dir, **kwargs)
        self.allow_missing = tuple(allow_missing)
        self.allow_unexpected = (*allow_unexpected, *_OBSOLETE)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        if not checkpoint.get("matching_heuristics", False):
            state_dict = checkpoint["model"]
            if state_dict and all(name.startswith("module.") for name in state_dict):
                state_dict = {name[len("module.") :]: v for name, v in state_dict.items()}
            tables = _other_grids(self.model, state_dict, self.allow_missing)
            self._check(state_dict, fitting=tables)
            for name, table in tables.items():
                parameter = self.model.get_parameter(name)
                logger.info(
                    f"{name} takes the checkpoint's grid: {table.shape[1]} slots instead of "
                    f"{parameter.shape[1]}"
                )
                parameter.data = table.clone()
            checkpoint["model"] = state_dict
        return super()._load_model(checkpoint)

    def _check(self, state_dict: Mapping[str, Any], fitting: Mapping[str, Tensor]) -> None:
        own = {**self.model.state_dict(), **fitting}
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
        if not (missing or unexpected or shapes):
            return
        lines = ["the checkpoint does not fit the model:"]
        lines += _listed("parameters that the checkpoint lacks", missing)
        lines += _listed("parameters that the model lacks", unexpected)
        lines += _listed("parameters of another shape", shapes)
        if "pos_embed" in state_dict or "cls_token" in state_dict:
            lines.append("it looks like a pretraining checkpoint: give it as mae_checkpoint.path")
        lines.append(
            "if that is intended, name them in train.allow_missing (also for another shape) or "
            "train.allow_unexpected"
        )
        raise ValueError("\n  ".join(lines))


def _other_grids(
    model: nn.Module, state_dict: Mapping[str, Tensor], kept: Sequence[str]
) -> dict[str, Tensor]:
    """Tables of the checkpoint for the frozen position tables that have another grid there."""
    frozen = {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.endswith("pos_embed") and name in state_dict and not parameter.requires_grad
    }
    tables = {name: torch.as_tensor(state_dict[name]) for name in _unmatched(frozen, kept)}
    return {
        name: table.to(frozen[name])
        for name, table in tables.items()
        if table.ndim == frozen[name].ndim == 3
        and table.shape[2] == frozen[name].shape[2]
        and table.shape[1] != frozen[name].shape[1]
    }


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
