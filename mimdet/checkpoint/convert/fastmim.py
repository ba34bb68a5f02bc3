"""FastMIM's and timm's encoders: names of the release <-> ours, and what starts from such a file.

Inside an encoder our names are timm's. The release has the older names of Swin and PVTv2; its ViT
and CMT differ by the part of our models they are put into:

=============  =============================================  ==========================
file           release                                        ours
=============  =============================================  ==========================
pretraining    ViT: none, others: "encoder."                  "encoder.", timm's models
                                                              "encoder.model."
classifier     none                                           "network."
=============  =============================================  ==========================
"""

import fnmatch
import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from mimdet.checkpoint.convert.mae import LoadReport
from mimdet.layers.pos_embed import (
    interpolate_pos_embed,
    interpolate_rel_pos_bias,
    interpolate_rel_pos_table,
)

# family -> beginnings of names in the release and in timm
_STAGES = {
    "swin": [(f"layers.{k}.downsample.", f"layers.{k + 1}.downsample.") for k in range(3)],
    "pvtv2": [
        ("patch_embed1.", "patch_embed."),
        *((f"patch_embed{k}.", f"stages.{k - 1}.downsample.") for k in (2, 3, 4)),
        *((f"block{k}.", f"stages.{k - 1}.blocks.") for k in (1, 2, 3, 4)),
        *((f"norm{k}.", f"stages.{k - 1}.norm.") for k in (1, 2, 3, 4)),
    ],
    "cmt": [],
    "vit": [],
}
# The same for what only a classifier has.
_HEADS = {"swin": [("fc_norm.", "norm."), ("head.", "head.fc.")]}

# family -> beginnings of the other names
_SAME = {
    "swin": ("patch_embed.", "layers.", "norm."),
    "pvtv2": ("head.",),
    "cmt": ("stem_", "patch_embed_", "relative_pos_", "blocks_", "norm.", "_fc.", "_bn.", "head."),
    "vit": ("cls_token", "pos_embed", "patch_embed.", "blocks.", "norm.", "fc_norm.", "head."),
}
_TIMM = ("swin", "pvtv2")
_COMPUTED = (".relative_position_index", ".attn_mask")  # buffers that Swin's files hold
_DECODER = ("mask_token", "decoder_")

# What a file and the model that starts from it may have alone: heads, decoders, norms at the end.
_MAY_DIFFER = (
    *("head*", "fc_norm*", "norm.*", "norm_c[2-5].*", "_fc.*", "_bn.*"),
    *("decoder*", "mask_token", "*.relative_position_index", "*.attn_mask"),
)


# --- Files of the release -------------------------------------------------------------------------


def is_fastmim(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a pretraining file or a classifier of the release."""
    bare = {name.removeprefix("encoder.") for name in state_dict}
    if "layers.0.downsample.reduction.weight" in bare or "patch_embed1.proj.weight" in bare:
        return True
    is_classifier = bool({"_fc.weight", "fc_norm.weight"} & state_dict.keys())
    is_bare = bool({"stem_conv1.weight", "blocks.0.attn.qkv.weight"} & state_dict.keys())
    return is_bare and (is_classifier or has_pixel_mask_token(state_dict))


def has_pixel_mask_token(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether masked places are a colour, as in FastMIM, and not a token, as in MAE."""
    return "mask_token" in state_dict and state_dict["mask_token"].ndim == 4


def to_native(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a file of the release: ViT, Swin, PVTv2 or CMT, pretraining or classifier.

    Buffers that are computed from sizes are left out.

    Raises:
        ValueError: if the model is none of these, or a name is in no row of the table.
    """
    bare = {name.removeprefix("encoder."): value for name, value in state_dict.items()}
    family = _family(bare)
    pretraining = "mask_token" in bare
    prefix = _native_prefix(family, pretraining)
    return {
        _with_prefix(prefix, new): bare[name]
        for name, new in _renamed(bare, family, _table(family, pretraining)).items()
    }


def from_native(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a pretraining file or classifier of ours into the names of the release.

    The inverse of `to_native`, but for buffers that are computed from sizes.

    Raises:
        ValueError: if the model is none of the release's, or a name is in no row of the table.
    """
    bare = {re.sub(r"^(network|encoder)\.(model\.)?", "", n): v for n, v in state_dict.items()}
    family = _family(bare)
    pretraining = "mask_token" in bare
    table = [(theirs, ours) for ours, theirs in _table(family, pretraining)]
    prefix = "encoder." if pretraining and family != "vit" else ""
    return {
        _with_prefix(prefix, new): bare[name] for name, new in _renamed(bare, family, table).items()
    }


def _family(names: Iterable[str]) -> str:
    names = set(names)
    if any(".downsample.reduction." in name for name in names):
        return "swin"
    if {"patch_embed1.proj.weight", "stages.0.blocks.0.attn.q.weight"} & names:
        return "pvtv2"
    if "stem_conv1.weight" in names:
        return "cmt"
    if "blocks.0.attn.qkv.weight" in names:
        return "vit"
    raise ValueError(
        "a file of FastMIM must hold a ViT, Swin, PVTv2 or CMT, and this one has the names "
        f"{_brief(names)}"
    )


def _table(family: str, pretraining: bool) -> list[tuple[str, str]]:
    return _STAGES[family] + ([] if pretraining else _HEADS.get(family, []))


def _native_prefix(family: str, pretraining: bool) -> str:
    if not pretraining:
        return "network."
    return "encoder.model." if family in _TIMM else "encoder."


def _with_prefix(prefix: str, name: str) -> str:
    return name if name.startswith(_DECODER) else prefix + name


def _renamed(names: Iterable[str], family: str, table: list[tuple[str, str]]) -> dict[str, str]:
    """Old name -> new name for all that is not computed."""
    renamed, unknown = {}, []
    for name in names:
        if name.endswith(_COMPUTED):
            continue
        row = next(((old, new) for old, new in table if name.startswith(old)), None)
        if row:
            renamed[name] = _dwconv(row[1] + name[len(row[0]) :], name)
        elif name.startswith((*_SAME[family], *_DECODER)):
            renamed[name] = name
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"every parameter must have a row in the table of fastmim ({family}), but "
            f"{len(unknown)} have none: {_brief(unknown)}"
        )
    return renamed


def _dwconv(name: str, old: str) -> str:
    """PVTv2's depthwise convolution is one level deeper in the release."""
    if ".mlp.dwconv.dwconv." in old:
        return name.replace(".mlp.dwconv.dwconv.", ".mlp.dwconv.")
    return name.replace(".mlp.dwconv.", ".mlp.dwconv.dwconv.")


# --- What starts from a file ----------------------------------------------------------------------


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
            f"{problem} {len(wrong)} of the encoder's names ({_brief(wrong)}); the file is of "
            "another architecture or depth"
        )


def _brief(names: Iterable[str], limit: int = 4) -> str:
    names = sorted(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
