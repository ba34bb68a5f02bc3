"""Runs norms that share statistics in two processes, and the same input in one."""

import torch
import torch.distributed as dist
from torch import nn

from detectron2.layers import get_norm

CHANNELS = 3
# Name of the case: norm and the shapes (samples, height, width) of the inputs of both processes.
CASES = {
    "equal": ("naiveSyncBN", [(2, 4, 5), (2, 4, 5)]),
    "unequal": ("naiveSyncBN_N", [(3, 4, 5), (1, 4, 5)]),
    "one_empty": ("naiveSyncBN_N", [(2, 4, 5), (0, 4, 5)]),
    "all_empty": ("naiveSyncBN_N", [(0, 4, 5), (0, 4, 5)]),
    "unequal_pixels": ("naiveSyncBN_N", [(1, 2, 2), (3, 4, 5)]),
    "unequal_without_weights": ("naiveSyncBN", [(1, 4, 5), (3, 4, 5)]),
}
LITE_CASES = {"torch_sync_bn": ("SyncBN", [(1, 2, 2), (3, 4, 5)])}


def sample(rank: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """The input of process `rank`, with a mean far from 0."""
    n, h, w = shape
    generator = torch.Generator().manual_seed(rank)
    return 2 + 3 * torch.randn(n, CHANNELS, h, w, generator=generator)


def filled(norm: nn.Module) -> nn.Module:
    """Give `norm` an affine map that is not the identity."""
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    return norm.train()


def forward_backward(norm: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output, gradients and buffers after one step with a loss that weighs pixels unequally."""
    x = x.clone().requires_grad_()
    y = norm(x)
    (y * y * x.detach()).sum().backward()
    grads = {name: p.grad for name, p in norm.named_parameters()}
    buffers = {name: b.clone() for name, b in norm.named_buffers()}
    return {
        "y": y.detach(),
        "x.grad": x.grad,
        **{f"{k}.grad": v for k, v in grads.items()},
        **buffers,
    }


def run(rank: int, folder: str, lite: bool) -> None:
    """One of two processes; saves its results to `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = {
        name: forward_backward(filled(get_norm(norm, CHANNELS)), sample(rank, shapes[rank]))
        for name, (norm, shapes) in (CASES | (LITE_CASES if lite else {})).items()
    }
    results["eval"] = filled(get_norm("naiveSyncBN", CHANNELS)).eval()(sample(rank, (2, 4, 5)))
    if lite:
        results |= low_precision(rank)
    try:
        get_norm("naiveSyncBN", CHANNELS).train()(sample(rank, (0, 4, 5)))
    except AssertionError as e:
        results["error"] = str(e)
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@torch.no_grad()
def low_precision(rank: int) -> dict[str, torch.Tensor]:
    """Inputs whose mean square needs more digits than they have."""
    x = 30 + sample(rank, (2, 4, 5))
    constant = torch.full((2, CHANNELS, 4, 5), 1000.1)
    return {
        "bfloat16": filled(get_norm("naiveSyncBN", CHANNELS))(x.bfloat16()),
        "bfloat16_as_float32": filled(get_norm("naiveSyncBN", CHANNELS))(x.bfloat16().float()),
        "constant": filled(get_norm("naiveSyncBN", CHANNELS))(constant),
    }
