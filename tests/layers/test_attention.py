"""Attention against its formula, torch's and timm's; over maps against itself without windows."""

import pytest
import torch
from timm.models.vision_transformer import Attention as TimmAttention
from torch import nn

from mimdet.layers.attention import Attention, RelPosAttention

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


def token_map(H: int, W: int, batch: int = B) -> torch.Tensor:
    return torch.randn(batch, H, W, C, generator=torch.Generator().manual_seed(0))


def map_attention(**arguments) -> RelPosAttention:
    """With random tables of positions."""
    torch.manual_seed(1)
    defaults = dict(use_rel_pos=True, rel_pos_zero_init=False, input_size=4)
    return RelPosAttention(C, N, **(defaults | arguments))


def whole(windowed: RelPosAttention) -> RelPosAttention:
    """The same weights without windows."""
    size = windowed.window_size
    module = map_attention(
        input_size=size,
        use_rel_pos=windowed.use_rel_pos,
        qkv_bias=windowed.qkv.bias is not None,
    )
    module.load_state_dict(windowed.state_dict())
    return module


@pytest.mark.parametrize("bias", [True, False])
def test_without_positions_and_windows_a_map_is_attended_like_its_tokens(bias):
    module, x = map_attention(use_rel_pos=False, qkv_bias=bias), token_map(3, 5)
    reference = attention(qkv_bias=bias)
    reference.load_state_dict(module.state_dict())
    torch.testing.assert_close(module(x).flatten(1, 2), reference(x.flatten(1, 2)))


def test_tables_of_zeros_change_nothing():
    module, x = map_attention(rel_pos_zero_init=True), token_map(3, 5)
    assert not module.rel_pos_h.any() and not module.rel_pos_w.any()
    reference = attention()
    reference.load_state_dict(module.state_dict(), strict=False)
    expected = reference(x.flatten(1, 2))
    torch.testing.assert_close(module(x).flatten(1, 2), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rel_pos", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("H, W", [(6, 3), (5, 7), (2, 2)])
def test_each_window_attends_within_itself_padded_by_zero_tokens(H, W, bias, rel_pos):
    module, x = map_attention(window_size=3, qkv_bias=bias, use_rel_pos=rel_pos), token_map(H, W)
    if bias:
        nn.init.normal_(module.qkv.bias)  # of which keys and values of the padding consist
    reference, output = whole(module), module(x)
    padded = nn.functional.pad(x, (0, 0, 0, -W % 3, 0, -H % 3))
    assert output.shape == x.shape
    for top in range(0, H, 3):
        for left in range(0, W, 3):
            cell = (slice(None), slice(top, top + 3), slice(left, left + 3))
            actual = output[cell]
            expected = reference(padded[cell])[:, : actual.shape[1], : actual.shape[2]]
            torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)


def test_gradients_pass_through_padded_windows():
    module, x = map_attention(window_size=3), token_map(4, 4).requires_grad_()
    module(x).square().sum().backward()
    through_windows = [x.grad, *(p.grad.clone() for p in module.parameters())]
    reference, y = whole(module), x.detach().clone().requires_grad_()
    padded = nn.functional.pad(y, (0, 0, 0, 2, 0, 2))
    rows = [
        torch.cat([reference(half) for half in row.split(3, 2)], 2) for row in padded.split(3, 1)
    ]
    torch.cat(rows, dim=1)[:, :4, :4].square().sum().backward()
    expected = [y.grad, *(p.grad for p in reference.parameters())]
    for actual, wanted in zip(through_windows, expected, strict=True):
        torch.testing.assert_close(actual, wanted, atol=1e-5, rtol=1e-4)


def test_all_kernels_agree():
    x, outputs = token_map(5, 7), []
    for form in ("auto", "folded", "chunks"):
        outputs.append(map_attention(window_size=3, attn_impl=form)(x))
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], atol=1e-6, rtol=1e-5)


def test_without_gradients_tables_are_looked_up_once_per_size_and_content():
    module, x = map_attention(), token_map(6, 5)
    trained = module(x)
    with torch.no_grad():
        first = module._cache.get(module.rel_pos_h, 6)
        torch.testing.assert_close(module(x), trained)
        assert module._cache.get(module.rel_pos_h, 6) is first
        module.load_state_dict({n: 2 * v for n, v in module.state_dict().items()})
        torch.testing.assert_close(module._cache.get(module.rel_pos_h, 6), 2 * first)
    names = {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias", "rel_pos_h", "rel_pos_w"}
    assert set(module.state_dict()) == names


def test_mixed_precision_is_within_its_rounding():
    module, x = map_attention(window_size=3), token_map(5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = module(x)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), module(x), atol=0.02, rtol=0.05)


def test_an_unknown_kernel_is_refused():
    known = r"\('auto', 'folded', 'chunks'\)"
    with pytest.raises(ValueError, match=f"attn_impl must be one of {known}, got 'flash'"):
        map_attention(attn_impl="flash")
