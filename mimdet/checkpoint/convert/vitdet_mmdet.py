"""Detectors of the unofficial ViTDet and ViTAE release (mmdet's names) <-> our names.

All tensors have the same layout on both sides, so names change and three values do:

* The release adds its relative positions to queries that are already scaled, ours are not (as in
  Detectron2's ViTDet), so the tables differ by ``head_dim ** -0.5``. For the released width of
  64 that is 1/8, and nothing is rounded.
* The global blocks of ViTAE-B have no key bias: they keep the biases of query and value apart.

The public files could not be opened when this table was written from the release's own models; if
one has other names, rename them first (`--rename` of `tools/convert_checkpoint.py`).
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mimdet.checkpoint.convert.report import brief

# What is below "backbone." keeps its name, below "backbone.net.".
_AFFINE = "(weight|bias)"
_BATCH_NORM = "(weight|bias|running_mean|running_var|num_batches_tracked)"
_BLOCK = (
    rf"((norm[12]|attn\.(qkv|proj)|mlp\.fc[12])\.{_AFFINE}|attn\.rel_pos_[hw]"
    rf"|PCM\.[036]\.{_AFFINE}|PCM\.[14]\.{_BATCH_NORM})"
)
_REDUCTION = (
    rf"(PRM\.convs\.\d\.0\.{_AFFINE}|PCM\.[025]\.{_AFFINE}|PCM\.3\.{_BATCH_NORM}"
    rf"|attn\.w|attn\.(kqv|proj|norm[12]|mlp\.[02])\.{_AFFINE})"
)
_NET = re.compile(
    rf"pos_embed|(patch_embed\.proj|norm)\.{_AFFINE}"
    rf"|(blocks|layers\.2\.NC)\.\d+\.{_BLOCK}|layers\.[012]\.RC\.{_REDUCTION}"
)


def _heads_and_pyramid() -> dict[str, str]:
    """Every other module of the release that has a weight, and what it is here."""
    modules = {
        "backbone.fpn1.0": "backbone.simfp_2.0",
        "backbone.fpn1.1.ln": "backbone.simfp_2.1",
        "backbone.fpn1.3": "backbone.simfp_2.3",
        "backbone.fpn2.0": "backbone.simfp_3.0",
        "rpn_head.rpn_cls": "proposal_generator.rpn_head.objectness_logits",
        "rpn_head.rpn_reg": "proposal_generator.rpn_head.anchor_deltas",
        "roi_head.bbox_head.shared_fcs.0": "roi_heads.box_head.fc1",
        "roi_head.bbox_head.fc_cls": "roi_heads.box_predictor.cls_score",
        "roi_head.bbox_head.fc_reg": "roi_heads.box_predictor.bbox_pred",
        "roi_head.mask_head.upsample": "roi_heads.mask_head.deconv",
        "roi_head.mask_head.conv_logits": "roi_heads.mask_head.predictor",
    }
    convs = {f"rpn_head.rpn_conv.{k}": f"proposal_generator.rpn_head.conv.conv{k}" for k in (0, 1)}
    for k in range(4):
        convs[f"roi_head.bbox_head.shared_convs.{k}"] = f"roi_heads.box_head.conv{k + 1}"
        convs[f"roi_head.mask_head.convs.{k}"] = f"roi_heads.mask_head.mask_fcn{k + 1}"
    # The two convolutions of a level come after what resizes the map to it.
    for level, (stage, index) in enumerate(((2, 4), (3, 1), (4, 0), (5, 1))):
        convs[f"neck.lateral_convs.{level}"] = f"backbone.simfp_{stage}.{index}"
        convs[f"neck.fpn_convs.{level}"] = f"backbone.simfp_{stage}.{index + 1}"
    for foreign, native in convs.items():
        modules[f"{foreign}.conv"] = native
        modules[f"{foreign}.ln"] = f"{native}.norm"
    return modules


_MODULES = _heads_and_pyramid()
_MODULES_BACK = {native: foreign for foreign, native in _MODULES.items()}


def is_vitdet_mmdet(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a detector of that release."""
    return {"backbone.fpn1.0.weight", "rpn_head.rpn_cls.weight"} <= state_dict.keys()


def to_native(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a detector of the release: ViT-B, ViTAE-B or ViTAE-S.

    Args:
        state_dict: all tensors of the detector, without "module." in front.

    Returns:
        The state dict of the same detector here.

    Raises:
        ValueError: if a name is in no row of the table, or a query or value bias is alone.
    """
    joined = _join_biases(state_dict)
    return _renamed(joined, "backbone.", "backbone.net.", _MODULES, scale_power=-0.5)


def from_native(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a detector of ours into the names of the release; the inverse of `to_native`.

    Args:
        state_dict: all tensors of a detector of `configs/vitae`.

    Raises:
        ValueError: if a name is in no row of the table, or a global block of ViTAE-B has a key
            bias, for which the release has no place.
    """
    renamed = _renamed(state_dict, "backbone.net.", "backbone.", _MODULES_BACK, scale_power=0.5)
    return _split_biases(renamed)


def _renamed(
    state_dict: Mapping[str, Tensor],
    net: str,
    new_net: str,
    modules: Mapping[str, str],
    scale_power: float,
) -> dict[str, Tensor]:
    """Give every tensor its new name, and multiply relative positions by a power of their width."""
    converted, unknown = {}, []
    for name, value in state_dict.items():
        module, _, leaf = name.rpartition(".")
        if name.startswith(net) and _NET.fullmatch(name, len(net)):
            new_name = new_net + name[len(net) :]
        elif module in modules and leaf in ("weight", "bias"):
            new_name = f"{modules[module]}.{leaf}"
        else:
            unknown.append(name)
            continue
        is_rel_pos = leaf.startswith("rel_pos_")
        converted[new_name] = value * value.shape[-1] ** scale_power if is_rel_pos else value
    if unknown:
        raise ValueError(
            f"every parameter must have a row in the table of vitdet_mmdet, but {len(unknown)} "
            f"have none: {brief(sorted(unknown))}; rename them first (--rename OLD NEW)"
        )
    return converted


def _join_biases(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the biases of query and value, with zeros for the key, in the place of a joint one."""
    joined = dict(state_dict)
    apart = {n.rpartition(".")[0] for n in state_dict if n.endswith((".q_bias", ".v_bias"))}
    for attn in sorted(apart):
        names = [f"{attn}.{part}" for part in ("q_bias", "v_bias", "qkv.bias")]
        found = [name for name in names if name in state_dict]
        if found != names[:2]:
            raise ValueError(
                f"{attn} must have either qkv.bias or both q_bias and v_bias, got "
                f"{', '.join(found)}; the file is damaged"
            )
        q_bias, v_bias = (joined.pop(name) for name in found)
        joined[f"{attn}.qkv.bias"] = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
    return joined


def _split_biases(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `_join_biases` in the blocks where the release keeps biases apart."""
    split = dict(state_dict)
    for name in state_dict:
        # Every third block of ViTAE-B is a global one: that is fixed in the release.
        block = re.fullmatch(r"(backbone\.blocks\.(\d+)\.)attn\.qkv\.bias", name)
        if not block or f"{block[1]}PCM.0.weight" not in state_dict or int(block[2]) % 3 != 2:
            continue
        q_bias, k_bias, v_bias = split.pop(name).chunk(3)
        if k_bias.any():
            raise ValueError(
                f"{name} must be 0 for the keys, because the release has no key bias in a global "
                f"block, got up to {k_bias.abs().max():.2g}; attention weights do not depend on "
                "it, so you may set it to 0 and convert again"
            )
        split[f"{block[1]}attn.q_bias"], split[f"{block[1]}attn.v_bias"] = q_bias, v_bias
    return split
