"""The transformer block against timm's, and how stacks of blocks are run."""

import functools

import pytest
import torch
from timm.models.vision_transformer import Block as TimmBlock
from torch import nn

from mimdet.layers.block import Block, drop_path_rates, run, run_all

DIM, HEADS = 16, 4


def tokens(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 5, DIM, generator=torch.Generator().manual_seed(0))


def blocks(depth: int = 2, drop_path: float = 0.0) -> nn.ModuleList:
    torch.manual_seed(1)
    return nn.ModuleList(Block(DIM, HEADS, drop_path=drop_path) for _ in range(depth))


@pytest.mark.parametrize("bias", [True, False])
def test_block_has_the_names_outputs_and_gradients_of_timms(bias):
    torch.manual_seed(1)
    block = Block(DIM, HEADS, mlp_ratio=3.0, qkv_bias=bias)
    reference = TimmBlock(DIM, HEADS, mlp_ratio=3.0, qkv_bias=bias, norm_layer=nn.LayerNorm)
    reference.load_state_dict(block.state_dict())
    output, expected = block(tokens()), reference(tokens())
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=1e-5)  # order of summation
    output.square().sum().backward()
    expected.square().sum().backward()
    wanted = dict(reference.named_parameters())
    for name, parameter in block.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, atol=1e-4, rtol=1e-4)


def test_norms_are_made_by_the_given_function():
    block = Block(DIM, HEADS, norm_layer=lambda dim: nn.LayerNorm(dim, eps=0.25))
    assert (block.norm1.eps, block.norm2.eps) == (0.25, 0.25)


def test_attention_and_activation_are_the_given_ones():
    block = Block(DIM, HEADS, act_layer=nn.ReLU, attn=nn.Linear(DIM, DIM))
    x = tokens().view(2, 5, 1, DIM)  # a layout that the default attention does not take
    y = x + block.attn(block.norm1(x))
    hidden = block.mlp.fc1(block.norm2(y)).relu()
    torch.testing.assert_close(block(x), y + block.mlp.fc2(hidden))


def test_a_dropped_branch_leaves_its_sample_and_a_kept_one_counts_double_at_rate_one_half():
    block = blocks(1, drop_path=0.5)[0].train()
    nn.init.zeros_(block.mlp.fc2.weight)
    nn.init.zeros_(block.mlp.fc2.bias)
    x = tokens(batch=16)
    output, kept = block(x), x + 2 * block.attn(block.norm1(x))
    unchanged = [torch.equal(output[k], x[k]) for k in range(16)]
    assert any(unchanged) and not all(unchanged)
    for k, dropped in enumerate(unchanged):
        torch.testing.assert_close(output[k], x[k] if dropped else kept[k])


def test_drop_path_is_inactive_in_evaluation():
    dropping, plain = blocks(1, drop_path=0.9)[0].eval(), blocks(1)[0].eval()
    assert torch.equal(dropping(tokens()), plain(tokens()))


@pytest.mark.parametrize("input_needs_grad", [True, False])
def test_checkpointing_changes_neither_outputs_nor_gradients(input_needs_grad):
    results = []
    for checkpointing in (False, True):
        stack, x = blocks(3, drop_path=0.5).train(), tokens().requires_grad_(input_needs_grad)
        torch.manual_seed(2)
        output = run_all(stack, x, checkpointing)
        output.square().sum().backward()
        results.append([output, *(p.grad for p in stack.parameters()), x.grad])
    for plain, recomputed in zip(*results, strict=True):
        assert (plain is None and recomputed is None) or torch.equal(plain, recomputed)


class Counter(nn.Module):
    """Doubles its input and counts how often."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return (2 * x).exp()


@pytest.mark.parametrize("checkpointing, calls", [(True, 2), (False, 1)])
def test_a_checkpointed_module_is_run_again_in_the_backward_pass(checkpointing, calls):
    module = Counter()
    run(module, torch.zeros(3, requires_grad=True), checkpointing).sum().backward()
    assert module.calls == calls


def test_without_gradients_nothing_is_recomputed():
    module = Counter()
    with torch.no_grad():
        output = run(module, torch.zeros(3), True)
    assert (module.calls, output.tolist()) == (1, [1, 1, 1])


@pytest.mark.parametrize("wrap", [lambda m: m, functools.partial], ids=["module", "partial"])
def test_recomputing_counts_a_batch_once_in_the_running_statistics(wrap):
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    states = []
    for checkpointing in (False, True):
        norm = nn.BatchNorm1d(3)
        buffers = dict(norm.named_buffers())
        run(wrap(norm), x.requires_grad_(), checkpointing).square().sum().backward()
        assert all(norm.get_buffer(name) is buffer for name, buffer in buffers.items())
        states.append(norm.state_dict())
    assert states[1]["num_batches_tracked"] == 1
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name


def test_a_module_that_has_another_called_func_is_no_partial():
    module = nn.Sequential()
    module.add_module("func", nn.Linear(3, 3))
    module.add_module("norm", nn.BatchNorm1d(3))
    x = torch.randn(5, 3, requires_grad=True)
    run(module, x, checkpointing=True).sum().backward()
    assert module.norm.num_batches_tracked == 1


def test_drop_path_rates_grow_linearly_from_zero_to_the_rate():
    assert drop_path_rates(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 1) == [0]
