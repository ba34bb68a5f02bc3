"""The ViTDet-B backbone on a 1024x1024 image: attention by a plain softmax, and ours."""

import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, in_new_process, peak_memory
from detectron2.config import LazyConfig, instantiate
from mimdet.layers.attention import RelPosAttention
from mimdet.layers.rel_pos import relative_positions
from mimdet.layers.window import window_partition, window_unpartition

_CONFIG = Path(__file__).parents[1] / "configs/vitdet/mask_rcnn_vitdet_b_100ep.py"
_SIDE = 1024


class _PlainAttention(RelPosAttention):
    """The same by the letter: whole logits, two broadcast additions, softmax, padded windows."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        hw = x.shape[1:3]
        if self.window_size:
            x, padded_hw = window_partition(x, self.window_size)
        B, H, W, C = x.shape
        qkv = self.qkv(x).reshape(B, H * W, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.reshape(3, B * self.num_heads, H * W, -1).unbind(0)
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(1, 2)
        grid = q.reshape(-1, H, W, q.shape[-1])
        rows, columns = relative_positions(self.rel_pos_h, H), relative_positions(self.rel_pos_w, W)
        by_row = torch.einsum("bhwd,hkd->bhwk", grid, rows)
        by_column = torch.einsum("bhwd,wkd->bhwk", grid, columns)
        logits = logits.view(-1, H, W, H, W) + by_row[..., :, None] + by_column[..., None, :]
        out = logits.view(-1, H * W, H * W).softmax(dim=-1) @ v
        out = out.view(B, self.num_heads, H, W, -1).permute(0, 2, 3, 1, 4).reshape(B, H, W, C)
        out = self.proj(out)
        return window_unpartition(out, padded_hw, hw) if self.window_size else out


_ATTENTION = {"plain": _PlainAttention, "ours": RelPosAttention}


def measure(repeats: int) -> list[Row]:
    """CPU seconds and memory above the weights, of a forward pass and with a backward pass.

    Every run is a process of its own, because the plain way takes 9 GB.
    """
    _assert_equal()
    rows = []
    for way, what in (("forward", "forward"), ("backward", "forward and backward")):
        runs = {kind: [] for kind in _ATTENTION}
        for _ in range(min(repeats, 3)):
            for kind, measured in runs.items():  # in turn, as `cpu_ms` does
                measured.append(in_new_process("benchmarks.vitdet_backbone", kind, way))
        seconds, memory = (
            [statistics.median(run[k] for run in measured) for measured in runs.values()]
            for k in (0, 1)
        )
        name = f"ViTDet-B backbone at {_SIDE}x{_SIDE}, {what}: plain softmax / ours"
        rows += [
            Row(f"{name}, time", *seconds, "s", 1 / 0.75),
            Row(f"{name}, memory above weights", *memory, "MiB", 1 / 0.6),
        ]
    return rows


def _assert_equal() -> None:
    net = _net()
    expected = _run(net, "plain", "forward")
    torch.testing.assert_close(_run(net, "ours", "forward"), expected, atol=1e-4, rtol=1e-4)


def _net() -> nn.Module:
    """The backbone without dropped paths, so that all runs do the same work."""
    cfg = LazyConfig.load(str(_CONFIG)).model.backbone.net
    cfg.update(drop_path_rate=0.0, rel_pos_zero_init=False, img_size=_SIDE)
    cfg.use_act_checkpoint = False
    torch.manual_seed(0)
    return instantiate(cfg)


def _run(net: nn.Module, kind: str, way: str) -> Tensor:
    """A forward pass, and a backward pass where wanted; returns the map without its graph."""
    for block in net.blocks:
        block.attn.__class__ = _ATTENTION[kind]
    net.zero_grad()
    image = torch.randn(1, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    with torch.set_grad_enabled(way == "backward"):
        output = net(image)["last_feat"]
    if way == "backward":
        output.square().mean().backward()
    return output.detach()


def _cost(kind: str, way: str) -> tuple[float, float]:
    """CPU seconds, and MiB above the weights, of one run in this process."""
    net = _net()
    start = time.process_time()
    memory = peak_memory(lambda: _run(net, kind, way))
    return time.process_time() - start, memory


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(*_cost(*sys.argv[1:]))
