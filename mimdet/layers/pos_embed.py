"""Position tables of plain ViTs: how they are made, and the one place where they are resized."""

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor


def get_2d_sincos_pos_embed(
    embed_dim: int, grid_size: int | tuple[int, int], cls_token: bool = False
) -> Tensor:
    """Build the fixed sine-cosine position table of MAE.

    The first half of the channels encodes the column of a token, the second half its row; each
    half holds all sines, then all cosines, of ``position / 10000^(k / (embed_dim / 4))``.

    Args:
        embed_dim: channels D; a multiple of 4.
        grid_size: (height, width) of the token grid, or one number for a square grid.
        cls_token: put a row of zeros for a class token in front.

    Returns:
        (height * width, D) float32, row-major tokens; one row more with ``cls_token``.

    Raises:
        ValueError: if `embed_dim` is not a multiple of 4.

    Reference:
        Vaswani et al. 2017, arXiv 1706.03762, section 3.5, in the 2-D form of He et al. 2021
        (MAE), arXiv 2111.06377, appendix A.1.
    """
    if embed_dim % 4:
        raise ValueError(f"embed_dim must be a multiple of 4 for a 2-D table, got {embed_dim}")
    height, width = (grid_size, grid_size) if isinstance(grid_size, int) else grid_size
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float64),
        torch.arange(width, dtype=torch.float64),
        indexing="ij",
    )
    table = torch.cat(
        [_sincos(columns.reshape(-1), embed_dim // 2), _sincos(rows.reshape(-1), embed_dim // 2)],
        dim=1,
    )
    if cls_token:
        table = torch.cat([table.new_zeros(1, embed_dim), table])
    return table.float()


def _sincos(position: Tensor, dim: int) -> Tensor:
    """(L,) positions -> (L, dim) codes, in the precision of `position`."""
    omega = 10000 ** (-torch.arange(dim // 2, dtype=position.dtype) / (dim / 2))
    angle = position[:, None] * omega[None, :]
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def interpolate_pos_embed(
    pos_embed: Tensor,
    new_size: tuple[int, int],
    *,
    num_extra_tokens: int = 1,
    orig_size: tuple[int, int] | None = None,
) -> Tensor:
    """Resize a position table to another token grid, bicubically and without antialiasing.

    Args:
        pos_embed: (1, E + h * w, D), extra slots (class token) first, then row-major tokens.
        new_size: (H, W) of the wanted grid.
        num_extra_tokens: E, the slots that are kept as they are.
        orig_size: (h, w) of the given table; by default it is taken to be square.

    Returns:
        (1, E + H * W, D); the input itself when the grid is already the wanted one.

    Raises:
        ValueError: if the table does not hold `orig_size` tokens, or is not square without it.
    """
    num_tokens = pos_embed.shape[1] - num_extra_tokens
    if orig_size is None:
        side = math.isqrt(max(num_tokens, 0))
        orig_size = (side, side)
    if orig_size[0] * orig_size[1] != num_tokens:
        raise ValueError(
            f"a position table of {pos_embed.shape[1]} slots, {num_extra_tokens} of them extra, "
            f"does not hold a grid of {orig_size[0]}x{orig_size[1]}; give its grid as orig_size"
        )
    if tuple(new_size) == tuple(orig_size):
        return pos_embed
    extra, grid = pos_embed[:, :num_extra_tokens], pos_embed[:, num_extra_tokens:]
    grid = grid.transpose(1, 2).unflatten(2, orig_size)  # (1, D, h, w)
    grid = F.interpolate(grid, size=tuple(new_size), mode="bicubic", align_corners=False)
    return torch.cat([extra, grid.flatten(2).transpose(1, 2)], dim=1)  # (1, E + H * W, D)


class PosEmbedCache:
    """Keeps the latest resized copies of one frozen position table.

    A table is frozen, and images of a data set share few grid sizes, so resizing it for every
    batch would be waste. An entry is valid for one content of the table (loading a checkpoint
    changes the tensor's version), grid, device and dtype. A table that is trained is never cached.
    Copies of a cache, made with their model, start empty.
    """

    def __init__(self, max_entries: int = 32):
        self.max_entries = max_entries  # a 50x84 table of 768 channels takes 13 MB
        # The original is kept beside its resized copy: while it lives, no other table can have its
        # address, by which it is told apart.
        self._tables: OrderedDict[tuple, tuple[Tensor, Tensor]] = OrderedDict()

    def __reduce__(self):
        return PosEmbedCache, (self.max_entries,)

    def get(self, pos_embed: Tensor, new_size: tuple[int, int]) -> Tensor:
        """The tokens' part of `pos_embed` (1, 1 + h * w, D) at `new_size`: (1, H * W, D)."""
        if pos_embed.requires_grad:
            return interpolate_pos_embed(pos_embed, new_size)[:, 1:]
        key = (
            tuple(new_size),
            pos_embed.device,
            pos_embed.dtype,
            pos_embed.data_ptr(),
            pos_embed._version,
        )
        if key not in self._tables:
            resized = interpolate_pos_embed(pos_embed, new_size)[:, 1:].detach()
            self._tables[key] = resized, pos_embed.detach()
            if len(self._tables) > self.max_entries:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key][0]
