"""ROI pooling from all levels: image by image and level by level, and `ROIPooler`."""

import torch

from benchmarks.measure import Row, cpu_ms
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes

_STRIDES = 4, 8, 16, 32


def measure(repeats: int) -> list[Row]:
    """CPU time of a forward pass with many small, and with few large images."""
    return [
        _case(images=64, boxes=4, side=128, channels=16, repeats=repeats),
        _case(images=2, boxes=512, side=512, channels=32, repeats=repeats),
    ]


def _case(images: int, boxes: int, side: int, channels: int, repeats: int) -> Row:
    torch.manual_seed(0)
    features = [torch.rand(images, channels, side // s, side // s) for s in _STRIDES]
    corners = torch.rand(images, boxes, 2, 2).sort(dim=2).values.flatten(2) * side  # x0 y0 x1 y1
    box_lists = [Boxes(tensor) for tensor in corners]
    pooler = ROIPooler(7, [1 / s for s in _STRIDES], 0, "ROIAlignV2", canonical_box_size=side / 2)
    expected = _image_by_image(pooler, features, box_lists)
    torch.testing.assert_close(pooler(features, box_lists), expected)
    plain, ours = cpu_ms(
        lambda: _image_by_image(pooler, features, box_lists),
        lambda: pooler(features, box_lists),
        repeats,
    )
    what = f"ROI pooling, {images} x {boxes} boxes, {channels} channels: per image / all images"
    return Row(what, plain, ours, "ms")


def _image_by_image(
    pooler: ROIPooler, features: list[torch.Tensor], box_lists: list[Boxes]
) -> torch.Tensor:
    outputs = []
    for image, boxes in enumerate(box_lists):
        levels = assign_boxes_to_levels(
            [boxes], pooler.min_level, pooler.max_level, pooler.canonical_box_size, 4
        )
        output = features[0].new_zeros(len(boxes), features[0].shape[1], 7, 7)
        for level, (stride, feature) in enumerate(zip(_STRIDES, features, strict=True)):
            chosen = torch.nonzero(levels == level)[:, 0]
            rois = torch.cat([torch.zeros(len(chosen), 1), boxes.tensor[chosen]], dim=1)
            output[chosen] = ROIAlign(7, 1 / stride, 0)(feature[image : image + 1], rois)
        outputs.append(output)
    return torch.cat(outputs)
