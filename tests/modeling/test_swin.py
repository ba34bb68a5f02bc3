"""Swin at any size against attention within written-out windows."""

import pytest
import torch
import torch.nn.functional as F
from golden_models import fill
from timm.models.swin_transformer import SwinTransformer

from mimdet.modeling.backbone.swin import PaddedSwin, _PaddedBlock
from mimdet.modeling.backbone.timm_backbone import TimmBackbone

TINY = dict(
    embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=4, drop_path_rate=0.0
)


def tiny_swin(**changes) -> PaddedSwin:
    return fill(PaddedSwin(**(TINY | changes))).eval()


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
