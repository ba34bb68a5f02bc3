"""FastMIM's segmentors (mmsegmentation's names) <-> our names.

All tensors are the same on both sides. A unit of convolution, norm and ReLU is a module of three
there and Detectron2's `Conv2d` here. The release saves in every block which row of its table
belongs to which pair of tokens; that follows from the size, and is left out and made again.

The public file could not be opened when this table was written from the release's own model.
"""

import math
import re
from collections.abc import Mapping

from torch import Tensor

from mimdet.checkpoint.convert.report import brief
from mimdet.layers.rel_pos import joint_index_with_class

_AFFINE = r"(weight|bias)"
_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_BACKBONE = re.compile(
    rf"backbone\.(cls_token|pos_embed|patch_embed\.proj\.{_AFFINE}"
    rf"|blocks\.\d+\.(gamma_[12]|(norm[12]|attn\.(qkv|proj)|mlp\.fc[12])\.{_AFFINE}"
    rf"|attn\.relative_position_bias_table)|fpn1\.[03]\.{_AFFINE}|fpn1\.1\.{_NORM}"
    rf"|fpn2\.0\.{_AFFINE})"
)
_HEAD = r"(?:decode|auxiliary)_head"
_UNIT = (
    rf"({_HEAD}\.(?:psp_modules\.\d+\.1|(?:lateral_|fpn_)?convs\.\d+|bottleneck|fpn_bottleneck))"
)
_THEIR_UNIT = re.compile(rf"{_UNIT}\.(?:conv\.(weight)|(bn)\.{_NORM})")
_OUR_UNIT = re.compile(rf"{_UNIT}\.(?:(weight)|(norm)\.{_NORM})")
_CLASSIFIER = re.compile(rf"{_HEAD}\.conv_seg\.{_AFFINE}")
_OURS = "sem_seg_head."
_TABLE, _INDEX = ".relative_position_bias_table", ".relative_position_index"


def is_mmseg(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a plain ViT with UPerNet in mmsegmentation."""
    return {
        "backbone.blocks.0.attn.qkv.weight",
        "backbone.fpn1.0.weight",
        "decode_head.fpn_bottleneck.conv.weight",
    } <= state_dict.keys()


def to_native(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a segmentor of the release, with or without its auxiliary head.

    Raises:
        ValueError: if a name is in no row of the table.
    """
    kept = {n: value for n, value in state_dict.items() if not n.endswith(_INDEX)}
    return _renamed(kept, {name: _our_name(name) for name in kept})


def from_native(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a segmentor of ours into the names of the release; the inverse of `to_native`.

    Raises:
        ValueError: if a name is in no row of the table, or a position table is not that of a
            square map, which does not tell the sides of the map.
    """
    converted = _renamed(state_dict, {name: _their_name(name) for name in state_dict})
    made: dict[int, Tensor] = {}  # by rows: one tensor, and in the file one copy, for all blocks
    for name in [n for n in converted if n.endswith(_TABLE)]:
        rows = len(converted[name])
        if rows not in made:
            made[rows] = joint_index_with_class(_square_grid(name, rows))
        converted[name.removesuffix(_TABLE) + _INDEX] = made[rows]
    return converted


def _our_name(name: str) -> str | None:
    if unit := _THEIR_UNIT.fullmatch(name):
        module, weight, is_norm, leaf = unit.groups()
        return f"{_OURS}{module}.norm.{leaf}" if is_norm else f"{_OURS}{module}.{weight}"
    if _CLASSIFIER.fullmatch(name):
        return f"{_OURS}{name}"
    return name if _BACKBONE.fullmatch(name) else None


def _their_name(name: str) -> str | None:
    of_head = name.removeprefix(_OURS)
    if unit := _OUR_UNIT.fullmatch(of_head):
        module, weight, is_norm, leaf = unit.groups()
        return f"{module}.bn.{leaf}" if is_norm else f"{module}.conv.{weight}"
    if _CLASSIFIER.fullmatch(of_head):
        return of_head
    return name if _BACKBONE.fullmatch(name) else None


def _renamed(
    state_dict: Mapping[str, Tensor], new_names: Mapping[str, str | None]
) -> dict[str, Tensor]:
    unknown = sorted(name for name, new in new_names.items() if new is None)
    if unknown:
        raise ValueError(
            f"every parameter must have a row in the table of mmseg, but {len(unknown)} have none: "
            f"{brief(unknown)}; rename them first (--rename OLD NEW)"
        )
    return {new_names[name]: value for name, value in state_dict.items()}


def _square_grid(name: str, rows: int) -> tuple[int, int]:
    offsets = math.isqrt(rows - 3)  # the last three rows are those of the class token
    if offsets**2 != rows - 3 or offsets % 2 == 0:
        raise ValueError(
            f"{name} must have (2 h - 1)^2 + 3 rows for a square map of h x h tokens, got {rows}; "
            "the release has no other maps"
        )
    return ((offsets + 1) // 2,) * 2
