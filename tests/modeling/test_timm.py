"""timm's models as backbones, and Swin at any size against attention within written-out windows."""

import pytest
import torch
import torch.nn.functional as F
from golden_models import fill
from timm import create_model
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from mimdet.modeling.backbone.timm import PaddedSwin, TimmBackbone, _PaddedBlock

TINY = dict(
    embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=4, drop_path_rate=0.0
)


def tiny_swin(**changes) -> PaddedSwin:
    return fill(PaddedSwin(**(TINY | changes))).eval()


# --- Any model of timm ----------------------------------------------------------------------------


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
        r"SwinTransformer gives the maps \['c2', 'c3', 'c4', 'c5'\], got out_features \['c6'\]"
    )
    with pytest.raises(ValueError, match=message):
        TimmBackbone(SwinTransformer(**TINY), ("c5", "c6"))


def test_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm must be '', 'final' or 'fresh', got 'LN'"):
        TimmBackbone(SwinTransformer(**TINY), norm="LN")


def test_a_model_without_intermediate_maps_is_refused():
    with pytest.raises(ValueError, match="timm's Linear cannot give intermediate maps"):
        TimmBackbone(nn.Linear(1, 1))


# --- Swin of any size -----------------------------------------------------------------------------


def test_maps_of_whole_windows_are_timms():
    padded = tiny_swin()
    plain = SwinTransformer(img_size=256, **TINY).eval()
    plain.load_state_dict(padded.state_dict())
    images = torch.randn(1, 3, 256, 256)
    torch.testing.assert_close(padded(images), plain(images))


def attention_by_hand(block: _PaddedBlock, x: torch.Tensor) -> torch.Tensor:
    """What every cell of a map (H, W, C) gets, from the definition: one query at a time."""
    attn, w, shift = block.attn, block.window_size, block.shift_size
    H, W, C = x.shape
    heads, dim = attn.num_heads, C // attn.num_heads
    padded = F.pad(x, (0, 0, 0, -W % w, 0, -H % w))
    q, k, v = attn.qkv(padded).unflatten(2, (3, heads, dim)).permute(2, 0, 1, 3, 4)
    height, width = padded.shape[:2]

    def place(y: int, size: int) -> tuple[int, int]:
        """Window and place in it of a row or column; those that wrap around form windows."""
        moved = y - shift
        return (moved // w if moved >= 0 else -1), moved % w

    out = torch.zeros(H, W, C)
    for row in range(H):
        for column in range(W):
            (window_y, y), (window_x, x_) = place(row, height), place(column, width)
            logits, values = [], []
            for other_row in range(height):
                for other_column in range(width):
                    (oy, ky), (ox, kx) = place(other_row, height), place(other_column, width)
                    if (oy, ox) != (window_y, window_x):
                        continue
                    bias = attn.relative_position_bias_table[
                        (y - ky + w - 1) * (2 * w - 1) + x_ - kx + w - 1
                    ]
                    logit = (q[row, column] * k[other_row, other_column]).sum(-1) * dim**-0.5
                    logits.append(logit + bias)
                    values.append(v[other_row, other_column])
            weights = torch.stack(logits).softmax(dim=0)[..., None]  # (keys, heads, 1)
            out[row, column] = (weights * torch.stack(values)).sum(dim=0).flatten()
    return attn.proj(out)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("hw", [(4, 4), (7, 5), (3, 9), (1, 1)])
@torch.no_grad()
def test_a_block_attends_within_padded_and_shifted_windows(index, hw):
    block = tiny_swin().layers[1].blocks[index]
    x = torch.randn(*hw, 16)
    assert block.shift_size == 2 * index
    torch.testing.assert_close(
        block._attend(x[None])[0], attention_by_hand(block, x), atol=1e-5, rtol=1e-4
    )


def test_images_of_any_size_are_taken_and_batches_do_not_mix():
    backbone = TimmBackbone(tiny_swin())
    images = torch.randn(2, 3, 97, 131)
    maps = backbone(images)
    assert [tuple(x.shape[-2:]) for x in maps.values()] == [(25, 33), (13, 17), (7, 9), (4, 5)]
    alone = backbone(images[1:])
    for name, x in maps.items():
        torch.testing.assert_close(x[1:], alone[name], atol=1e-5, rtol=1e-4)


def test_every_second_block_is_shifted_even_where_the_map_is_one_window():
    shifts = [[b.shift_size for b in stage.blocks] for stage in tiny_swin(img_size=64).layers]
    assert shifts == [[0, 2]] * 4
