"""timm's models as backbones."""

import pytest
import torch
from golden_models import fill
from timm import create_model
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from mimdet.modeling.backbone.swin import PaddedSwin
from mimdet.modeling.backbone.timm_backbone import TimmBackbone

TINY = dict(
    embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=4, drop_path_rate=0.0
)


def tiny_swin(**changes) -> PaddedSwin:
    return fill(PaddedSwin(**(TINY | changes))).eval()


@pytest.mark.parametrize(
    "name, out_features",
    [
        ("resnet18", ("c2", "c3", "c4", "c5")),
        ("convnext_atto", ("c3", "c5")),
        ("pvt_v2_b0", ("c2", "c5")),
        ("test_vit", ("c4",)),
    ],
)
def test_maps_have_the_strides_and_channels_that_are_declared(name, out_features):
    arguments = {"dynamic_img_size": True} if name == "test_vit" else {}
    backbone = TimmBackbone(create_model(name, **arguments), out_features).eval()
    maps = backbone(torch.zeros(1, 3, 64, 96))
    assert list(maps) == list(out_features)
    for feature, spec in backbone.output_shape().items():
        assert spec.stride == 2 ** int(feature[1])
        assert maps[feature].shape == (1, spec.channels, 64 // spec.stride, 96 // spec.stride)


def test_maps_come_in_the_order_of_the_model_whatever_is_asked_first():
    images = torch.randn(1, 3, 64, 64)
    maps = TimmBackbone(tiny_swin(), ("c4", "c2"))(images)
    expected = TimmBackbone(tiny_swin(), ("c2", "c4"))(images)
    assert list(maps) == ["c2", "c4"]
    assert all(torch.equal(maps[name], expected[name]) for name in maps)


def test_every_parameter_that_is_left_takes_part():
    for norm in ("", "final", "fresh"):
        backbone = TimmBackbone(PaddedSwin(**TINY), norm=norm)
        sum(x.square().sum() for x in backbone(torch.randn(1, 3, 64, 64)).values()).backward()
        unused = [name for name, p in backbone.named_parameters() if p.grad is None]
        assert unused == []
        assert any(name == "model.norm.weight" for name, _ in backbone.named_parameters()) == (
            norm == "final"
        )


def test_fresh_norms_normalise_the_channels_of_every_map():
    maps = TimmBackbone(tiny_swin(), ("c2", "c4"), norm="fresh")(torch.randn(1, 3, 64, 64))
    for x in maps.values():
        torch.testing.assert_close(x.mean(dim=1), torch.zeros_like(x[:, 0]), atol=1e-5, rtol=0)


def test_final_norm_is_the_models_own():
    model = tiny_swin()
    images = torch.randn(1, 3, 64, 64)
    expected = model.forward_features(images).permute(0, 3, 1, 2)
    backbone = TimmBackbone(model, ("c5",), norm="final")
    torch.testing.assert_close(backbone(images)["c5"], expected)


def test_checkpointing_gives_the_same_gradients():
    images, gradients = torch.randn(1, 3, 64, 64), []
    for checkpointing in (False, True):
        backbone = TimmBackbone(tiny_swin(), checkpointing=checkpointing).train()
        sum(x.square().mean() for x in backbone(images).values()).backward()
        gradients.append([p.grad for p in backbone.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain)


def test_unknown_output_is_refused():
    message = (
        r"a map cN has the stride 2\^N: SwinTransformer, whose strides are \[4, 8, 16, 32\], gives "
        r"the maps \['c2', 'c3', 'c4', 'c5'\], got out_features \['c6'\]"
    )
    with pytest.raises(ValueError, match=message):
        TimmBackbone(SwinTransformer(**TINY), ("c5", "c6"))


@pytest.mark.parametrize("name", ["c3", "c4"])
def test_a_stride_between_powers_of_two_is_no_map(name):
    model = create_model("test_vit", patch_size=14, img_size=56)
    message = rf"whose strides are \[14\], gives the maps \[\], got out_features \['{name}'\]"
    with pytest.raises(ValueError, match=message):
        TimmBackbone(model, (name,))


def test_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm must be '', 'final' or 'fresh', got 'LN'"):
        TimmBackbone(SwinTransformer(**TINY), norm="LN")


def test_the_final_norm_needs_the_last_map():
    message = r"norm 'final' is that of the last map .*, of stride 32, got .*\['c3', 'c4'\] without"
    with pytest.raises(ValueError, match=message):
        TimmBackbone(SwinTransformer(**TINY), ("c3", "c4"), norm="final")


def test_a_model_without_intermediate_maps_is_refused():
    with pytest.raises(ValueError, match="timm's Linear cannot give intermediate maps"):
        TimmBackbone(nn.Linear(1, 1))
