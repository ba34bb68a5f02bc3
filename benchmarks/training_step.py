"""What a training step of each toy detector costs.

    python -m benchmarks.run --only training_step

A step is the forward pass with its losses and the backward pass, in float32, on random images of
128x128 with two objects each. Waits and operators are counted as they would be on a GPU, see
`benchmarks.launches`; they are the same on every machine. What is kept for the backward pass is
measured as in `benchmarks.memory_table`, which has the detectors at full size.
"""

import statistics
import time
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from benchmarks.launches import Launches, as_on_a_gpu
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from mimdet.config import load_config
from mimdet.engine.kept_memory import kept_bytes

SYSTEMS = {
    "MIMDet": "mimdet_mask_rcnn_fpn_sr_0p5_toy",
    "Benchmarking-ViT": "benchmarking_mask_rcnn_toy",
    "ViTDet": "vitdet_mask_rcnn_toy",
    "ViTDet, Cascade": "vitdet_cascade_mask_rcnn_toy",
    "ViTAE-B": "vitae_b_mask_rcnn_toy",
    "ViTAE-S": "vitae_s_mask_rcnn_toy",
    "MPViT-T": "mask_rcnn_mpvit_tiny_toy",
    "MPViT-T, RetinaNet": "retinanet_mpvit_tiny_toy",
    "Swin": "mask_rcnn_swin_scp_toy",
}
_SIDE = 128
_BATCHES = (2, 8)
# Names of the parts that look at the maps of the backbone.
_HEADS = ("proposal_generator", "roi_heads", "head")
_HEADER = """\
| step of toy detector | CPU ms, 2 images | waits, 2 / 8 images | operators of backbone | of heads \
| others, backward pass | kept, 2 images |
|---|---:|---:|---:|---:|---:|---:|"""


def sample() -> dict[str, Any]:
    """A random image with two objects, as a mapper gives it."""
    corners = torch.tensor([[5.0, 8.0, 70.0, 60.0], [40.0, 30.0, 120.0, 110.0]])
    polygons = [[box[[0, 1, 2, 1, 2, 3, 0, 3]].numpy()] for box in corners]
    instances = Instances(
        (_SIDE, _SIDE),
        gt_boxes=Boxes(corners),
        gt_classes=torch.tensor([0, 2]),
        gt_masks=PolygonMasks(polygons),
    )
    image = torch.randint(256, (3, _SIDE, _SIDE), dtype=torch.uint8)
    return {"image": image, "instances": instances}


def step(model: nn.Module, batch: list[dict[str, Any]]) -> None:
    """One forward and backward pass."""
    with EventStorage():
        losses = model(batch)
        sum(losses.values()).backward()


def launches(cfg: DictConfig, batch_size: int) -> Launches:
    """Operators and waits of one step, those of backbone and heads by the names of these."""
    torch.manual_seed(0)
    model = instantiate(cfg.model).train()
    batch = [sample() for _ in range(batch_size)]
    parts = {n: m for n, m in model.named_children() if n in ("backbone", *_HEADS)}
    with as_on_a_gpu(), Launches(**parts) as counted:
        step(model, batch)
    return counted


def cpu_ms(cfg: DictConfig, batch_size: int, repeats: int) -> float:
    """Median CPU milliseconds of a step, after one that does not count."""
    torch.manual_seed(0)
    model = instantiate(cfg.model).train()
    times = []
    for _ in range(repeats + 1):
        batch = [sample() for _ in range(batch_size)]
        start = time.process_time()
        step(model, batch)
        times.append(time.process_time() - start)
    return 1000 * statistics.median(times[1:])


def _row(name: str, cfg: DictConfig, repeats: int) -> str:
    """A row of the table."""
    few, many = (launches(cfg, size) for size in _BATCHES)
    heads = sum(few.operators[name] for name in _HEADS)
    kept = sum(kept_bytes(cfg.model, _BATCHES[0], (_SIDE, _SIDE), amp=False))
    cells = (
        name,
        f"{cpu_ms(cfg, _BATCHES[0], repeats):.0f}",
        f"{few.waits.total()} / {many.waits.total()}",
        few.operators["backbone"],
        heads,
        few.operators[""],
        f"{kept / 2**20:.0f} MiB",
    )
    return f"| {' | '.join(map(str, cells))} |"


def table(repeats: int) -> str:
    """The table of all systems.

    Args:
        repeats: measured steps of each.
    """
    rows = [
        _row(name, load_config(f"toy/{config}", []), repeats) for name, config in SYSTEMS.items()
    ]
    return "\n".join([_HEADER, *rows])
