"""The backbone of semantic segmentation: its invariants, and what it refuses."""

import pytest
import torch
from segmentation_models import fill

from mimdet.layers.block import Block, mae_layer_norm
from mimdet.modeling.backbone.beit import BEiTViT


def tiny(**changes) -> BEiTViT:
    """A filled backbone of four blocks and 32 channels for images of 64 pixels."""
    sizes = dict(img_size=64, embed_dim=32, depth=4, num_heads=4, out_indices=(0, 1, 2, 3))
    return fill(BEiTViT(**sizes | {"norm": "BN"} | changes)).eval()


def images(height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_with_fresh_tables_and_layer_scale_it_computes_what_a_plain_vit_does():
    backbone = tiny()
    for name, p in backbone.named_parameters():
        if "table" in name:
            p.zero_()
        elif "gamma" in name:
            p.fill_(1)
    x = backbone.patch_embed(images())
    x = torch.cat([backbone.cls_token.expand(2, -1, -1), x], dim=1) + backbone.pos_embed
    for block in backbone.blocks:
        plain = Block(32, 4, norm_layer=mae_layer_norm)
        plain.load_state_dict(block.state_dict(), strict=False)
        x = plain.eval()(x)
    expected = x[:, 1:].transpose(1, 2).unflatten(2, (4, 4))  # (2, 32, 4, 4)
    pooled = torch.nn.functional.max_pool2d(expected, 2)
    torch.testing.assert_close(backbone(images())["s3"], pooled, atol=1e-5, rtol=1e-5)


def test_checkpointing_changes_no_output_and_no_gradient():
    results = []
    for checkpointing in (False, True):
        backbone = tiny(checkpointing=checkpointing).train()
        features = backbone(images())
        sum(x.sum() for x in features.values()).backward()
        results.append((features, {n: p.grad for n, p in backbone.named_parameters()}))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_a_changed_table_is_resized_anew():
    backbone = tiny()
    before = backbone(images(96, 64))["s2"]
    with torch.no_grad():
        backbone.blocks[0].attn.relative_position_bias_table.add_(
            torch.randn(52, 4, generator=torch.Generator().manual_seed(1))
        )
    assert not torch.equal(backbone(images(96, 64))["s2"], before)


def test_maps_have_the_shapes_that_are_announced():
    backbone = tiny()
    for name, shape in backbone.output_shape().items():
        height, width = 96 // shape.stride, 64 // shape.stride
        assert backbone(images(96, 64))[name].shape == (2, shape.channels, height, width)


def test_images_are_padded_to_the_square_of_the_tables_in_training_only():
    backbone = tiny()
    assert (backbone.padding_constraints, backbone.size_divisibility) == ({}, 16)
    assert backbone.train().padding_constraints == {"square_size": 64}
    assert tiny(img_size=(64, 96)).train().padding_constraints == {}


def test_initial_weights():
    torch.manual_seed(0)
    backbone = BEiTViT(img_size=64, embed_dim=64, depth=4, num_heads=4, out_indices=(0, 1, 2, 3))
    for block in backbone.blocks:  # not smaller in deep blocks
        assert block.attn.proj.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert (block.attn.relative_position_bias_table == 0).all()
        assert (block.gamma_1 == 1).all() and (block.gamma_2 == 1).all()
    assert backbone.pos_embed.std().item() == pytest.approx(0.02, rel=0.2)
    assert backbone.cls_token.std() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out_indices": (0, 1, 2)}, r"4 ascending indices of the 4 blocks.*got \[0, 1, 2\]"),
        ({"out_indices": (0, 1, 2, 4)}, "ascending indices"),
        ({"out_indices": (0, 2, 1, 3)}, "ascending indices"),
        ({"img_size": 60}, r"img_size must be a multiple of patch_size, got \(60, 60\) and 16"),
        ({"patch_size": 6, "img_size": 60}, "patch_size must be a multiple of 4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


@pytest.mark.parametrize("size", [(60, 64), (16, 64)])
def test_images_of_another_size_than_whole_tokens_are_refused(size):
    with pytest.raises(ValueError, match=r"multiples of 16 and at least 32 pixels, got \("):
        tiny()(images(*size))
