"""Position tables of plain ViTs: how they are made, and the one place where they are resized."""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
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


def resized_tokens(pos_embed: Tensor, new_size: tuple[int, int]) -> Tensor:
    """The tokens' part of a table with a class slot, at another grid.

    Args:
        pos_embed: (1, 1 + h * w, D).
        new_size: (H, W) of the wanted grid.

    Returns:
        (1, H * W, D).
    """
    return interpolate_pos_embed(pos_embed, new_size)[:, 1:]


class PosEmbedCache:
    """Keeps the latest resized copies of one position table.

    Images of a data set share few grid sizes, so resizing a table that does not change for every
    batch would be waste. An entry is valid for one content of the table (loading a checkpoint
    changes the tensor's version), grid, device and dtype. A table that is being trained, that is
    one that takes a gradient, is never cached. Copies of a cache, made with their model, start
    empty.

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
        # The original is kept beside its resized copy: while it lives, no other table can have its
        # address, by which it is told apart.
        self._tables: OrderedDict[tuple, tuple[Tensor, Tensor]] = OrderedDict()

    def __reduce__(self):
        return PosEmbedCache, (self.resize, self.max_entries)

    def get(self, pos_embed: Tensor, new_size: Hashable) -> Tensor:
        """`pos_embed` at `new_size`: by default its tokens' part (1, H * W, D) at (H, W)."""
        if pos_embed.requires_grad and torch.is_grad_enabled():
            self._tables.clear()  # the table is about to change: fused optimisers do not say so
            return self.resize(pos_embed, new_size)
        key = (
            new_size,
            pos_embed.device,
            pos_embed.dtype,
            pos_embed.data_ptr(),
            pos_embed._version,
        )
        if key not in self._tables:
            # A copy made in inference mode could not take part in training later.
            with torch.inference_mode(False), torch.no_grad():
                resized = self.resize(pos_embed, new_size)
            self._tables[key] = resized, pos_embed.detach()
            if len(self._tables) > self.max_entries:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key][0]


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


def interpolate_rel_pos_table(
    table: Tensor, new_window_size: int, mode: str = "geometric"
) -> Tensor:
    """Resize Swin's table of relative positions to another window.

    Args:
        table: (n * n, N), n = 2 * window_size - 1 offsets per axis, N heads.
        new_window_size: side of the wanted window.
        mode: ``"bicubic"``, as an image; or ``"geometric"``: the given offsets are taken to lie at
            0, +-1, +-(1 + q), +-(1 + q + q^2), ... with the q that lets them cover the new
            offsets, so that near ones keep their values, and a cubic spline goes through them.

    Returns:
        ((2 * new_window_size - 1) ** 2, N); the input itself when its size is the wanted one.

    Raises:
        ValueError: if the table is not that of a square window, or `mode` is another word.

    Reference:
        Bao et al. 2021 (BEiT), arXiv 2106.08254, whose code introduced the geometric grid; Liu et
        al. 2021 (Swin), arXiv 2103.14030, section 3.2 for the table.
    """
    size, new_size = math.isqrt(table.shape[0]), 2 * new_window_size - 1
    if size * size != table.shape[0] or size % 2 == 0:
        raise ValueError(
            f"a table of relative positions has (2 w - 1)^2 rows for a window of w x w tokens, "
            f"got {table.shape[0]} rows"
        )
    if mode not in ("bicubic", "geometric"):
        raise ValueError(f"mode must be 'bicubic' or 'geometric', got {mode!r}")
    if size == new_size:
        return table
    grid = table.transpose(0, 1).unflatten(1, (size, size))  # (N, n, n)
    if mode == "bicubic":
        resized = interpolate_rel_pos_bias(grid, (new_size, new_size))
    else:
        offsets = np.arange(new_size) - new_size // 2
        w = torch.as_tensor(_spline_weights(_geometric_offsets(size, new_size), offsets))
        resized = (w @ grid.double() @ w.transpose(0, 1)).to(table.dtype)
    return resized.flatten(1).transpose(0, 1)


def _geometric_offsets(size: int, new_size: int) -> np.ndarray:
    """Where `size` offsets lie so that they cover the `new_size` integers around 0."""
    low, high, half = 0.5, 2.0, size // 2  # 2 also bounds the reach of very small tables
    while high - low > 1e-6:
        q = (low + high) / 2
        if sum(q**k for k in range(half)) > new_size // 2:
            high = q
        else:
            low = q
    right = np.cumsum(q ** np.arange(half))
    return np.concatenate([-right[::-1], [0.0], right])


def _spline_weights(x: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Weights (len(at), len(x)) by which values at `x` give a spline's values at `at`.

    The spline is cubic and goes through all points, without a knot at the second and the last but
    one; three points are joined by lines. Outside of `x` it keeps its value at the border.
    """
    degree = 3 if len(x) > 3 else len(x) // 2
    inner = x[2:-2] if degree == 3 else x[1:-1]
    knots = np.concatenate([[x[0]] * (degree + 1), inner, [x[-1]] * (degree + 1)])
    at = at.clip(x[0], x[-1])
    return np.linalg.solve(_b_splines(knots, degree, x).T, _b_splines(knots, degree, at).T).T


def _b_splines(knots: np.ndarray, degree: int, at: np.ndarray) -> np.ndarray:
    """All B-splines of `degree` on `knots` at the points `at`: (len(at), number of splines)."""
    interval = np.searchsorted(knots, at, side="right").clip(None, len(knots) - degree - 1) - 1
    basis = np.eye(len(knots) - 1)[interval]
    for d in range(1, degree + 1):  # de Boor's recursion; 0 / 0 counts as 0
        span = knots[d:] - knots[:-d]
        rise = (at[:, None] - knots[:-d]) / np.where(span > 0, span, np.inf)
        fall = 1 - rise
        basis = rise[:, :-1] * basis[:, :-1] + fall[:, 1:] * basis[:, 1:]
    return basis
