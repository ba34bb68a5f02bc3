"""An image to its class map: the plain way, and the segmentor of sliding windows.

The plain way is written here from what mmsegmentation does: window by window, scores of all classes
at the size of the photo, their softmax, and the largest. The network is narrow, with the crop, the
strides and the 150 classes of ADE20K: it costs both the same, and would hide what they do besides.
"""

import statistics
import sys
import time
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import Row, in_new_process, peak_memory
from mimdet.modeling.backbone.beit import BEiTViT
from mimdet.modeling.segmentation.segmentor import SlidingWindowSegmentor
from mimdet.modeling.segmentation.sem_seg_heads import SemSegHeads
from mimdet.modeling.segmentation.upernet import UPerNetHead

_CLASSES, _CROP, _STRIDE = 150, 512, 341
# (height, width) of the photo, and of the network's input: the shorter side is 512.
_PHOTOS = {"683x512": ((683, 512), (683, 512)), "2000x2500": ((2000, 2500), (512, 640))}


def measure(repeats: int) -> list[Row]:
    """CPU time and peak memory of one image, each in a process of its own."""
    rows = []
    # A photo larger than the network's input is where windows and bands are to gain.
    for name, aim in (("683x512", 1), ("2000x2500", 2)):
        costs = {"plain": [], "ours": []}
        for _ in range(repeats):
            for way, measured in costs.items():
                measured.append(in_new_process("benchmarks.segmentation", way, name))
        # (milliseconds, MiB) of each way
        plain, ours = ([statistics.median(c) for c in zip(*m, strict=True)] for m in costs.values())
        what = f"class map of {name}, {_CLASSES} classes, narrow network"
        for k, (cost, unit) in enumerate((("time", "ms"), ("peak memory", "MiB"))):
            task = f"{what}, {cost}: window by window / sliding windows"
            rows.append(Row(task, plain[k], ours[k], unit, aim))
    return rows


@cache
def _model() -> SlidingWindowSegmentor:
    torch.manual_seed(0)
    backbone = BEiTViT(
        img_size=_CROP, embed_dim=48, depth=4, num_heads=2, out_indices=[0, 1, 2, 3], norm="BN"
    )
    heads = SemSegHeads(UPerNetHead([48] * 4, 48, _CLASSES, norm="BN"), None)
    return SlidingWindowSegmentor(
        backbone=backbone,
        sem_seg_head=heads,
        pixel_mean=(123.675, 116.28, 103.53),
        pixel_std=(58.395, 57.12, 57.375),
        crop_size=_CROP,
        crop_stride=_STRIDE,
    ).eval()


def _image(name: str) -> Tensor:
    _, size = _PHOTOS[name]
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 12, 16, generator=generator) * 255
    return F.interpolate(coarse, size, mode="bilinear")[0]


@torch.no_grad()
def _ours(name: str) -> Tensor:
    (height, width), _ = _PHOTOS[name]
    given = {"image": _image(name), "height": height, "width": width}
    return _model()([given])[0]["sem_seg"]


@torch.no_grad()
def _plain(name: str) -> Tensor:
    model, (size, _) = _model(), _PHOTOS[name]
    image = ((_image(name) - model.pixel_mean) / model.pixel_std)[None]
    height, width = image.shape[2:]
    total = image.new_zeros(1, _CLASSES, height, width)
    count = image.new_zeros(1, 1, height, width)
    for row in range(max(height - _CROP + _STRIDE - 1, 0) // _STRIDE + 1):
        for column in range(max(width - _CROP + _STRIDE - 1, 0) // _STRIDE + 1):
            y, x = min(row * _STRIDE, height - _CROP), min(column * _STRIDE, width - _CROP)
            place = (..., slice(y, y + _CROP), slice(x, x + _CROP))
            scores, _ = model.sem_seg_head(model.backbone(image[place]), None)
            total[place] += F.interpolate(scores, (_CROP, _CROP), mode="bilinear")
            count[place] += 1
    scores = F.interpolate(total / count, size, mode="bilinear")
    return scores.softmax(dim=1).argmax(dim=1)[0].int()


if __name__ == "__main__":
    torch.set_num_threads(1)
    _way, _name = sys.argv[1:]
    _run = {"plain": _plain, "ours": _ours}[_way]
    with torch.no_grad():
        _model().backbone(torch.zeros(1, 3, _CROP, _CROP))  # caches and lazy imports
    _start = time.process_time()
    _peak = peak_memory(lambda: _run(_name))
    print(1000 * (time.process_time() - _start), _peak)
