"""Attention with decomposed relative positions: both forms against the formula."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mimdet.layers import rel_pos
from mimdet.layers.rel_pos import (
    attend,
    attend_folded,
    attend_in_chunks,
    relative_positions,
    relative_terms,
)

B, N, D = 2, 3, 4
FORMS = pytest.mark.parametrize("form", [attend_folded, attend_in_chunks])


def inputs(H: int = 3, W: int = 5, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> list:
    """q, k, v and the vectors of rows and columns, which all take gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(B, N, H, W, D)] * 3 + [(H, H, D), (W, W, D)]
    made = [scale * torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    return [tensor.requires_grad_() for tensor in made]


def by_the_formula(q, k, v, rows, columns) -> torch.Tensor:
    """(B, N, L, D), pair by pair."""
    H, W = q.shape[2:4]
    logits = torch.zeros(B, N, H, W, H, W, dtype=q.dtype)
    for h in range(H):
        for w in range(W):
            for i in range(H):
                for j in range(W):
                    query = q[:, :, h, w]
                    product = (query * k[:, :, i, j]).sum(-1) / D**0.5
                    logits[:, :, h, w, i, j] = product + query @ rows[h, i] + query @ columns[w, j]
    return logits.reshape(B, N, H * W, H * W).softmax(dim=-1) @ v.flatten(2, 3)


def test_a_pair_finds_the_entry_of_its_difference():
    table = torch.arange(5.0)[:, None]  # differences -2 .. 2 of a grid of side 3
    expected = [[2, 1, 0], [3, 2, 1], [4, 3, 2]]  # row 2 for equal positions
    assert relative_positions(table, 3)[..., 0].tolist() == expected


@pytest.mark.parametrize("size", [2, 5])
def test_a_table_of_another_grid_is_resized_linearly(size):
    table = torch.randn(5, D, generator=torch.Generator().manual_seed(0))
    resized = F.interpolate(table.T[None], size=2 * size - 1, mode="linear", align_corners=False)
    assert torch.equal(relative_positions(table, size)[:, 0], resized[0].T[size - 1 :])
    assert torch.equal(relative_positions(table, size)[0], resized[0].T[:size].flip(0))


def test_a_table_in_half_precision_is_resized_in_float32():
    table = torch.randn(27, D, generator=torch.Generator().manual_seed(0)).bfloat16()
    resized = relative_positions(table, 64)
    assert resized.dtype == torch.bfloat16
    assert torch.equal(resized, relative_positions(table.float(), 64).bfloat16())


def test_terms_are_products_with_the_vectors_of_row_and_column():
    q, _, _, rows, columns = inputs()
    by_row, by_column = relative_terms(q, rows, columns)
    assert by_row.shape == (B, N, 15, 3) and by_column.shape == (B, N, 15, 5)
    query = q[1, 2, 2, 3]  # token 2 * 5 + 3
    torch.testing.assert_close(by_row[1, 2, 13], rows[2] @ query)
    torch.testing.assert_close(by_column[1, 2, 13], columns[3] @ query)


@FORMS
def test_outputs_and_gradients_are_those_of_the_formula(form):
    weights = torch.randn(B, N, 15, D, generator=torch.Generator().manual_seed(1))
    results = []
    for function in (form, by_the_formula):
        tensors = inputs()
        output = function(*tensors)
        (output * weights).sum().backward()
        results.append([output, *(tensor.grad for tensor in tensors)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)  # order of summation


@pytest.mark.parametrize("chunk", [1, 40, 15 * 15, 3 * 15 * 15, 4 * 15 * 15])
def test_chunks_of_any_size_give_the_same(chunk, monkeypatch):
    results = []
    for size in (2**19, chunk):
        monkeypatch.setattr(rel_pos, "_CHUNK", size)
        tensors = inputs(dtype=torch.float64)
        output = attend_in_chunks(*tensors)
        output.square().sum().backward()
        results.append([output, *(tensor.grad for tensor in tensors)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


def test_gradients_of_chunks_are_the_numerical_ones(monkeypatch):
    monkeypatch.setattr(rel_pos, "_CHUNK", 10)
    tensors = [tensor[:1, :2].detach() for tensor in inputs(2, 3, torch.float64)[:3]]
    tensors += [tensor.detach() for tensor in inputs(2, 3, torch.float64)[3:]]
    assert torch.autograd.gradcheck(attend_in_chunks, [t.requires_grad_() for t in tensors])


@FORMS
def test_large_logits_do_not_overflow(form):
    tensors = inputs(scale=100.0)  # logits of some ten thousands
    output = form(*tensors)
    output.sum().backward()
    torch.testing.assert_close(output, by_the_formula(*tensors), atol=1e-3, rtol=1e-4)
    assert all(tensor.grad.isfinite().all() for tensor in tensors)


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that is made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple) else (output,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return output


@FORMS
def test_neither_pass_holds_the_logits_of_all_pairs(form, monkeypatch):
    monkeypatch.setattr(rel_pos, "_CHUNK", 2**12)
    tensors = inputs(16, 16)
    with Largest() as largest:
        form(*tensors).sum().backward()
    assert largest.numel < B * N * 16**4 / 4


@pytest.mark.parametrize(
    "dtype, form", [(torch.float32, attend_in_chunks), (torch.bfloat16, attend_folded)]
)
def test_a_cpu_takes_chunks_in_single_and_the_fused_kernel_in_half_precision(dtype, form):
    tensors = [tensor.to(dtype) for tensor in inputs()]
    assert torch.equal(attend(*tensors), form(*tensors))


@FORMS
def test_half_precision_is_within_its_rounding(form):
    tensors = inputs(8, 8)
    exact, rounded = form(*tensors), form(*(tensor.bfloat16() for tensor in tensors))
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.1, rtol=0.02)
