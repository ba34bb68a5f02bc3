"""Swin's tables of relative positions for other windows than they were trained with."""

import math

import numpy as np
import torch
from torch import Tensor

from mimdet.layers.pos_embed import interpolate_rel_pos_bias


def interpolate_rel_pos_table(
    table: Tensor,
    new_window_size: int,
    mode: str = "geometric",
    ratios: tuple[float, float] = (0.5, 2.0),
) -> Tensor:
    """Resize Swin's table of relative positions to another window.

    Args:
        table: (n * n, N), n = 2 * window_size - 1 offsets per axis, N heads.
        new_window_size: side of the wanted window.
        mode: ``"bicubic"``, as an image; or ``"geometric"``: the given offsets are taken to lie at
            0, +-1, +-(1 + q), +-(1 + q + q^2), ... with the q that lets them cover the new
            offsets, so that near ones keep their values, and a cubic spline goes through them.
        ratios: between which q is sought; by default as for Swin.

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
        w = torch.as_tensor(_spline_weights(_geometric_offsets(size, new_size, ratios), offsets))
        resized = (w @ grid.double() @ w.transpose(0, 1)).to(table.dtype)
    return resized.flatten(1).transpose(0, 1)


def _geometric_offsets(size: int, new_size: int, ratios: tuple[float, float]) -> np.ndarray:
    """Where `size` offsets lie so that they cover the `new_size` integers around 0."""
    (low, high), half = ratios, size // 2  # they also bound the reach of very small tables
    # The sum of the powers grows with q, so halving finds it.
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
    # The right end belongs to the last interval; without the clip it would lie behind all of them.
    interval = np.searchsorted(knots, at, side="right").clip(None, len(knots) - degree - 1) - 1
    basis = np.eye(len(knots) - 1)[interval]
    for d in range(1, degree + 1):  # de Boor's recursion; 0 / 0 counts as 0
        span = knots[d:] - knots[:-d]
        rise = (at[:, None] - knots[:-d]) / np.where(span > 0, span, np.inf)
        # Of an empty span it is 1 instead of 0, and meets a basis function that is 0 there.
        fall = 1 - rise
        basis = rise[:, :-1] * basis[:, :-1] + fall[:, 1:] * basis[:, 1:]
    return basis
