"""BEiT checkpoints -> MAE's layout, for a module that starts from them.

BEiT's ViT differs from MAE's in three things: it has no bias of the keys and holds those of queries
and values apart, its branches have a layer scale, and a table of relative positions, shared by all
blocks, stands for the table of absolute ones. A module has each of these things or not.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mimdet.layers.pos_embed import interpolate_rel_pos_bias

_TABLE = "rel_pos_bias.relative_position_bias_table"


def is_beit(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a state dict (prefixes stripped) is one of BEiT."""
    return "blocks.0.attn.q_bias" in state_dict


def fit_beit(
    beit: Mapping[str, Tensor],
    module: Mapping[str, Tensor],
    grid: Sequence[int] | None = None,
) -> dict[str, Tensor]:
    """Give a BEiT file the layout of `module`.

    Biases are joined where the module has a joint one, and layer scales are multiplied into the
    layers before them where it has none; neither changes what the network computes. The table of
    relative positions is resized for the module's windows and for its whole map; a module with
    other relative positions does not get it.

    Args:
        beit: state dict of the file, prefixes stripped.
        module: the module's own state dict, for names and shapes.
        grid: (h, w) of the module's token map; by default it is square. It is needed for tables of
            relative positions.

    Returns:
        A state dict for `mimdet.checkpoint.convert.match.match`.

    Raises:
        ValueError: if every block of the file has a table of its own, as fine-tuned files have it,
            or its table is not that of a square map.

    Reference:
        Bao et al. 2021, arXiv 2106.08254; the resizing is that of Benchmarking-ViT as released
        with MIMDet (Fang et al. 2022, arXiv 2204.02964).
    """
    fitted = dict(beit)
    own_tables = [name for name in fitted if name.endswith(".attn.relative_position_bias_table")]
    if own_tables:
        raise ValueError(
            f"the file has a table of relative positions in each block ({own_tables[0]}, ...), as "
            "BEiT's fine-tuned files have; use the pretraining file, which has one for all"
        )
    if _TABLE in fitted and "global_rel_pos_bias.relative_position_bias_table" in module:
        _resize_tables(fitted, module, grid)
    for block in sorted(name.removesuffix("attn.q_bias") for name in beit if "q_bias" in name):
        if f"{block}attn.q_bias" not in module:
            q_bias, v_bias = (fitted.pop(f"{block}attn.{x}_bias") for x in "qv")
            # A bias of the keys adds the same number to all scores of a query, which softmax takes
            # out.
            joint = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
            fitted[f"{block}attn.qkv.bias"] = joint
        if f"{block}gamma_1" not in module and f"{block}gamma_1" in fitted:
            _multiply(fitted, f"{block}attn.proj", fitted.pop(f"{block}gamma_1"))
            _multiply(fitted, f"{block}mlp.fc2", fitted.pop(f"{block}gamma_2"))
    return fitted


def _resize_tables(
    fitted: dict[str, Tensor], module: Mapping[str, Tensor], grid: Sequence[int] | None
) -> None:
    """Put the table, as an image, in the sizes of windows and of the whole map."""
    table = fitted.pop(_TABLE)[:-3]  # the last rows belong to the class token
    side = math.isqrt(table.shape[0])
    if side**2 != table.shape[0]:
        raise ValueError(
            f"{_TABLE} must have a square number of rows and three for the class token, got "
            f"{table.shape[0]} and three"
        )
    image = table.float().T.unflatten(1, (side, side))  # (N, 2 h - 1, 2 w - 1)
    for kind, map_size in (("windowed", None), ("global", grid)):
        name = f"{kind}_rel_pos_bias.relative_position_bias_table"
        rows = math.isqrt(module[name].shape[0])
        size = tuple(2 * length - 1 for length in map_size) if map_size else (rows, rows)
        fitted[name] = interpolate_rel_pos_bias(image, size).flatten(1).T


def _multiply(fitted: dict[str, Tensor], linear: str, factor: Tensor) -> None:
    """Scale the output channels of a linear layer."""
    fitted[f"{linear}.weight"] = fitted[f"{linear}.weight"] * factor[:, None]
    fitted[f"{linear}.bias"] = fitted[f"{linear}.bias"] * factor
