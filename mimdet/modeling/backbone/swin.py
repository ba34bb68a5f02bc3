"""Swin for images of any size, on the parts of timm's."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import Tensor, nn

from mimdet.layers.window import window_partition, window_unpartition


class PaddedSwin(SwinTransformer):
    """timm's Swin for images of any size, as Swin's detectors run it.

    timm shifts a map and then pads it to whole windows, so that on maps that need padding its
    mask lets opposite edges see each other; it also stops shifting where a map of `img_size` is
    one window. Here every map is padded, then shifted, in every second block. Padding takes part
    in attention, as zeros before the projection. On maps of whole windows, more than one per axis,
    nothing differs from timm.

    Args:
        **kwargs: those of timm's SwinTransformer, lists as well as tuples.

    Reference:
        Liu et al. 2021, arXiv 2103.14030, sections 3.2 and 4.2. Parameter names are timm's.
    """

    def __init__(self, **kwargs):
        super().__init__(
            strict_img_size=False,
            # else timm would not shift where a map of `img_size` is one window
            always_partition=True,
            embed_layer=partial(PatchEmbed, dynamic_img_pad=True),
            # timm wants tuples; a list of a config is of a class of its own
            **{k: tuple(v) if isinstance(v, Sequence) else v for k, v in kwargs.items()},
        )
        for stage in self.layers:
            stage.blocks = nn.Sequential(*(_PaddedBlock(block) for block in stage.blocks))


class _PaddedBlock(nn.Module):
    """The parts of timm's Swin block, with the map padded before it is shifted."""

    def __init__(self, block: SwinTransformerBlock):
        super().__init__()
        self.window_size, self.shift_size = block.window_size[0], block.shift_size[0]
        for name, part in block.named_children():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = x + self.drop_path1(self._attend(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        (H, W), w, shift = x.shape[1:3], self.window_size, self.shift_size
        x = F.pad(x, (0, 0, 0, -W % w, 0, -H % w))
        mask = None
        if shift:
            x = x.roll((-shift, -shift), dims=(1, 2))
            mask = _shift_mask(x.shape[1], x.shape[2], w, shift, x)
        windows, padded_hw = window_partition(x, w)
        attended = self.attn(windows.flatten(1, 2), mask=mask).view(windows.shape)
        # Cropped at the end: a map that is not rolled back has its padding inside.
        x = window_unpartition(attended, padded_hw, padded_hw)
        if shift:
            x = x.roll((shift, shift), dims=(1, 2))
        return x[:, :H, :W]


def _shift_mask(height: int, width: int, window_size: int, shift: int, like: Tensor) -> Tensor:
    """What tokens of a shifted map add to their logits: (windows, w * w, w * w), 0 or -100.

    A window at the end of an axis holds tokens of both ends; they must not see each other.
    """

    def wrapped(size: int) -> Tensor:
        return torch.arange(size, device=like.device) >= size - shift

    side = 2 * wrapped(height)[:, None] + wrapped(width)  # (H, W): which of four corners
    windows, _ = window_partition(side[None, :, :, None], window_size)
    side = windows.flatten(1)
    # -100 and not -inf, as timm has it: on maps of whole windows nothing may differ.
    return (side[:, :, None] != side[:, None, :]).to(like.dtype) * -100.0
