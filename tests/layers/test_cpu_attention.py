"""Attention in chunks: what is its own beside the other kernels, see test_attend."""

import pytest
import torch
from attention_cases import INDEX, B, L, bias_of, by_the_formula, inputs

from mimdet.layers import cpu_attention as room
from mimdet.layers.cpu_attention import cpu_attention
from mimdet.layers.rel_pos import look_up

KINDS = pytest.mark.parametrize("kind", ["terms", "table"])


def ours(q, k, v, *tables) -> torch.Tensor:
    return cpu_attention(q, k, v, bias_of(q, tables))


# one query at a time; some, so that the last chunk is smaller; one head; two images
@pytest.mark.parametrize("chunk", [1, 4 * L, L * L, B * L * L])
@KINDS
def test_chunks_of_any_size_give_the_same(kind, chunk, monkeypatch):
    monkeypatch.setattr(room, "_CHUNK", chunk)
    results = []
    for function in (ours, by_the_formula):
        tensors = inputs(kind, torch.float64)
        output = function(*tensors)
        output.square().sum().backward()
        results.append([output, *(tensor.grad for tensor in tensors)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-9)


@KINDS
def test_gradients_are_the_numerical_ones(kind, monkeypatch):
    monkeypatch.setattr(room, "_CHUNK", 4 * L)
    q, k, v, *tables = inputs(kind, torch.float64)
    first = [tensor[:1].detach().requires_grad_() for tensor in (q, k, v)]
    assert torch.autograd.gradcheck(ours, [*first, *tables])


def test_attentions_that_share_a_bias_add_their_gradients_of_the_table():
    q, k, v, table = inputs("table", torch.float64)
    bias = look_up(table, INDEX)
    twice = cpu_attention(q, k, v, bias).sum() + cpu_attention(2 * q, k, v, bias).sum()
    (both,) = torch.autograd.grad(twice, [table])
    alone = [torch.autograd.grad(ours(x, k, v, table).sum(), [table])[0] for x in (q, 2 * q)]
    torch.testing.assert_close(both, sum(alone))


@KINDS
def test_no_weights_are_kept_for_the_backward_pass(kind):
    q, k, v, *tables = inputs(kind)
    bias, kept = bias_of(q, tables), []

    def keep(tensor):
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = cpu_attention(q, k, v, bias)
    assert sorted(kept) == sorted(tuple(x.shape) for x in (q, k, v, output, *bias))


def test_bias_and_attention_follow_autocast_and_the_tables_gradient_stays_precise():
    q, k, v, table = inputs("table")
    with torch.autocast("cpu", torch.bfloat16):
        output = ours(q.bfloat16(), k.bfloat16(), v.bfloat16(), table)
    assert output.dtype == torch.bfloat16
    (grad,) = torch.autograd.grad(output.square().sum(), [table])
    (expected,) = torch.autograd.grad(by_the_formula(q, k, v, table).square().sum(), [table])
    assert grad.dtype == torch.float32
    assert (grad - expected).norm() <= 0.05 * expected.norm()
