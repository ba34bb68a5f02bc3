"""Predicted masks to COCO RLE: through bitmaps of the image, and straight from the regions."""

import sys

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measure import Row, cpu_ms, in_new_process, peak_memory
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.modeling import detector_postprocess
from detectron2.structures import Boxes, Instances

_SIZE = 800, 1333
_MASKS = 100


def measure(repeats: int) -> list[Row]:
    """CPU time and peak memory from the detector's output to result entries of one image."""
    detections = _detections()
    assert _encode(detections, True) == _encode(detections, False), "the two ways must agree"
    plain, ours = cpu_ms(
        lambda: _encode(detections, True), lambda: _encode(detections, False), repeats
    )
    (memory_plain,), (memory_ours,) = (
        in_new_process("benchmarks.masks", way) for way in ("bitmaps", "regions")
    )
    what = f"{_MASKS} masks at {_SIZE[0]}x{_SIZE[1]} to RLE: bitmaps / regions"
    return [
        Row(f"{what}, time", plain, ours, "ms", 5),
        Row(f"{what}, peak memory", memory_plain, memory_ours, "MiB", 10),
    ]


def _detections() -> Instances:
    """Blobs in boxes of 16 to 600 pixels, as many small as large ones."""
    random = np.random.RandomState(0)
    height, width = _SIZE
    sides = np.exp(random.uniform(np.log(16), np.log(600), (_MASKS, 2)))
    centres = random.uniform(0, 1, (_MASKS, 2)) * [width, height]
    boxes = Boxes(np.concatenate([centres - sides / 2, centres + sides / 2], axis=1))
    boxes.clip(_SIZE)
    line = torch.linspace(-1, 1, 28)
    radius = (line[:, None] ** 2 + line**2).sqrt()
    noise = torch.from_numpy(random.uniform(-0.5, 0.5, (_MASKS, 1, 5, 5))).float()
    wobble = F.interpolate(noise, (28, 28), mode="bicubic")
    return Instances(
        _SIZE,
        pred_boxes=boxes,
        scores=torch.linspace(1, 0, _MASKS),
        pred_classes=torch.zeros(_MASKS, dtype=torch.int64),
        pred_masks=torch.sigmoid(8 * (1 - radius + wobble)),  # (N, 1, 28, 28)
    )


def _encode(detections: Instances, paste_masks: bool) -> list[dict]:
    return instances_to_coco_json(
        detector_postprocess(detections, *_SIZE, paste_masks=paste_masks), 1
    )


def _peak_memory(paste_masks: bool) -> float:
    """MiB by which the memory of this process grows at most (Linux)."""
    detections = _detections()
    _encode(detections[:1], paste_masks)  # what the libraries allocate once
    return peak_memory(lambda: _encode(detections, paste_masks))


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(_peak_memory(sys.argv[1] == "bitmaps"))
