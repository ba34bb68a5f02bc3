"""Which detector a checkpoint in Detectron2's names is, and which config of ours fits it."""

import re
from collections.abc import Callable, Mapping

from torch import Tensor

Names = Mapping[str, Tensor]

_ENCODER = "backbone.bottom_up.encoder."


def identify_detector(names: Names) -> tuple[str, str, str] | None:
    """Kind and description, see `mimdet.checkpoint.identity.Identity`, and a config that fits.

    Args:
        names: the state dict, without prefixes of wrapping modules.

    Returns:
        None if this is no detector in Detectron2's names, or not the whole of one.
    """
    for kind, pattern, tell in _RULES:
        if any(re.match(pattern, name) for name in names):
            try:
                what, config = tell(names)
            except KeyError:  # part of a detector, without the names that tell its size
                return None
            return kind, f"{what}, {_classes(names)}", config
    return None


def _mimdet(names: Names) -> tuple[str, str]:
    size = {768: "base", 1024: "large"}.get(names[f"{_ENCODER}norm.weight"].shape[0])
    is_conv = "backbone.bottom_up.decoder.conv_feat_proj.weight" in names
    release = "v1.2 (convolution fill)" if is_conv else "v1.0 (mask-token fill)"
    # one slot is the class token's
    # and the others are those of a square grid
    grid = round((names[f"{_ENCODER}pos_embed"].shape[1] - 1) ** 0.5)
    name = f"mimdet_vit_{size}_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x" + "_convfill" * is_conv
    what = (
        f"a MIMDet detector {release}, {size or 'of another size'}, position tables {grid}x{grid}"
    )
    return what, f"{_config('mimdet', size, name)} (to evaluate, sample_ratio=1.0)"


def _benchmarking(names: Names) -> tuple[str, str]:
    width = names["backbone.bottom_up.blocks.0.norm1.weight"].shape[0]
    name = "benchmarking_mask_rcnn_base_FPN_100ep_LSJ_mae"
    return (
        f"a Benchmarking-ViT detector of width {width}",
        _config("benchmarking", width == 768, name),
    )


def _vitdet(names: Names) -> tuple[str, str]:
    width = names["backbone.net.blocks.0.norm1.weight"].shape[0]
    size = {768: "b", 1024: "l", 1280: "h"}.get(width)
    lvis = "lvis_" if _classes(names) == "1203 classes" else ""
    epochs = 75 if size == "h" and not lvis else 100
    detector = _detector(names)
    name = f"{lvis}{detector}_vitdet_{size}_{epochs}ep"
    return f"a ViTDet detector ({detector}, width {width})", _config("vitdet", size, name)


def _vitae(names: Names) -> tuple[str, str]:
    size = "s" if any(name.startswith("backbone.net.layers.") for name in names) else "b"
    width = names["backbone.simfp_2.0.weight"].shape[0]
    is_there = width == {"s": 384, "b": 768}[size]
    what = f"a detector with a ViTAE of {size.upper()}'s kind and width {width}"
    return what, _config("vitae", is_there, f"mask_rcnn_vitae_{size}_100ep")


def _unofficial(names: Names) -> tuple[str, str]:
    config = "configs/vitae/mask_rcnn_vitdet_b_unofficial_100ep.py"
    return "a detector of the unofficial ViTDet, in our names", config


def _mpvit(names: Names) -> tuple[str, str]:
    # All stages of XS, S and B give maps as wide as the last ones of T: the first and the last
    # lateral layers together tell the sizes.
    lateral = sorted(n for n in names if re.fullmatch(r"backbone\.fpn_lateral\d\.weight", n))
    widths = tuple(names[n].shape[1] for n in (lateral[0], lateral[-1])) if lateral else ()
    size = _MPVIT.get(widths)
    detector = _detector(names)
    name = f"{detector}_mpvit_{size}_" + ("ms_3x" if "cascade" in detector else "1x")
    is_there = size and ("cascade" not in detector or size in ("small", "base"))
    what = f"a detector {detector} with MPViT-{size or 'of another size'}"
    return what, _config("mpvit", is_there, name)


# widths of the maps that the first and the last lateral layer take -> size
_MPVIT = {
    **{(96, 216): "tiny", (176, 216): "tiny", (128, 256): "xs", (192, 256): "xs"},
    **{(128, 288): "small", (216, 288): "small", (224, 480): "base", (368, 480): "base"},
}


def _swin(names: Names) -> tuple[str, str]:
    width = names["backbone.bottom_up.model.patch_embed.proj.weight"].shape[0]
    is_there = width == 128 and _detector(names) == "mask_rcnn"
    what = f"a detector {_detector(names)} with a Swin of width {width}"
    return what, _config("fastmim", is_there, "mask_rcnn_swin_base_scp_3x")


def _resnet(names: Names) -> tuple[str, str]:
    blocks = {n.split(".")[3] for n in names if n.startswith("backbone.bottom_up.res4.")}
    name = f"{_detector(names)}_r50_fpn_1x"
    depth = {6: "ResNet-50", 23: "ResNet-101"}.get(len(blocks), "a ResNet")
    what = f"a detector {_detector(names)} of Detectron2 with {depth} and FPN"
    return what, _config("baselines", len(blocks) == 6, name)


def _segmentor(names: Names) -> tuple[str, str]:
    width = names["backbone.blocks.0.norm1.weight"].shape[0]
    config = _config("fastmim", width == 768, "upernet_vit_base_ade20k_160k")
    return f"a segmentor UPerNet with a plain ViT of width {width}", config


# kind, pattern, what tells the rest; the first that matches. ViTAE and the unofficial ViTDet have
# ViTDet's pyramid too, so they stand before it.
_RULES: tuple[tuple[str, str, Callable[[Names], tuple[str, str]]], ...] = (
    ("mimdet", r"backbone\.bottom_up\.encoder\.blocks\.0\.", _mimdet),
    ("vitae", r"backbone\.net\.(blocks\.0\.PCM|layers\.0\.RC)\.", _vitae),
    ("unofficial_vitdet", r"backbone\.net\.norm\.", _unofficial),
    ("vitdet", r"backbone\.simfp_2\.", _vitdet),
    ("mpvit", r"backbone\.bottom_up\.backbone\.patch_embed_stages\.", _mpvit),
    ("benchmarking", r"backbone\.bottom_up\.blocks\.0\.attn\.", _benchmarking),
    ("swin", r"backbone\.bottom_up\.model\.layers\.", _swin),
    ("upernet", r"sem_seg_head\.decode_head\.", _segmentor),
    ("resnet", r"backbone\.bottom_up\.res2\.", _resnet),
)


def _config(folder: str, is_there: object, name: str) -> str:
    return f"configs/{folder}/{name}.py" if is_there else f"a config like those of configs/{folder}"


def _detector(names: Names) -> str:
    if "head.cls_score.weight" in names:
        return "retinanet"
    is_cascade = "roi_heads.box_predictor.0.cls_score.weight" in names
    return "cascade_mask_rcnn" if is_cascade else "mask_rcnn"


def _classes(names: Names) -> str:
    # name, rows of each class (RetinaNet has 3 sizes x 3 shapes of anchors), rows of the background
    for name, anchors, background in (
        ("roi_heads.box_predictor.cls_score.weight", 1, 1),
        ("roi_heads.box_predictor.0.cls_score.weight", 1, 1),
        ("head.cls_score.weight", 9, 0),
        ("sem_seg_head.decode_head.conv_seg.weight", 1, 0),
    ):
        if name in names:
            return f"{names[name].shape[0] // anchors - background} classes"
    return "classes unknown"
