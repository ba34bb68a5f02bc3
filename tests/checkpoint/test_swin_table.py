"""Swin's tables for other windows: equal to stored ones, and by invariant."""

import numpy as np
import pytest
import torch
from golden_models import GOLDEN

from mimdet.checkpoint.convert.swin_table import interpolate_rel_pos_table

SWIN = dict(np.load(GOLDEN / "pretraining/swin_rel_pos_resize.npz"))
MODES = {"geometric": "simmim", "bicubic": "bicubic"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("old, new", [(4, 7), (7, 12), (2, 7)])
def test_relative_table_equals_the_stored_one(old, new, mode):
    table = torch.from_numpy(SWIN[f"w{old}_to_w{new}_src"])
    resized = interpolate_rel_pos_table(table, new, mode)
    expected = SWIN[f"w{old}_to_w{new}_{MODES[mode]}"]
    np.testing.assert_allclose(resized.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("old, new", [(1, 4), (2, 3), (3, 5), (7, 4)])
def test_geometric_grid_keeps_constants_and_the_middle(old, new):
    generator = torch.Generator().manual_seed(0)
    table = torch.randn((2 * old - 1) ** 2, 3, generator=generator)
    resized = interpolate_rel_pos_table(table, new)
    torch.testing.assert_close(resized[len(resized) // 2], table[len(table) // 2])
    constant = interpolate_rel_pos_table(torch.full_like(table, 2.5), new)
    torch.testing.assert_close(constant, torch.full_like(constant, 2.5))


def test_geometric_grid_goes_through_a_cubic_exactly():
    # q = 1.79 for 4 -> 7, so the offsets of the small window lie at 0, 1, 2.79 and 6.
    x = torch.tensor([-6.0, -2.7912877, -1, 0, 1, 2.7912877, 6], dtype=torch.float64)
    cubic = (x**3 - 2 * x**2)[:, None] * (1 + x)[None]
    new = torch.arange(-6, 7, dtype=torch.float64)
    expected = (new**3 - 2 * new**2)[:, None] * (1 + new)[None]
    resized = interpolate_rel_pos_table(cubic.reshape(-1, 1), 7).view(13, 13)
    torch.testing.assert_close(resized, expected, rtol=1e-4, atol=1e-3)  # q is found to 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_a_relative_table_of_the_right_size_stays_itself(mode):
    table = torch.randn(49, 2)
    assert interpolate_rel_pos_table(table, 4, mode) is table


@pytest.mark.parametrize("rows", [48, 36, 0])
def test_rows_that_are_of_no_window_are_refused(rows):
    with pytest.raises(ValueError, match=rf"\(2 w - 1\)\^2 rows for a window.*got {rows} rows"):
        interpolate_rel_pos_table(torch.zeros(rows, 2), 7)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode must be 'bicubic' or 'geometric', got 'simmim'"):
        interpolate_rel_pos_table(torch.zeros(49, 2), 7, "simmim")
