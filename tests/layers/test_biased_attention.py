"""Attention with a bias from a table, against autograd through the plain formula."""

import pytest
import torch

from mimdet.layers import biased_attention
from mimdet.layers.biased_attention import attend_with_bias, look_up

B, N, L, S, D, R = 3, 2, 7, 5, 4, 6
INDEX = torch.randint(R, (L, S), generator=torch.Generator().manual_seed(2))


def tensors(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """q, k, v and table that take gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = (B, N, L, D), (B, N, S, D), (B, N, S, D), (R, N)
    return [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in shapes]


def ours(q, k, v, table):
    return attend_with_bias(q, k, v, look_up(table, INDEX))


def plain(q, k, v, table):
    return (q @ k.mT * D**-0.5 + table[INDEX].permute(2, 0, 1)).softmax(dim=-1) @ v


def test_the_bias_is_looked_up_for_every_head_query_and_key():
    table = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    bias = look_up(table, torch.tensor([[0, 2], [1, 1]]))
    assert bias.values.tolist() == [[[1, 3], [2, 2]], [[10, 30], [20, 20]]]


@pytest.mark.parametrize("chunk", [1, B * S * 3, 2**18])
def test_output_and_gradients_equal_those_of_the_formula(monkeypatch, chunk):
    # one query at a time; three, so that the last chunk is smaller; all of them
    monkeypatch.setattr(biased_attention, "_CHUNK_ELEMENTS", chunk)
    inputs = tensors()
    weight = torch.randn(B, N, L, D, generator=torch.Generator().manual_seed(1)).double()
    results = []
    for attend in (ours, plain):
        output = attend(*inputs)
        results.append((output, *torch.autograd.grad((output * weight).sum(), inputs)))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-9)


def test_gradients_equal_finite_differences():
    assert torch.autograd.gradcheck(ours, tensors())


def test_attentions_that_share_a_bias_add_their_gradients_of_the_table():
    q, k, v, table = tensors()
    bias = look_up(table, INDEX)
    twice = attend_with_bias(q, k, v, bias).sum() + attend_with_bias(2 * q, k, v, bias).sum()
    (both,) = torch.autograd.grad(twice, [table])
    alone = [torch.autograd.grad(ours(x, k, v, table).sum(), [table])[0] for x in (q, 2 * q)]
    torch.testing.assert_close(both, sum(alone))


def test_a_bias_that_takes_no_gradient_is_left_to_torch():
    q, k, v, table = tensors()
    output = ours(q, k, v, table.detach())
    torch.testing.assert_close(output, plain(q, k, v, table.detach()))
    assert "Recomputed" not in type(output.grad_fn).__name__
    assert "Recomputed" in type(ours(q, k, v, table).grad_fn).__name__
    with torch.no_grad():
        torch.testing.assert_close(ours(q, k, v, table), output)


def test_no_weights_are_kept_for_the_backward_pass():
    q, k, v, table = tensors()
    bias, kept = look_up(table, INDEX), []

    def keep(tensor):
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attend_with_bias(q, k, v, bias)
    assert sorted(kept) == sorted([*(tuple(x.shape) for x in (q, k, v, *bias))])


def test_bfloat16_has_gradients_near_those_of_float32():
    inputs, low = tensors(torch.float32), tensors(torch.bfloat16)
    expected = torch.autograd.grad(plain(*inputs).square().sum(), inputs)
    actual = torch.autograd.grad(ours(*low).square().sum(), low)
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == torch.bfloat16
        assert (a.float() - b).norm() <= 0.05 * b.norm()


def test_bias_and_attention_follow_autocast_and_the_tables_gradient_stays_precise():
    inputs = tensors(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = ours(*(x.bfloat16() for x in inputs[:3]), inputs[3])
    assert output.dtype == torch.bfloat16
    (grad,) = torch.autograd.grad(output.square().sum(), [inputs[3]])
    (expected,) = torch.autograd.grad(plain(*inputs).square().sum(), [inputs[3]])
    assert grad.dtype == torch.float32
    assert (grad - expected).norm() <= 0.05 * expected.norm()
