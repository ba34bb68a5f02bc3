"""Attention against its formula, torch's and timm's."""

import pytest
import torch
from timm.models.vision_transformer import Attention as TimmAttention
from torch import nn

from mimdet.layers.attention import Attention

B, L, C, N = 2, 5, 12, 3


def tokens(length: int = L) -> torch.Tensor:
    return torch.randn(B, length, C, generator=torch.Generator().manual_seed(0))


def attention(**arguments) -> Attention:
    torch.manual_seed(1)
    return Attention(C, N, **arguments)


def test_output_is_the_softmax_weighted_sum_of_the_values_of_each_head():
    module, x = attention(), tokens()
    heads = []
    for head in range(N):
        columns = slice(head * (C // N), (head + 1) * (C // N))
        q, k, v = (part[..., columns] for part in module.qkv(x).split(C, dim=-1))
        weights = (q @ k.transpose(1, 2) / (C // N) ** 0.5).softmax(dim=-1)  # (B, L, L)
        heads.append(weights @ v)
    expected = module.proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(module(x), expected, atol=1e-6, rtol=1e-5)  # order of summation


@pytest.mark.parametrize("bias", [True, False])
def test_output_equals_torchs_multihead_attention_with_the_same_weights(bias):
    module, x = attention(qkv_bias=bias), tokens()
    reference = nn.MultiheadAttention(C, N, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(module.qkv.weight)
        if bias:
            reference.in_proj_bias.copy_(module.qkv.bias)
        reference.out_proj.load_state_dict(module.proj.state_dict())
    expected, _ = reference(x, x, x)
    torch.testing.assert_close(module(x), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_output_and_names_equal_timms(bias):
    module, x = attention(qkv_bias=bias), tokens()
    reference = TimmAttention(C, num_heads=N, qkv_bias=bias)
    reference.load_state_dict(module.state_dict())
    torch.testing.assert_close(module(x), reference(x), atol=1e-6, rtol=1e-5)


def test_permuted_tokens_give_permuted_outputs():
    module, x = attention(), tokens()
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(module(x[:, order]), module(x)[:, order], atol=1e-6, rtol=1e-5)


def test_one_token_attends_to_itself_alone():
    module, x = attention(), tokens(length=1)
    torch.testing.assert_close(module(x), module.proj(module.qkv(x)[..., 2 * C :]))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="num_heads must divide the width, got 5 heads for 12"):
        Attention(12, 5)
