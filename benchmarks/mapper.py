"""The mapper of the MIMDet recipe at real sizes: Pillow's resizing and `fast_bilinear`."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks.measure import Row, cpu_ms
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

_HEIGHT, _WIDTH = 480, 640
_SCALES = (480, 512, 544, 576, 608, 640, 736, 768, 800)
_IMAGES = 12


def measure(repeats: int) -> list[Row]:
    """Milliseconds of CPU per training image, decoding and annotations included."""
    pillow, fast = (_mapper(interp) for interp in (Image.Resampling.BILINEAR, "fast_bilinear"))
    with tempfile.TemporaryDirectory() as folder:
        entries = [_entry(Path(folder), seed) for seed in range(_IMAGES)]
        seeds = {"pillow": 0, "fast": 0}

        def run(mapper: DatasetMapper, name: str) -> None:
            seeds[name] += 1
            np.random.seed(seeds[name])  # both ways draw the same augmentations
            for entry in entries:
                mapper(entry)

        plain, ours = cpu_ms(lambda: run(pillow, "pillow"), lambda: run(fast, "fast"), repeats)
    what = "mapper, MIMDet recipe, 640x480 JPEG, 8 polygons: Pillow / interp='fast_bilinear'"
    return [Row(what, plain / _IMAGES, ours / _IMAGES, "ms/image", 1.8)]


def _mapper(interp: int | str) -> DatasetMapper:
    detr = [
        T.ResizeShortestEdge((400, 500, 600), sample_style="choice", interp=interp),
        T.RandomCrop("absolute_range", (384, 600)),
    ]
    return DatasetMapper(
        is_train=True,
        augmentations=[
            T.RandomFlip(),
            T.RandomApply(T.AugmentationList(detr), prob=0.5),
            T.ResizeShortestEdge(_SCALES, max_size=1333, sample_style="choice", interp=interp),
        ],
        image_format="RGB",
        use_instance_mask=True,
        recompute_boxes=False,
    )


def _entry(folder: Path, seed: int) -> dict[str, Any]:
    """A dataset entry with a JPEG of about 130 kB, a usual size in COCO, and its annotations."""
    path = folder / f"{seed}.jpg"
    random = np.random.RandomState(seed)
    Image.fromarray(_picture(random)).save(path, quality=92)
    return {
        "file_name": str(path),
        "image_id": seed,
        "height": _HEIGHT,
        "width": _WIDTH,
        "annotations": [_annotation(random) for _ in range(8)],
    }


def _picture(random: np.random.RandomState) -> np.ndarray:
    """(480, 640, 3) uint8: noise of four scales, coarse ones stronger, as in photographs."""
    image = torch.full((3, _HEIGHT, _WIDTH), 120.0)
    for columns, strength in ((8, 60), (32, 35), (120, 20), (480, 11)):
        noise = torch.from_numpy(random.randn(1, 3, columns * 3 // 4, columns)).float()
        image += strength * F.interpolate(noise, (_HEIGHT, _WIDTH), mode="bicubic")[0]
    return image.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _annotation(random: np.random.RandomState) -> dict[str, Any]:
    """A wobbly ellipse of 30 points."""
    radius = random.uniform(20, 110, 2)
    centre = random.uniform(radius, [_WIDTH, _HEIGHT] - radius)
    angle = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    shape = np.stack([np.cos(angle), np.sin(angle)], axis=1) * random.uniform(0.7, 1, (30, 1))
    points = centre + radius * shape
    box = [*points.min(axis=0), *np.ptp(points, axis=0)]
    return {
        "bbox": box,
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 0,
        "iscrowd": 0,
        "segmentation": [points.reshape(-1).tolist()],
    }
