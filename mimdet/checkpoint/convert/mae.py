"""MAE checkpoints -> the parts of them that a ViT or a decoder of ours takes.

MAE's names are ours (`blocks.*`, `norm.*`, `pos_embed`, `decoder_blocks.*`, ...), so nothing is
renamed; what differs is that files come wrapped and prefixed, that position tables are for 224
pixels, and that what is new in a detector has no counterpart in the file.
"""

import fnmatch
import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from mimdet.checkpoint.convert.report import LoadReport, counted
from mimdet.layers.pos_embed import interpolate_pos_embed

_PREFIXES = ("module.", "model.", "encoder.", "backbone.")
_POS_EMBEDS = ("pos_embed", "decoder_pos_embed")

# Parts of our modules that MAE files lack.
_NOT_IN_MAE = (
    # MIMDet: the convolution stem and the projection of "conv" fill
    *("patch_embed.proj.[0-9]*.*", "conv_feat_proj.*"),
    # Benchmarking-ViT: adaptors, shared relative positions and layer scale
    *("ms_adaptor.*", "windowed_rel_pos_bias.*", "global_rel_pos_bias.*", "blocks.*.gamma_[12]"),
    # ViTDet and ViTAE: decomposed relative positions and convolutions beside or after a block
    *("*.attn.rel_pos_[hw]", "*.residual.*", "*.PCM.*"),
)


def strip_prefixes(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the wrappers' prefixes (`module.`, `encoder.`, ...) from all names."""
    return {_strip(name): value for name, value in state_dict.items()}


def _strip(name: str) -> str:
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return _strip(name[len(prefix) :])
    return name


def has_decoder(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a MAE state dict (prefixes stripped) holds a decoder."""
    return any(name.startswith("decoder_") for name in state_dict)


def match_mae(
    mae: Mapping[str, Tensor],
    module: Mapping[str, Tensor],
    *,
    grid_size: tuple[int, int] | None = None,
    optional: Sequence[str] = (),
) -> tuple[dict[str, Tensor], LoadReport]:
    """Pick and fit the tensors that a module takes from a MAE file.

    Args:
        mae: state dict of the file, prefixes stripped.
        module: the module's own state dict, for names and shapes.
        grid_size: (h, w) of the module's position table; by default it is square.
        optional: `fnmatch` patterns of names that the file need not have, besides those of what
            is new in our modules.

    Returns:
        The tensors to load, and the report.

    Raises:
        ValueError: if a tensor of the module is missing in the file, has another shape there, or
            the file has more encoder blocks than the module.
    """
    report, matched = LoadReport(), {}
    for name, own in module.items():
        if name not in mae:
            report.initial.append(name)
        elif name in _POS_EMBEDS and mae[name].shape[1] != own.shape[1]:
            matched[name] = _resize_to(mae[name], own, grid_size)
            report.resized.append(name)
        else:
            matched[name] = mae[name]
            report.loaded.append(name)
    report.unused = sorted(set(mae) - set(module))
    _check_complete(report.initial, (*_NOT_IN_MAE, *optional))
    _check_shapes(matched, module)
    _check_depth(report.unused, module)
    return matched, report


def _resize_to(table: Tensor, own: Tensor, grid_size: tuple[int, int] | None) -> Tensor:
    """Bring a square position table to the module's grid; a class slot it lacks is left out."""
    side, extra = _square(table)
    own_side, own_extra = _square(own)
    if grid_size is None:
        grid_size = (own_side, own_side)
    else:
        own_extra = own.shape[1] - grid_size[0] * grid_size[1]
    resized = interpolate_pos_embed(
        table.float(), grid_size, num_extra_tokens=extra, orig_size=(side, side)
    )
    return resized[:, max(extra - own_extra, 0) :]


def _square(table: Tensor) -> tuple[int, int]:
    """Side of the square grid of a table, and the slots that it has besides."""
    side = math.isqrt(table.shape[1])
    return side, table.shape[1] - side * side


def _check_complete(initial: list[str], patterns: Sequence[str]) -> None:
    missing = [n for n in initial if not any(fnmatch.fnmatchcase(n, p) for p in patterns)]
    if missing:
        raise ValueError(f"the file lacks {counted(missing)}, which MAE checkpoints have")


def _check_shapes(matched: Mapping[str, Tensor], module: Mapping[str, Tensor]) -> None:
    for name, value in matched.items():
        if value.shape != module[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)} in the file and "
                f"{tuple(module[name].shape)} in the model; the file is of another model size"
            )


def _check_depth(unused: list[str], module: Mapping[str, Tensor]) -> None:
    """A decoder may use the first blocks only; an encoder uses them all."""
    if not any(name.startswith("blocks.") for name in module):
        return
    surplus = [name for name in unused if name.startswith("blocks.")]
    if surplus:
        raise ValueError(
            f"the file has encoder blocks that the model lacks ({counted(surplus)}); "
            "the file is of another model size"
        )
