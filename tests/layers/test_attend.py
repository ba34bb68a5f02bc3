"""The kernels of attention with a bias, all against the formula."""

import pytest
import torch
import torch.nn.functional as F
from attention_cases import B, D, H, L, N, W, bias_of, by_the_formula, inputs, noise
from torch.utils._python_dispatch import TorchDispatchMode

from mimdet.layers import cpu_attention
from mimdet.layers.attention import attend

KINDS = pytest.mark.parametrize("kind", ["terms", "table"])
KERNELS = pytest.mark.parametrize("kernel", ["folded", "chunks"])


def attended(q, k, v, *tables, kernel: str = "auto") -> torch.Tensor:
    return attend(q, k, v, bias_of(q, tables), kernel)


@KERNELS
@KINDS
def test_outputs_and_gradients_are_those_of_the_formula(kernel, kind):
    results = []
    for function in (lambda *tensors: attended(*tensors, kernel=kernel), by_the_formula):
        tensors = inputs(kind)
        output = function(*tensors)
        (output * noise(B, N, L, D)).sum().backward()
        results.append([output, *(tensor.grad for tensor in tensors)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)  # order of summation


@KERNELS
@KINDS
def test_large_logits_do_not_overflow(kernel, kind):
    tensors = inputs(kind, scale=100.0)  # logits of some ten thousands
    output = attended(*tensors, kernel=kernel)
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


@KERNELS
def test_neither_pass_holds_the_logits_of_all_pairs(kernel, monkeypatch):
    monkeypatch.setattr(cpu_attention, "_CHUNK", 2**12)
    q, k, v = (noise(B, N, 256, D, seed=seed).requires_grad_() for seed in range(3))
    rows = noise(16, 16, D).requires_grad_()
    with Largest() as largest:
        attended(q, k, v, rows, rows, kernel=kernel).sum().backward()
    assert largest.numel < B * N * 16**4 / 4


@KERNELS
@KINDS
def test_half_precision_is_within_its_rounding(kernel, kind):
    tensors = inputs(kind)
    half = [tensor.detach().bfloat16().requires_grad_() for tensor in tensors]
    exact, rounded = by_the_formula(*tensors), attended(*half, kernel=kernel)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.1, rtol=0.02)
    expected = torch.autograd.grad(exact.square().sum(), tensors)
    actual = torch.autograd.grad(rounded.square().sum(), half)
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == torch.bfloat16
        assert (a.float() - b).norm() <= 0.05 * b.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@KINDS
def test_a_cpu_takes_chunks_but_for_relative_terms_in_half_precision(kind, dtype):
    tensors = inputs(kind, dtype)
    output = attended(*tensors)
    folds = (kind, dtype) == ("terms", torch.bfloat16)
    assert torch.equal(output, attended(*tensors, kernel="folded" if folds else "chunks"))
    assert ("CpuAttention" in type(output.grad_fn).__name__) != folds


@KINDS
def test_without_values_operations_are_those_of_the_formula(kind):
    with torch.device("meta"):
        q, k, v = (torch.empty(B, N, L, D) for _ in range(3))
        tables = [torch.empty(t.shape) for t in inputs(kind)[3:]]
        bias = bias_of(q, tables) if kind == "terms" else None
    products = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.bmm.default:
                products.append(args[0].numel() * args[1].shape[-1])
            return func(*args, **(kwargs or {}))

    with Products():
        output = attend(q, k, v, bias, "folded")
    assert output.shape == (B, N, L, D)
    assert products == [B * N * L * L * D] * 2


def test_folded_channels_are_a_multiple_of_eight_for_fused_kernels(monkeypatch):
    widths, fused = [], F.scaled_dot_product_attention

    def spy(*qkv, **arguments):
        widths.append([tensor.shape[-1] for tensor in qkv])
        return fused(*qkv, **arguments)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    attended(*inputs("terms"), kernel="folded")
    assert D + H + W == 12 and widths == [[16, 16, 16]]
