"""What a checkpoint is, told from the names and shapes of its tensors, and what to do with it.

`_RULES` is the table. Of the files that detectors start from, the predicates are those by which
they are converted (`mimdet.checkpoint.convert`).
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from mimdet.checkpoint.convert.beit import is_beit
from mimdet.checkpoint.convert.fastmim import has_pixel_mask_token
from mimdet.checkpoint.convert.mae import has_decoder, strip_prefixes
from mimdet.checkpoint.convert.mmseg import is_mmseg
from mimdet.checkpoint.convert.mpvit import is_mpvit_classification
from mimdet.checkpoint.convert.vitdet_mmdet import is_vitdet_mmdet
from mimdet.checkpoint.detectors import identify_detector

Names = Mapping[str, Tensor]

WHOLE, START = "train.init_checkpoint", "mae_checkpoint.path"
_NOWHERE: tuple[str, ...] = ()


class Identity(NamedTuple):
    """What a file holds.

    Attributes:
        kind: a word for programs: ``mae``, ``mimdet``, ``vit_classifier``, ...; ``unknown``.
        keys: the config keys that take it, of `WHOLE` and `START`.
        what: what it is, as the end of "it is ...".
        remedy: what to do with it here.
        config: of a whole detector that fits a config of ours, its name for `find_config`.
    """

    kind: str
    keys: tuple[str, ...]
    what: str
    remedy: str
    config: str | None = None


def identify(state_dict: Names) -> Identity:
    """Say what a state dict is.

    Args:
        state_dict: tensors by name, on any device, the meta device too; prefixes of wrapping
            modules (``module.``, ``_orig_mod.``) may be there.
    """
    names = {re.sub(r"^(module\.|_orig_mod\.)+", "", n): t for n, t in state_dict.items()}
    if found := identify_detector(names):
        kind, what, config = found
        remedy = f"use {config} with train.init_checkpoint=FILE"
        name = re.match(r"(configs/\S+\.py)", config)
        return Identity(kind, (WHOLE,), what, remedy, name and name[1])
    if any(name.startswith("network.") for name in names):
        return Identity("classifier", (WHOLE, START), *_classifier(names))
    bare = strip_prefixes(names)
    for kind, fits, keys, what, remedy in _RULES:
        # what starts a part of a model may have the name of such a part in front of all others
        if fits(bare if START in keys else names):
            return Identity(kind, keys, what.format(**_words(bare)), remedy.format(**_words(bare)))
    some = ", ".join(list(names)[:3])
    return Identity(
        "unknown",
        (WHOLE, START),
        f"of no system that is known here ({len(names)} tensors: {some}, ...)",
        "rename its parameters with tools/convert_checkpoint.py --rename, or write a converter "
        "(CONTRIBUTING.md)",
    )


def _has(*patterns: str) -> Callable[[Names], bool]:
    """Whether each pattern matches a name from its start."""
    expressions = [re.compile(pattern) for pattern in patterns]
    return lambda names: all(any(e.match(name) for name in names) for e in expressions)


_vit, _head = _has(r"blocks\.0\.attn\.qkv\.weight"), _has(r"head\.weight")
_SWIN = r"layers\.0\.blocks\.0\.attn\.relative_position_bias_table"
_PVTV2 = r"block1\.0\.attn\.kv\.|stages\.0\.blocks\.0\.attn\.kv\."
_CMT = r"stem_conv1\.weight"

_GIVE = "start a detector or classifier from it with mae_checkpoint.path=FILE"
_NO_DECODER = (
    f"{_GIVE}; MIMDet's decoder needs the full MAE file, or "
    "mae_checkpoint.decoder_from_scratch=True"
)
_OTHER = "start from a file of MAE, BEiT, FastMIM or timm's plain ViT instead; nothing converts it"
_FINETUNE = "{finetune}"

# (kind, patterns of which each must match a name, what): no model here is computed as these are.
_OTHERS = (
    ("mmseg", [r"decode_head\."], "a segmentation model in mmsegmentation's names"),
    (
        "mmdet",
        [r"backbone\.", r"(neck|(bbox|roi|rpn|mask|query)_head)\."],
        "a detector in mmdetection's names",
    ),
    ("torchvision_detector", [r"backbone\.body\."], "a detector of torchvision"),
    ("detr", [r"(bbox_embed|class_embed)\."], "a detector of DETR's kind"),
    (
        "mmpretrain",
        [r"backbone\.(layers\.0\.(attn|ln1)\.|layer1\.0\.)"],
        "a classifier or backbone in mmpretrain's names",
    ),
    ("clip", [r"visual\.|(\w+\.)*norm_pre\."], "a model of CLIP's kind"),
    (
        "sam",
        [r"(image_encoder\.)?blocks\.0\.attn\.rel_pos_h$", r"(image_encoder\.)?neck\."],
        "Segment Anything's encoder",
    ),
    (
        "transformers",
        [r"(\w+\.)*layers?\.0\.(attention|self_attn)\.", r"(\w+\.)*embeddings\."],
        "a model in the names of Hugging Face transformers, which timm has under its own",
    ),
    (
        "torchvision_vit",
        [r"encoder\.layers\.encoder_layer_0\."],
        "a ViT in torchvision's names",
    ),
    (
        "dinov3",
        [r"(\w+\.)*(storage_tokens$|rope_embed\.)"],
        "DINOv3's {vit}, whose rotary positions no model here has",
    ),
    (
        "dinov3",
        [r"reg_token$", r"blocks\.0\.gamma_1$"],
        "DINOv3's {vit}, whose rotary positions no model here has",
    ),
    (
        "dinov2",
        [r"(\w+\.)*blocks\.0\.(\d+\.)?ls1\.gamma$"],
        "{vit} with the layer scale of DINOv2 or DeiT III, which no model here has",
    ),
    (
        "eva",
        [r"blocks\.0\.(attn\.(q_proj|inner_attn_ln)|mlp\.(fc1_g|w1))\."],
        "{vit} of EVA-02, whose MLP and rotary positions no model here has",
    ),
    ("swinv2", [r"layers\.0\.blocks\.0\.attn\.logit_scale"], "a Swin of version 2"),
    ("convnext", [r"(downsample_layers\.|stages\.0\.blocks\.0\.conv_dw)"], "a ConvNeXt"),
    ("resnet", [r"layer1\.0\.conv1\.weight"], "a ResNet of torchvision or timm"),
)

# (kind, predicate, keys, what, remedy); the first that fits, so what adds names to the names of
# another stands before it.
_RULES: tuple[tuple[str, Callable[[Names], bool], tuple[str, ...], str, str], ...] = (
    (
        "mpvit_classification",
        is_mpvit_classification,
        (WHOLE,),
        "an MPViT classifier of the release",
        "start configs/mpvit from it with train.init_checkpoint=FILE",
    ),
    (
        "vitdet_mmdet",
        is_vitdet_mmdet,
        (WHOLE,),
        "a detector of the unofficial ViTDet and ViTAE release, in mmdetection's names",
        "use configs/vitae with train.init_checkpoint=FILE; names are converted on load",
    ),
    (
        "mmseg_upernet",
        is_mmseg,
        (WHOLE,),
        "a segmentor UPerNet with a plain ViT, in mmsegmentation's names",
        "use configs/fastmim/upernet_vit_base_ade20k_160k.py with train.init_checkpoint=FILE; "
        "names are converted on load",
    ),
    *((kind, _has(*patterns), _NOWHERE, what, _OTHER) for kind, patterns, what in _OTHERS),
    (
        "beit",
        is_beit,
        (START,),
        "{vit} in BEiT's layout",
        f"{_GIVE} (not MIMDet, whose positions are absolute)",
    ),
    (
        "fastmim",
        has_pixel_mask_token,
        (START,),
        "a pretraining checkpoint of FastMIM with {net}",
        _FINETUNE,
    ),
    (
        "mae",
        lambda names: _vit(names) and has_decoder(names),
        (START,),
        "a full MAE checkpoint of {vit}, encoder and decoder",
        _GIVE,
    ),
    (
        "vit_classifier",
        lambda names: _vit(names) and _head(names),
        (START,),
        "a classifier with {vit}, as timm and MAE's fine-tuning write it",
        _NO_DECODER,
    ),
    (
        "vit",
        _vit,
        (START,),
        "{vit} without decoder and head, as MAE's encoder-only files and timm's are",
        _NO_DECODER,
    ),
    (
        "hierarchical",
        lambda names: any(_has(pattern)(names) for pattern in (_SWIN, _PVTV2, _CMT)),
        (START,),
        "{net}, a classifier or backbone in the names of timm or FastMIM",
        _FINETUNE,
    ),
)

_VIT_SIZES = {192: "Ti", 384: "S", 768: "B", 1024: "L", 1280: "H", 1408: "g", 1536: "G"}
_FASTMIM_CONFIGS = {"ViT-B": "vit_base", "Swin-B": "swin_base", "PVTv2": "pvtv2_b2"}


def _words(bare: Names) -> dict[str, str]:
    """What stands for the words in braces."""
    net = _net(bare)
    config = _FASTMIM_CONFIGS.get(net.partition("/")[0], "cmt_small" if net == "CMT" else None)
    remedy = f"{_GIVE}: no config here has this size, write one"
    if config:
        remedy = f"fine-tune it: configs/finetune/fastmim_{config}_100e.py mae_checkpoint.path=FILE"
    if net == "Swin-B":
        remedy += "; a classifier starts configs/fastmim/mask_rcnn_swin_base_scp_3x.py"
    return {"vit": net, "net": net, "finetune": remedy}


def _net(bare: Names) -> str:
    """The network and its size: ViT-B/16, Swin-B, ..."""
    if _has(_CMT)(bare):
        return "CMT"
    if _has(_PVTV2)(bare):
        return "PVTv2"
    width = {128: "B", 192: "L", 96: "T or S"}
    for name, tensor in bare.items():
        if re.search(r"patch_embed\.proj\.weight$", name) and tensor.ndim == 4:
            if _has(_SWIN)(bare):
                return f"Swin-{width.get(tensor.shape[0], f'of width {tensor.shape[0]}')}"
            return f"{_size(tensor.shape[0])}/{tensor.shape[2]}"
    # More than one 0 where blocks lie in chunks (blocks.0.0.), as DINOv2's may.
    norm = next((t for n, t in bare.items() if re.search(r"blocks\.(0\.)+norm1\.weight", n)), None)
    return "ViT" if norm is None else _size(norm.shape[0])


def _size(width: int) -> str:
    return f"ViT-{_VIT_SIZES[width]}" if width in _VIT_SIZES else f"ViT of width {width}"


def _classifier(names: Names) -> tuple[str, str]:
    bare = strip_prefixes(names)
    net = _net(bare)
    configs = {"ViT-B/16": "mae_vit_base_100e", "ViT-L/16": "mae_vit_large_50e"}
    configs |= {"ViT-H/14": "mae_vit_huge_50e", "Swin-B": "fastmim_swin_base_100e"}
    configs |= {"PVTv2": "fastmim_pvtv2_b2_100e", "CMT": "fastmim_cmt_small_100e"}
    config = f"configs/finetune/{configs[net]}.py" if net in configs else "its own config"
    return (
        f"a classifier of this project with {net}",
        f"evaluate it with {config} and train.init_checkpoint=FILE, or start a detector from its "
        "encoder with mae_checkpoint.path=FILE",
    )
