"""The names and values of the unofficial ViTDet release, there and back."""

import pytest
import torch
from golden_models import load
from mmdet_weights import filled

from mimdet.checkpoint.convert.vitdet_mmdet import from_native, is_vitdet_mmdet, to_native

MODELS = ("vit_base", "vitae_base", "vitae_small")


def shapes(model: str) -> dict[str, list[int]]:
    return load(f"vitdet/keys_unofficial_{model}.json.gz")


def small(model: str) -> dict[str, torch.Tensor]:
    """All names of a released detector, each with few random numbers (its heads keep D = 64)."""
    small_shapes = {}
    for name, shape in shapes(model).items():
        is_rel_pos = "rel_pos" in name
        small_shapes[name] = [3, 64] if is_rel_pos else [6 if n > 6 else n for n in shape]
    return filled(small_shapes)


@pytest.mark.parametrize("model", MODELS)
def test_there_and_back_gives_the_same_bits(model):
    theirs = small(model)
    back = from_native(to_native(theirs))
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], value) for name, value in theirs.items())


def test_relative_positions_of_other_widths_come_back_but_for_rounding():
    name = "backbone.blocks.0.attn.rel_pos_h"
    theirs = {name: torch.randn(27, 80, generator=torch.Generator().manual_seed(0))}
    (ours,) = to_native(theirs).values()
    torch.testing.assert_close(ours, theirs[name] / 80**0.5)
    torch.testing.assert_close(
        from_native(to_native(theirs))[name], theirs[name], rtol=2e-7, atol=0
    )


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ("backbone.pos_embed", "backbone.net.pos_embed"),
        ("backbone.blocks.11.mlp.fc2.bias", "backbone.net.blocks.11.mlp.fc2.bias"),
        ("backbone.layers.0.RC.attn.mlp.2.bias", "backbone.net.layers.0.RC.attn.mlp.2.bias"),
        ("backbone.layers.2.NC.9.PCM.4.running_var",
         "backbone.net.layers.2.NC.9.PCM.4.running_var"),
        ("backbone.norm.weight", "backbone.net.norm.weight"),
        ("backbone.fpn1.1.ln.bias", "backbone.simfp_2.1.bias"),
        ("backbone.fpn2.0.weight", "backbone.simfp_3.0.weight"),
        ("neck.lateral_convs.0.conv.weight", "backbone.simfp_2.4.weight"),
        ("neck.lateral_convs.3.ln.weight", "backbone.simfp_5.1.norm.weight"),
        ("neck.fpn_convs.2.conv.weight", "backbone.simfp_4.1.weight"),
        ("rpn_head.rpn_conv.1.ln.bias", "proposal_generator.rpn_head.conv.conv1.norm.bias"),
        ("rpn_head.rpn_reg.weight", "proposal_generator.rpn_head.anchor_deltas.weight"),
        ("roi_head.bbox_head.shared_convs.0.conv.weight", "roi_heads.box_head.conv1.weight"),
        ("roi_head.bbox_head.shared_fcs.0.bias", "roi_heads.box_head.fc1.bias"),
        ("roi_head.bbox_head.fc_cls.weight", "roi_heads.box_predictor.cls_score.weight"),
        ("roi_head.mask_head.convs.3.ln.bias", "roi_heads.mask_head.mask_fcn4.norm.bias"),
        ("roi_head.mask_head.conv_logits.bias", "roi_heads.mask_head.predictor.bias"),
    ],
)  # fmt: skip
def test_name_becomes_ours_and_keeps_its_tensor(theirs, ours):
    value = torch.ones(2)
    assert to_native({theirs: value})[ours] is value
    assert from_native({ours: value})[theirs] is value


def test_biases_of_query_and_value_become_one_without_bias_for_the_key():
    attn = "backbone.blocks.2.attn"
    converted = to_native(
        {f"{attn}.v_bias": torch.tensor([3.0, 4.0]), f"{attn}.q_bias": torch.tensor([1.0, 2.0])}
    )
    assert converted["backbone.net.blocks.2.attn.qkv.bias"].tolist() == [1, 2, 0, 0, 3, 4]


@pytest.mark.parametrize("alone", ["q_bias", "v_bias"])
def test_a_bias_of_query_or_value_alone_is_refused(alone):
    message = rf"blocks.2.attn must have either qkv.bias or both .* got .*{alone}; "
    with pytest.raises(ValueError, match=message):
        to_native({f"backbone.blocks.2.attn.{alone}": torch.ones(2)})


def test_three_biases_of_one_attention_are_refused():
    names = [f"backbone.blocks.2.attn.{part}" for part in ("q_bias", "v_bias", "qkv.bias")]
    with pytest.raises(ValueError, match="got .*q_bias, .*v_bias, .*qkv.bias; the file is damaged"):
        to_native({name: torch.ones(2) for name in names})


def test_a_key_bias_in_a_global_block_of_vitae_b_has_no_way_back():
    ours = to_native(small("vitae_base"))
    name = "backbone.net.blocks.5.attn.qkv.bias"
    ours[name] = ours[name] + torch.tensor([0, 0, 0, 0, 0, 0] + [0, 0.25, 0, 0, 0, 0] + [0] * 6)
    with pytest.raises(ValueError, match=r"blocks.5.attn.qkv.bias must be 0 for the keys.* 0.25;"):
        from_native(ours)
    window = "backbone.net.blocks.4.attn.qkv.bias"
    ours[name], ours[window] = ours[name] * 0, ours[window] + 1  # there it has a place
    assert from_native(ours)["backbone.blocks.4.attn.qkv.bias"] is ours[window]


@pytest.mark.parametrize(
    "name",
    [
        "backbone.blocks.0.attn.relative_position_bias_table",
        "backbone.blocks.0.PCM.2.weight",
        "backbone.blocks.0.PCM.0.running_mean",
        "backbone.layers.1.NC.0.norm1.weight",
        "backbone.layers.3.RC.PRM.convs.0.0.weight",
        "backbone.cls_token",
        "backbone.norm.running_mean",
        "neck.lateral_convs.4.conv.weight",
        "rpn_head.rpn_conv.conv.weight",
        "roi_head.bbox_head.shared_convs.4.conv.weight",
        "roi_head.mask_head.convs.0.conv.bias.extra",
        "ema_backbone_norm_weight",
    ],
)
def test_a_name_without_a_row_is_refused(name):
    theirs = small("vit_base") | {name: torch.ones(1)}
    message = rf"1 have none: {name.replace('.', '[.]')}; rename them first"
    with pytest.raises(ValueError, match=message):
        to_native(theirs)


def test_many_names_without_a_row_are_counted_and_the_first_are_listed():
    with pytest.raises(ValueError, match=r"249 have none: .*, \.\.\.; rename"):
        to_native(to_native(small("vit_base")))


@pytest.mark.parametrize("model", MODELS)
def test_a_detector_of_the_release_is_recognised_and_one_of_ours_is_not(model):
    theirs = small(model)
    assert is_vitdet_mmdet(theirs)
    assert not is_vitdet_mmdet(to_native(theirs))
