"""Tables of relative positions, and what is looked up in them."""

import pytest
import torch
import torch.nn.functional as F

from mimdet.layers.rel_pos import look_up, relative_positions, relative_terms

B, N, D = 2, 3, 4


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_a_pair_finds_the_entry_of_its_difference():
    table = torch.arange(5.0)[:, None]  # differences -2 .. 2 of a grid of side 3
    expected = [[2, 1, 0], [3, 2, 1], [4, 3, 2]]  # row 2 for equal positions
    assert relative_positions(table, 3)[..., 0].tolist() == expected


@pytest.mark.parametrize("size", [2, 5])
def test_a_table_of_another_grid_is_resized_linearly(size):
    table = noise(5, D)
    resized = F.interpolate(table.T[None], size=2 * size - 1, mode="linear", align_corners=False)
    assert torch.equal(relative_positions(table, size)[:, 0], resized[0].T[size - 1 :])
    assert torch.equal(relative_positions(table, size)[0], resized[0].T[:size].flip(0))


def test_a_table_in_half_precision_is_resized_in_float32():
    table = noise(27, D).bfloat16()
    resized = relative_positions(table, 64)
    assert resized.dtype == torch.bfloat16
    assert torch.equal(resized, relative_positions(table.float(), 64).bfloat16())


def test_terms_are_products_with_the_vectors_of_row_and_column():
    q, rows, columns = noise(B, N, 3, 5, D), noise(3, 3, D), noise(5, 5, D)
    by_row, by_column = relative_terms(q, rows, columns)
    assert by_row.shape == (B, N, 15, 3) and by_column.shape == (B, N, 15, 5)
    query = q[1, 2, 2, 3]  # token 2 * 5 + 3
    torch.testing.assert_close(by_row[1, 2, 13], rows[2] @ query)
    torch.testing.assert_close(by_column[1, 2, 13], columns[3] @ query)


def test_terms_of_row_and_column_add_up_to_the_bias_of_a_key():
    terms = relative_terms(noise(B, N, 3, 5, D), noise(3, 3, D), noise(5, 5, D))
    bias = terms.at(slice(1, 2), 2, slice(4, 13))
    assert bias.shape == (1, 9, 15)
    expected = terms.by_row[1, 2, 9, 1] + terms.by_column[1, 2, 9, 3]
    assert bias[0, 5, 1 * 5 + 3] == expected


def test_a_joint_table_is_looked_up_for_every_head_query_and_key():
    table = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    bias = look_up(table, torch.tensor([[0, 2], [1, 1]]))
    assert bias.values.tolist() == [[[1, 3], [2, 2]], [[10, 30], [20, 20]]]
    assert bias.at(slice(5), 1, slice(0, 1)).tolist() == [[10, 30]]
