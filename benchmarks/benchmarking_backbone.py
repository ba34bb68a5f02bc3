"""The Benchmarking-ViT-B backbone on a 1024x1024 image: attention by a plain softmax, and ours."""

import statistics
import sys
import time

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, in_new_process, peak_memory
from detectron2.config import LazyConfig, instantiate
from mimdet.layers.attention import BiasedAttention
from mimdet.layers.rel_pos import TableBias

_CONFIG = "configs/benchmarking/benchmarking_mask_rcnn_base_FPN_100ep_LSJ_mae.py"


class PlainAttention(BiasedAttention):
    """The same by the letter: whole logits, to which the bias is added, and their softmax."""

    def forward(self, x: Tensor, bias: TableBias) -> Tensor:
        """See `BiasedAttention.forward`."""
        B, L, C = x.shape
        qkv = self.qkv(x).reshape(B, L, 3, self.num_heads, C // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        logits = (q * (C // self.num_heads) ** -0.5) @ k.transpose(2, 3)
        weights = (logits + bias.values).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(x.shape))


_WAYS = {"plain": PlainAttention, "ours": BiasedAttention}


def measure(repeats: int) -> list[Row]:
    """CPU seconds and memory above the weights, of a forward pass and with a backward pass.

    Every run has a process of its own; at most three of each, as they take a minute.
    """
    _check_that_both_ways_agree()
    rows = []
    for what in ("forward", "forward and backward"):
        costs = {way: [] for way in _WAYS}
        for _ in range(min(repeats, 3)):
            for way in _WAYS:
                costs[way].append(in_new_process("benchmarks.benchmarking_backbone", way, what))
        plain, ours = (
            [statistics.median(numbers) for numbers in zip(*costs[way], strict=True)]
            for way in ("plain", "ours")
        )
        name = f"Benchmarking-ViT-B backbone at 1024x1024, {what}: plain softmax / ours"
        rows += [
            Row(f"{name}, time", plain[0], ours[0], "s", 1 / 0.75),
            Row(f"{name}, memory above weights", plain[1], ours[1], "MiB", 1 / 0.6),
        ]
    return rows


def _check_that_both_ways_agree() -> None:
    results = []
    for way in _WAYS:
        net = _net(way, img_size=128, window_size=4, embed_dim=64, depth=8, num_heads=4)
        results.append([_run(net, "forward and backward"), *(p.grad for p in net.parameters())])
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)


def _net(way: str, **changes) -> nn.Module:
    """The backbone in training mode, without dropped paths: both ways must do the same work."""
    cfg = LazyConfig.load(_CONFIG).model.backbone.bottom_up
    cfg.update(drop_path_rate=0.0, with_cp=False, **changes)
    torch.manual_seed(0)
    net = instantiate(cfg)
    for table in (net.windowed_rel_pos_bias, net.global_rel_pos_bias):
        nn.init.trunc_normal_(table.relative_position_bias_table, std=0.02)
    for block in net.blocks:
        block.attn.__class__ = _WAYS[way]
    return net


def _run(net: nn.Module, what: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, *net.img_size, generator=generator)
    with torch.set_grad_enabled(what != "forward"):
        loss = sum(feature.square().mean() for feature in net(image).values())
    if what != "forward":
        loss.backward()
    return loss.detach()


def _cost(way: str, what: str) -> tuple[float, float]:
    """CPU seconds of a run, and MiB by which it makes the memory grow."""
    net = _net(way)
    start = time.process_time()
    memory = peak_memory(lambda: _run(net, what))
    return time.process_time() - start, memory


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(*_cost(*sys.argv[1:]))
