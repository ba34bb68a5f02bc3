"""Windows of a token map."""

import pytest
import torch

from mimdet.layers.window import window_partition, window_unpartition


def test_windows_are_row_major_and_padded_at_the_bottom_right():
    x = torch.arange(1.0, 7.0).view(1, 2, 3, 1)  # rows 1 2 3 and 4 5 6
    windows, padded = window_partition(x, 2)
    assert padded == (2, 4)
    assert windows[..., 0].tolist() == [[[1, 2], [4, 5]], [[3, 0], [6, 0]]]


@pytest.mark.parametrize("hw", [(4, 6), (5, 7), (1, 1), (2, 9)])
@pytest.mark.parametrize("window_size", [1, 2, 3])
def test_unpartition_is_the_inverse_of_partition(hw, window_size):
    x = torch.randn(2, *hw, 3)
    windows, padded = window_partition(x, window_size)
    assert windows.shape[1:] == (window_size, window_size, 3)
    assert all(side % window_size == 0 for side in padded)
    assert torch.equal(window_unpartition(windows, padded, hw), x)


def test_padding_by_a_token_leaves_the_map_and_passes_gradients_to_both():
    x = torch.arange(1.0, 7.0).view(1, 2, 3, 1).requires_grad_()
    token = torch.tensor([-1.0], requires_grad=True)
    windows, _ = window_partition(x, 2, padding=token)
    assert windows[..., 0].tolist() == [[[1, 2], [4, 5]], [[3, -1], [6, -1]]]
    windows.sum().backward()
    assert x.grad.unique().tolist() == [1] and token.grad.tolist() == [2]
