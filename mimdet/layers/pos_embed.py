"""Position tables of plain ViTs: how they are made, and the one place where they are resized."""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import ClassVar

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
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
    # In float64 and rounded once, at the end, as the tables of released files are.
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
    """Resize a position table to another token grid: bicubic, no antialiasing, in float32.

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
    # timm antialiases by default; MAE and all models that start from it do not.
    return resample_abs_pos_embed(
        pos_embed, list(new_size), list(orig_size), num_extra_tokens, antialias=False
    )


def resized_tokens(pos_embed: Tensor, new_size: tuple[int, int]) -> Tensor:
    """The tokens' part of a table with a class slot, at another grid.

    Args:
        pos_embed: (1, 1 + h * w, D).
        new_size: (H, W) of the wanted grid.

    Returns:
        (1, H * W, D).
    """
    return interpolate_pos_embed(pos_embed, new_size)[:, 1:]


class TablesOfAnyGrid:
    """Declares which tables a module's `forward` brings to the grid of its input.

    A base class of such modules. Only theirs can be replaced by a checkpoint's table of another
    grid; in other modules that would be found out in the first forward pass.

    Attributes:
        tables_of_any_grid: names of the module's own parameters, (1, 1 + h * w, D) and frozen.
    """

    tables_of_any_grid: ClassVar[tuple[str, ...]] = ()


class TablesOfOneGrid:
    """Declares which tables of a module describe the grid that the module was built for.

    A base class of such modules. A checkpoint's table of another grid is resized as it is loaded.

    Attributes:
        tables_of_one_grid: names of the module's own parameters, whose last components are
            ``pos_embed`` or ``relative_position_bias_table``.
        grid_size: (h, w) in tokens.
    """

    tables_of_one_grid: ClassVar[tuple[str, ...]] = ()
    grid_size: tuple[int, int]


class PosEmbedCache:
    """Keeps the latest resized copies of one position table.

    Images of a data set share few grid sizes, so resizing a table that does not change for every
    batch would be waste. An entry is valid for one content of the table (loading a checkpoint
    changes the tensor's version), grid, device and dtype. A table that is being trained, that is
    one that takes a gradient, is never cached. Copies of a cache, made with their model, start
    empty. A compiled network resizes in its graph: what a cache holds would be no part of that.

    Args:
        resize: called with the table and the size; makes the copy.
        max_entries: copies kept, the latest used.
    """

    def __init__(
        self,
        resize: Callable[[Tensor, Hashable], Tensor] = resized_tokens,
        max_entries: int = 32,  # a 50x84 table of 768 channels takes 13 MB
    ):
        self.resize = resize
        self.max_entries = max_entries
        # Resized copy, the original, and its version. The original is kept because another table
        # may get the memory, and the id, of one that is freed.
        self._tables: OrderedDict[tuple, tuple[Tensor, Tensor, int]] = OrderedDict()

    def __reduce__(self):
        return PosEmbedCache, (self.resize, self.max_entries)

    def get(self, pos_embed: Tensor, new_size: Hashable) -> Tensor:
        """`pos_embed` at `new_size`: by default its tokens' part (1, H * W, D) at (H, W)."""
        if torch.compiler.is_compiling():
            return self.resize(pos_embed, new_size)
        if pos_embed.requires_grad and torch.is_grad_enabled():
            self._tables.clear()  # the table is about to change: fused optimisers do not say so
            return self.resize(pos_embed, new_size)
        key = (id(pos_embed), new_size, pos_embed.device, pos_embed.dtype)
        if not self._is_valid(key, pos_embed):
            # A copy made in inference mode could not take part in training later.
            with torch.inference_mode(False), torch.no_grad():
                resized = self.resize(pos_embed, new_size)
            self._tables[key] = resized, pos_embed.detach(), pos_embed._version
            if len(self._tables) > self.max_entries:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key][0]

    def _is_valid(self, key: tuple, pos_embed: Tensor) -> bool:
        """Whether the entry of `key` was made from this table as it is now."""
        if key not in self._tables:
            return False
        _, original, version = self._tables[key]
        # `module.to` puts other memory under a parameter and changes neither id nor version.
        return version == pos_embed._version and original.is_set_to(pos_embed)


def interpolate_rel_pos_bias(bias: Tensor, new_size: tuple[int, int]) -> Tensor:
    """Resize a table of one number per head, query and key, bicubically as an image.

    Args:
        bias: (N, L, M) for N heads, L queries and M keys.
        new_size: (L', M').

    Returns:
        (N, L', M'); the input itself when the size is already the wanted one.
    """
    if tuple(new_size) == tuple(bias.shape[1:]):
        return bias
    return F.interpolate(bias[None], size=tuple(new_size), mode="bicubic", align_corners=False)[0]
