"""MIMDet-B's bottom-up network on one image of 800x1344, by the share of tokens it encodes."""

import statistics
import sys
import time

import torch
from torch import nn

from benchmarks.measure import Row, in_new_process
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import ImageList

_CONFIG = "configs/mimdet/mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x_convfill.py"
_SIZE = (800, 1344)
# What the multiply-adds of the forward pass say: those of all tokens by those of a share.
_ARITHMETIC = {0.5: 2.1, 0.25: 3.4}


def measure(repeats: int) -> list[Row]:
    """CPU seconds of a forward pass and with a backward pass: all tokens / a share of them.

    Every run has a process of its own; at most five of each.
    """
    rows = []
    for what in ("forward", "forward and backward"):
        costs = {ratio: [] for ratio in (1.0, *_ARITHMETIC)}
        for _ in range(min(repeats, 5)):
            for ratio, measured in costs.items():  # in turn, as `cpu_ms` does
                measured += in_new_process("benchmarks.mimdet_backbone", str(ratio), what)
        every = statistics.median(costs[1.0])
        for ratio, gain in _ARITHMETIC.items():
            name = f"MIMDet-B bottom-up at {_SIZE[0]}x{_SIZE[1]}, {what}: all tokens / {ratio:g}"
            share = statistics.median(costs[ratio])
            rows.append(Row(name, every, share, "s", gain if what == "forward" else None))
    return rows


def _net(ratio: float) -> nn.Module:
    cfg = LazyConfig.load(_CONFIG).model.backbone.bottom_up
    cfg.sample_ratio = ratio
    cfg.encoder.update(checkpointing=False, dpr=0.0)
    cfg.decoder.checkpointing = False
    torch.manual_seed(0)
    return instantiate(cfg)


def _cost(ratio: float, what: str) -> float:
    """CPU seconds of one run in this process."""
    net = _net(ratio)
    images = ImageList(torch.randn(1, 3, *_SIZE), [_SIZE])
    start = time.process_time()
    with torch.set_grad_enabled(what != "forward"):
        loss = sum(feature.square().mean() for feature in net(images).values())
    if what != "forward":
        loss.backward()
    return time.process_time() - start


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(_cost(float(sys.argv[1]), sys.argv[2]))
