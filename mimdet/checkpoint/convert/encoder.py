"""What a classifier, a timm backbone or a CMT takes from a pretraining file or a classifier."""

import fnmatch
import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from mimdet.checkpoint.convert.fastmim import is_fastmim, to_native
from mimdet.checkpoint.convert.report import LoadReport, brief
from mimdet.checkpoint.convert.swin_table import interpolate_rel_pos_table
from mimdet.layers.pos_embed import interpolate_pos_embed, interpolate_rel_pos_bias

# What a file and the model that starts from it may have alone: heads, decoders, norms at the end.
_MAY_DIFFER = (
    *("head*", "fc_norm*", "norm.*", "norm_c[2-5].*", "_fc.*", "_bn.*"),
    *("decoder*", "mask_token", "*.relative_position_index", "*.attn_mask"),
)


def takes_encoder(module: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a classifier, a timm backbone or a CMT."""
    return any(name.startswith(("network.", "model.", "stem_conv1.")) for name in module)


def match_encoder(
    file: Mapping[str, Tensor], module: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], LoadReport]:
    """Pick and fit the tensors that a classifier or backbone takes from a file.

    Files of MAE, FastMIM (the release's or ours), our classifiers and timm are understood. Position
    tables are resized; Swin's on a geometric grid for classifiers, bicubically for detectors. The
    last norm of an encoder is not taken, as its place in the new model is another.

    Args:
        file: state dict of the file, prefixes stripped.
        module: the module's own state dict, for names and shapes.

    Returns:
        The tensors to load, and the report.

    Raises:
        ValueError: if anything but heads, decoders and last norms is only in one of the two, or
            has another shape.

    Reference:
        The rules are those of FastMIM's and MAE's fine-tuning, arXiv 2212.06593 and 2111.06377.
    """
    file = _timm_names(file)
    bare = {name: re.sub(r"^(network|model)\.", "", name) for name in module}
    taken = {
        name: file[bare[name]]
        for name, own in module.items()
        if bare[name] in file and not _stays_initial(bare[name], file[bare[name]], own)
    }
    report = LoadReport(
        initial=[name for name in module if name not in taken],
        unused=sorted(set(file) - set(bare.values())),
    )
    _check_only("the file lacks", [bare[name] for name in report.initial])
    _check_only("the model lacks", report.unused)
    is_classifier = any(name.startswith("network.") for name in module)
    for name, value in taken.items():
        if value.shape == module[name].shape:
            report.loaded.append(name)
        else:
            mode = "geometric" if is_classifier else "bicubic"
            taken[name] = _resized(name, value, module[name], mode)
            report.resized.append(name)
    return taken, report


def _stays_initial(name: str, value: Tensor, own: Tensor) -> bool:
    """Whether a name that both have is not taken: last norms, heads of other classes."""
    return name.startswith("norm.") or (name.startswith("head") and value.shape != own.shape)


def _timm_names(file: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's encoder under timm's names, without what it was a part of."""
    if is_fastmim(file):
        file = to_native(file)
    return {re.sub(r"^(network|encoder)\.(model\.)?", "", n): v for n, v in file.items()}


def _resized(name: str, value: Tensor, own: Tensor, table_mode: str) -> Tensor:
    leaf = name.rpartition(".")[2]
    resized = value
    if leaf == "pos_embed" and value.ndim == 3:
        side = round((own.shape[1] - 1) ** 0.5)
        resized = interpolate_pos_embed(value.float(), (side, side))
    elif leaf == "relative_position_bias_table":
        window = round((own.shape[0] ** 0.5 + 1) / 2)
        resized = interpolate_rel_pos_table(value.float(), window, table_mode)
    elif leaf.startswith("relative_pos_"):
        resized = interpolate_rel_pos_bias(value.float(), own.shape[1:])
    if resized.shape != own.shape:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)} in the file and {tuple(own.shape)} in the "
            "model; the file is of another model size"
        )
    return resized


def _check_only(problem: str, names: Iterable[str]) -> None:
    wrong = [n for n in names if not any(fnmatch.fnmatchcase(n, p) for p in _MAY_DIFFER)]
    if wrong:
        raise ValueError(
            f"{problem} {len(wrong)} of the encoder's names ({brief(sorted(wrong))}); the file is "
            "of another architecture or depth"
        )
