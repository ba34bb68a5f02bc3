"""One attention with a bias, gradients of the bias included: torch's with a bias, and ours.

Torch's is given the bias of all pairs. It tells whether `mimdet.layers.cpu_attention` still earns
its place: where torch takes a bias as fast and as lean, that module can go.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import Row, in_new_process, peak_memory
from mimdet.layers.attention import attend
from mimdet.layers.rel_pos import Bias, RelativePositionBias, relative_terms

_HEADS, _CHANNELS = 12, 64  # of a ViT-B

# what -> kind of bias, attentions at once (windows of an image of 1024x1024), side in tokens
_CASES = {
    "ViTDet-B, 64x64 tokens": ("terms", 1, 64),
    "ViTDet-B, 25 windows of 14x14": ("terms", 25, 14),
    "Benchmarking-B, 64x64 tokens": ("table", 1, 64),
    "Benchmarking-B, 16 windows of 16x16": ("table", 16, 16),
}
_PASSES = ("forward", "forward and backward")


def _of_all_pairs(q: Tensor, k: Tensor, v: Tensor, bias: Bias) -> Tensor:
    every = slice(None)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.at(every, every, every))


_WAYS = {"torch": _of_all_pairs, "ours": attend}


def measure(repeats: int) -> list[Row]:
    """CPU milliseconds and memory; each run is a process of its own, both ways in turn."""
    rows = []
    for case in _CASES:
        _check_that_both_ways_agree(case)
        for passes in _PASSES:
            costs = {way: [] for way in _WAYS}
            for _ in range(repeats):
                for way, runs in costs.items():
                    runs.append(in_new_process("benchmarks.attention", way, case, passes))
            (plain_ms, plain_mib), (ms, mib) = (
                [statistics.median(numbers) for numbers in zip(*runs, strict=True)]
                for runs in costs.values()
            )
            name = f"attention, {case}, {passes}: torch with a bias / ours"
            rows += [
                # a tenth is for the noise of the machine
                Row(f"{name}, time", plain_ms, ms, "ms", 0.9),
                Row(f"{name}, memory", plain_mib, mib, "MiB", 0.9),
            ]
    return rows


def _check_that_both_ways_agree(case: str) -> None:
    kind, number, side = _CASES[case]
    results = []
    for way in _WAYS.values():
        run, tensors = _task(way, kind, min(number, 2), min(side, 16))
        results.append([run("forward and backward"), *(tensor.grad for tensor in tensors)])
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)


def _task(
    way: Callable, kind: str, number: int, side: int
) -> tuple[Callable[[str], Tensor], list[Tensor]]:
    """What is measured, and the tensors that take gradients."""
    torch.manual_seed(0)
    qkv = torch.randn(number, side**2, 3, _HEADS, _CHANNELS).requires_grad_()  # of a projection
    if kind == "terms":
        tables = [torch.randn(side, side, _CHANNELS).mul_(0.02).requires_grad_() for _ in range(2)]
    else:
        joint = RelativePositionBias((side, side), _HEADS)
        tables = [joint.relative_position_bias_table]

    def run(passes: str) -> Tensor:
        with torch.set_grad_enabled(passes != "forward"):
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            grid = q.unflatten(2, (side, side))
            output = way(q, k, v, relative_terms(grid, *tables) if kind == "terms" else joint())
        if passes != "forward":
            output.square().sum().backward()
        return output.detach()

    return run, [qkv, *tables]


def _cost(way: str, case: str, passes: str) -> tuple[float, float]:
    """CPU milliseconds of a run, and MiB by which the first one makes the memory grow."""
    run, _ = _task(_WAYS[way], *_CASES[case])
    memory = peak_memory(lambda: run(passes))
    start = time.process_time()
    run(passes)
    return 1000 * (time.process_time() - start), memory


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(*_cost(*sys.argv[1:]))
