"""Predicted masks to rows of a COCO result list: the plain way, and what configs do by default.

The plain way is written here from the contract of Detectron2's API: each mask is sampled around its
box and thresholded into a bitmap of the image, then each bitmap is encoded by pycocotools.
"""

import sys

import numpy as np
import pycocotools.mask as mask_util
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import Row, cpu_ms, in_new_process, peak_memory
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.modeling import detector_postprocess
from detectron2.structures import Boxes, Instances

_SIZE = 800, 1333
_MASKS = 100


def measure(repeats: int) -> list[Row]:
    """CPU time and peak memory from the detector's output to the rows of one image."""
    detections = _detections()
    assert _plain(detections) == _rows(detections, True) == _rows(detections, False)
    rows = []
    what = f"{_MASKS} masks at {_SIZE[0]}x{_SIZE[1]} to rows"
    for paste_masks, setting, aim in (
        (False, "default of the configs (model.paste_masks=False)", 5),
        (True, "model.paste_masks=True", 1),
    ):
        way = "bitmaps" if paste_masks else "regions"
        times = cpu_ms(
            lambda: _plain(detections), lambda paste=paste_masks: _rows(detections, paste), repeats
        )
        rows.append(Row(f"{what}, time: bitmap by bitmap / {setting}", *times, "ms", aim))
        peaks = [in_new_process("benchmarks.masks", name)[0] for name in ("plain", way)]
        rows.append(Row(f"{what}, peak memory: bitmap by bitmap / {setting}", *peaks, "MiB"))
    return rows


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


def _rows(detections: Instances, paste_masks: bool) -> list[dict]:
    return instances_to_coco_json(
        detector_postprocess(detections, *_SIZE, paste_masks=paste_masks), 1
    )


def _plain(detections: Instances) -> list[dict]:
    boxes, masks = detections.pred_boxes.tensor, detections.pred_masks[:, 0]
    xywh = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
    bitmaps = torch.zeros(len(boxes), *_SIZE, dtype=torch.bool)
    for bitmap, mask, box in zip(bitmaps, masks, boxes, strict=True):
        _paste(bitmap, mask, box)
    rows = []
    for bitmap, box, k, score in zip(
        bitmaps, xywh, detections.pred_classes, detections.scores, strict=True
    ):
        # The quickest of numpy's ways: half the time of a cast and a transposition in one.
        fortran = np.array(bitmap.numpy().astype(np.uint8)[:, :, None], order="F")
        rle = mask_util.encode(fortran)[0]
        rle["counts"] = rle["counts"].decode()
        row = {"image_id": 1, "category_id": k.item(), "score": score.item(), "segmentation": rle}
        rows.append({**row, "bbox": box.tolist()})
    return rows


def _paste(bitmap: Tensor, mask: Tensor, box: Tensor) -> None:
    """Sample the (M, M) `mask` at the pixels of its `box` and one around it, from 0.5 on."""
    height, width = bitmap.shape
    x0, y0 = ((box[:2].floor() - 1).clamp(min=0)).int().tolist()
    x1, y1 = (box[2:].ceil() + 1).int().tolist()
    x1, y1 = min(x1, width), min(y1, height)
    x = (torch.arange(x0, x1) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (torch.arange(y0, y1) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (h, w, 2)
    probability = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]
    bitmap[y0:y1, x0:x1] = probability >= 0.5


def _peak_memory(way: str) -> float:
    """MiB by which the memory of this process grows at most (Linux)."""
    encode = {
        "plain": _plain,
        "bitmaps": lambda detections: _rows(detections, True),
        "regions": lambda detections: _rows(detections, False),
    }[way]
    detections = _detections()
    encode(detections[:1])  # what the libraries allocate once
    return peak_memory(lambda: encode(detections))


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(_peak_memory(sys.argv[1]))
