"""What a checkpoint is, from names and shapes; which of our configs it belongs to."""

import gzip
import json
import re

import pytest
import timm
import torch
from toy_runs import REPOSITORY

from detectron2.config import LazyConfig, instantiate
from mimdet.checkpoint.identity import START, WHOLE, identify

GOLDEN = REPOSITORY / "tests/golden"


def meta(shapes: dict) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def golden(path: str) -> dict:
    return json.loads(gzip.decompress((GOLDEN / f"{path}.json.gz").read_bytes()))


def released(path: str) -> dict[str, torch.Tensor]:
    """Names and shapes of a released model, from its reference file."""
    folder, _, name = path.partition("/")
    if folder == "pretraining":
        file, _, model = name.partition(":")
        return meta(golden(f"pretraining/{file}")[model]["state_dict"])
    if folder == "vitdet":
        return meta({n: s["shape"] if isinstance(s, dict) else s for n, s in golden(path).items()})
    return meta({entry[0]: entry[1] for entry in golden(path)["entries"]})


def named_configs(text: str) -> list[str]:
    return re.findall(r"configs/\w+/\w+\.py", text)


# --- released files: names and shapes that were listed from the published code --------------------


@pytest.mark.parametrize(
    "path, kind, words",
    [
        ("keys/mae_vit_base_patch16_full", "mae", "a full MAE checkpoint of ViT-B/16"),
        ("keys/mae_vit_large_patch16_full", "mae", "a full MAE checkpoint of ViT-L/16"),
        ("keys/mae_vit_base_patch16_encoder_only", "vit", "ViT-B/16 without decoder"),
        ("keys/mae_vit_large_patch16_encoder_only", "vit", "ViT-L/16 without decoder"),
        ("keys/mimdet_vit_base_v10", "mimdet", "v1.0 (mask-token fill), base, .* 14x14"),
        ("keys/mimdet_vit_base_v12", "mimdet", "v1.2 (convolution fill), base, .* 50x50"),
        ("keys/mimdet_vit_large_v10", "mimdet", "v1.0 (mask-token fill), large, .* 14x14"),
        ("keys/mimdet_vit_large_v12", "mimdet", "v1.2 (convolution fill), large, .* 50x50"),
        ("keys/benchmarking_vit_base", "benchmarking", "a Benchmarking-ViT detector"),
        ("keys/mpvit_tiny_retinanet", "mpvit", "retinanet with MPViT-tiny, 80 classes"),
        ("keys/mpvit_xs_mask_rcnn", "mpvit", "mask_rcnn with MPViT-xs, 80 classes"),
        ("keys/mpvit_small_mask_rcnn", "mpvit", "mask_rcnn with MPViT-small"),
        ("keys/mpvit_base_cascade_mask_rcnn", "mpvit", "cascade_mask_rcnn with MPViT-base"),
        ("vitdet/keys_COCO_mask_rcnn_vitdet_b_100ep", "vitdet", "(mask_rcnn, width 768), 80"),
        ("vitdet/keys_COCO_cascade_mask_rcnn_vitdet_b_100ep", "vitdet", "(cascade_mask_rcnn, "),
        ("vitdet/keys_unofficial_vit_base", "vitdet_mmdet", "the unofficial ViTDet and ViTAE"),
        ("vitdet/keys_unofficial_vitae_small", "vitdet_mmdet", "in mmdetection's names"),
        ("pretraining/keys_fastmim:pretrain/mim_vit_base", "fastmim", "FastMIM with ViT-B/16"),
        ("pretraining/keys_fastmim:pretrain/mim_swin_base", "fastmim", "FastMIM with Swin-B"),
        ("pretraining/keys_fastmim:pretrain/mim_pvtv2_b2", "fastmim", "FastMIM with PVTv2"),
        ("pretraining/keys_fastmim:pretrain/mim_cmt_small", "fastmim", "FastMIM with CMT"),
        ("pretraining/keys_fastmim:finetune/vit_base_patch16", "vit_classifier", "ViT-B/16"),
        ("pretraining/keys_fastmim:finetune/cmt_small", "hierarchical", "CMT, a classifier"),
        ("pretraining/keys_fastmim:finetune/pvtv2_b2", "hierarchical", "PVTv2, a classifier"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "_orig_mod.module."])
def test_released_files_are_known_whatever_wrapped_the_model(path, kind, words, prefix):
    identity = identify({prefix + name: t for name, t in released(path).items()})
    assert identity.kind == kind
    assert re.search(words.replace("(", r"\(").replace(")", r"\)"), identity.what)
    assert all((REPOSITORY / config).exists() for config in named_configs(identity.remedy))


# --- files of our own runs: of one config of each kind --------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "mimdet/mimdet_vit_base_mask_rcnn_fpn_sr_0p25_800_1333_4xdec_coco_3x",
        "mimdet/mimdet_vit_large_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x_convfill",
        "benchmarking/benchmarking_mask_rcnn_base_FPN_25ep_LSJ_mae",
        "vitdet/mask_rcnn_vitdet_h_75ep",
        "vitdet/lvis_cascade_mask_rcnn_vitdet_b_100ep",
        "vitdet/lvis_mask_rcnn_vitdet_h_100ep",
        "vitae/mask_rcnn_vitae_b_100ep",
        "vitae/mask_rcnn_vitae_s_100ep",
        "vitae/mask_rcnn_vitdet_b_unofficial_100ep",
        "mpvit/cascade_mask_rcnn_mpvit_small_ms_3x",
        "mpvit/retinanet_mpvit_xs_ms_3x",
        "fastmim/mask_rcnn_swin_base_scp_3x",
        "baselines/cascade_mask_rcnn_r50_fpn_1x",
        "baselines/retinanet_r50_fpn_1x",
        "finetune/mae_vit_base_100e",
        "finetune/fastmim_swin_base_100e",
        "finetune/fastmim_pvtv2_b2_100e",
        "finetune/fastmim_cmt_small_100e",
    ],
)
def test_a_file_of_ours_is_told_a_config_with_the_same_parameters(path):
    own = built(f"configs/{path}.py")
    identity = identify(own)
    assert WHOLE in identity.keys
    (config,) = named_configs(identity.remedy)
    assert {n: t.shape for n, t in built(config).items()} == {n: t.shape for n, t in own.items()}


@pytest.mark.parametrize(
    "path, kind",
    [("mae_vit_base", "mae"), ("fastmim_vit_base", "fastmim"), ("fastmim_swin_base", "fastmim")],
)
def test_our_pretraining_files_start_others(path, kind):
    identity = identify(built(f"configs/pretrain/{path}.py"))
    assert (identity.kind, identity.keys) == (kind, (START,))


@pytest.mark.parametrize(
    "path", ["mimdet_mask_rcnn_fpn_sr_0p5_toy", "vitdet_mask_rcnn_toy", "vitae_b_mask_rcnn_toy"]
)
def test_of_another_size_no_config_is_named(path):
    identity = identify(built(f"configs/toy/{path}.py"))
    assert named_configs(identity.remedy) == []
    assert "a config like those of configs/" in identity.remedy


def built(config: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return instantiate(LazyConfig.load(str(REPOSITORY / config)).model).state_dict()


# --- files of others: names from installed code of timm -------------------------------------------


@pytest.mark.parametrize(
    "model, kind, words",
    [
        ("vit_base_patch16_224", "vit_classifier", "ViT-B/16"),
        ("deit_base_distilled_patch16_224", "vit_classifier", "ViT-B/16"),
        ("deit3_base_patch16_224", "dinov2", "layer scale of DINOv2 or DeiT III"),
        ("beit_base_patch16_224", "beit", "ViT-B/16 in BEiT's layout"),
        ("beitv2_base_patch16_224", "beit", "ViT-B/16 in BEiT's layout"),
        ("vit_base_patch14_dinov2", "dinov2", "ViT-B/14 with the layer scale"),
        ("vit_base_patch14_reg4_dinov2", "dinov2", "ViT-B/14 with the layer scale"),
        ("vit_base_patch16_dinov3", "dinov3", "DINOv3's ViT-B/16"),
        ("eva02_base_patch14_224", "eva", "ViT-B/14 of EVA-02"),
        ("vit_base_patch16_clip_224", "clip", "CLIP's kind"),
        ("samvit_base_patch16", "sam", "Segment Anything"),
        ("swin_base_patch4_window7_224", "hierarchical", "Swin-B"),
        ("swinv2_tiny_window8_256", "swinv2", "version 2"),
        ("pvt_v2_b2", "hierarchical", "PVTv2"),
        ("resnet50", "resnet", "ResNet"),
        ("convnext_tiny", "convnext", "ConvNeXt"),
        ("mobilenetv3_small_100", "unknown", "no system that is known here .244 tensors"),
    ],
)
def test_models_of_timm_are_known(model, kind, words):
    with torch.device("meta"):
        identity = identify(timm.create_model(model).state_dict())
    assert identity.kind == kind
    assert words in identity.what or re.search(words, identity.what)
    assert (START in identity.keys) == (
        kind in ("vit_classifier", "beit", "hierarchical", "unknown")
    )


# --- files of others: a few names each, from their public documentation, from memory --------------


@pytest.mark.parametrize(
    "kind, names",
    [
        ("dinov2", ["pos_embed", "mask_token", "blocks.0.0.ls1.gamma", "blocks.0.0.norm1.weight"]),
        ("dinov2", ["teacher.backbone.blocks.0.ls1.gamma", "teacher.backbone.norm.weight"]),
        ("dinov3", ["storage_tokens", "rope_embed.periods", "blocks.0.ls1.gamma"]),
        (
            "transformers",
            ["vit.embeddings.cls_token", "vit.encoder.layer.0.attention.attention.query.weight"],
        ),
        (
            "transformers",
            [
                *("vit.embeddings.cls_token", "decoder.decoder_layers.0.layernorm_before.bias"),
                "vit.encoder.layer.0.attention.attention.key.weight",
            ],
        ),
        ("transformers", ["embeddings.mask_token", "encoder.layer.0.attention.output.dense.bias"]),
        ("transformers", ["embeddings.register_tokens", "layer.0.attention.q_proj.weight"]),
        (
            "transformers",
            [
                "vision_model.embeddings.class_embedding",
                "vision_model.encoder.layers.0.self_attn.k_proj.bias",
            ],
        ),
        ("clip", ["visual.transformer.resblocks.0.attn.in_proj_weight", "text_projection"]),
        ("sam", ["image_encoder.blocks.0.attn.rel_pos_h", "image_encoder.neck.0.weight"]),
        ("mmdet", ["backbone.layer1.0.conv1.weight", "neck.lateral_convs.0.conv.weight"]),
        ("mmdet", ["backbone.conv1.weight", "bbox_head.conv_cls.weight"]),
        ("mmseg", ["backbone.layers.0.ln1.weight", "decode_head.conv_seg.weight"]),
        ("mmpretrain", ["backbone.layers.0.ln1.weight", "head.layers.head.weight"]),
        ("torchvision_detector", ["backbone.body.conv1.weight", "rpn.head.conv.0.0.weight"]),
        ("torchvision_vit", ["class_token", "encoder.layers.encoder_layer_0.ln_1.weight"]),
        ("detr", ["transformer.encoder.layers.0.linear1.weight", "class_embed.weight"]),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_names_of_others_are_known_and_lead_nowhere(kind, names, prefix):
    identity = identify(meta({prefix + name: (4,) for name in names}))
    assert (identity.kind, identity.keys) == (kind, ())
    assert "nothing converts it" in identity.remedy


def test_a_vitdet_backbone_alone_is_a_vit_to_start_from():
    names = {"blocks.0.attn.qkv.weight": (96, 32), "blocks.0.attn.rel_pos_h": (27, 16)}
    assert identify(meta(names)).keys == (START,)


def test_an_mpvit_classifier_starts_its_detectors():
    identity = identify(meta({"mhca_stages.0.mhca_blks.0.cpe.proj.weight": (4,)}))
    assert (identity.kind, identity.keys) == ("mpvit_classification", (WHOLE,))


@pytest.mark.parametrize(
    "name",
    [
        "backbone.net.layers.0.RC.attn.qkv.weight",
        "backbone.bottom_up.encoder.blocks.0.attn.qkv.weight",
        "backbone.simfp_2.0.weight",
        "backbone.bottom_up.blocks.0.attn.qkv.weight",
        "backbone.bottom_up.model.layers.0.blocks.0.attn.qkv.weight",
    ],
)
def test_of_part_of_a_detector_no_config_is_named(name):
    assert "configs/" not in identify(meta({name: [96, 32]})).remedy


def test_of_unknown_names_the_first_are_shown_with_the_way_out():
    identity = identify(meta({"a": (1,), "b": (1,), "c": (1,), "d": (1,)}))
    assert identity.what == "of no system that is known here (4 tensors: a, b, c, ...)"
    assert "--rename" in identity.remedy
