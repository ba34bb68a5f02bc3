"""FastMIM's encoders: names of the release <-> ours.

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

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from mimdet.checkpoint.convert.report import brief

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


def is_fastmim(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a pretraining file or a classifier of the release."""
    if has_older_names(state_dict):
        return True
    is_classifier = bool({"_fc.weight", "fc_norm.weight"} & state_dict.keys())
    is_bare = bool({"stem_conv1.weight", "blocks.0.attn.qkv.weight"} & state_dict.keys())
    return is_bare and (is_classifier or has_pixel_mask_token(state_dict))


def has_older_names(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether this is a Swin or a PVTv2 of the release, whose names timm has changed since."""
    bare = {name.removeprefix("encoder.") for name in state_dict}
    return bool({"layers.0.downsample.reduction.weight", "patch_embed1.proj.weight"} & bare)


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
        f"{brief(sorted(names))}"
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
            f"{len(unknown)} have none: {brief(sorted(unknown))}"
        )
    return renamed


def _dwconv(name: str, old: str) -> str:
    """PVTv2's depthwise convolution is one level deeper in the release."""
    if ".mlp.dwconv.dwconv." in old:
        return name.replace(".mlp.dwconv.dwconv.", ".mlp.dwconv.")
    return name.replace(".mlp.dwconv.", ".mlp.dwconv.dwconv.")
