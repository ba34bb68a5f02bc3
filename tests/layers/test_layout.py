"""The way from maps to tokens and back."""

import torch

from mimdet.layers.layout import (
    map_to_tokens,
    over_channels,
    split_heads,
    token_index,
    tokens_to_map,
)


def test_tokens_are_the_cells_of_a_map_row_by_row():
    x = torch.arange(12).view(1, 2, 2, 3)  # two channels
    assert map_to_tokens(x)[0].tolist() == [[0, 6], [1, 7], [2, 8], [3, 9], [4, 10], [5, 11]]


def test_a_map_of_tokens_is_the_map_they_came_from_without_a_copy():
    x = torch.randn(2, 3, 4, 5)
    back = tokens_to_map(map_to_tokens(x), (4, 5))
    assert torch.equal(back, x) and back.data_ptr() == x.data_ptr()


def test_tokens_of_a_channels_last_map_are_contiguous_and_the_reverse():
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert map_to_tokens(x).is_contiguous()
    x = tokens_to_map(torch.randn(2, 20, 3), (4, 5))
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_a_layer_over_channels_sees_the_channels_of_one_cell():
    x = torch.arange(12.0).view(1, 2, 2, 3)
    sums = over_channels(lambda cells: cells.sum(dim=-1, keepdim=True), x)
    assert sums.tolist() == [[[[6, 8, 10], [12, 14, 16]]]]


def test_heads_have_neighbouring_channels():
    tokens = torch.tensor([[[1, 2, 3, 4], [5, 6, 7, 8]]])
    assert split_heads(tokens, 2).tolist() == [[[[1, 2], [5, 6]], [[3, 4], [7, 8]]]]


def test_a_token_index_gathers_whole_tokens():
    tokens, ids = torch.tensor([[[1, 2], [3, 4], [5, 6]]]), torch.tensor([[2, 0]])
    assert tokens.gather(1, token_index(ids, 2)).tolist() == [[[5, 6], [1, 2]]]
