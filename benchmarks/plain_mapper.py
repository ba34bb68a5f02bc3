"""A training mapper written plainly from the contract of Detectron2's `DatasetMapper`.

It is what `benchmarks.mapper` compares with, as upstream Detectron2 cannot be had everywhere: the
entry is copied deeply, each resizing goes from an array to Pillow and back, each annotation through
all transforms on its own. Random numbers are drawn by the same augmentations.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from fvcore.transforms import transform as fvcore
from PIL import Image, ImageOps

from detectron2.data import transforms as T
from detectron2.structures import Boxes, BoxMode, Instances, PolygonMasks


class PlainMapper:
    """Entries with polygons -> images and `Instances`, for RGB and Pillow's filters.

    Args:
        augmentations: of a training.
    """

    def __init__(self, augmentations: Sequence[T.Augmentation]):
        self._augmentations = T.AugmentationList(augmentations)

    def __call__(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Map one entry with annotations; it is not changed."""
        entry = copy.deepcopy(entry)
        with open(entry["file_name"], "rb") as f:
            picture = Image.open(f)
            ImageOps.exif_transpose(picture, in_place=True)  # without a copy of an upright one
            image = np.asarray(picture.convert("RGB"))
        assert image.shape[:2] == (entry["height"], entry["width"])
        given = _Input(image)
        transforms = T.TransformList([_plain(t) for t in self._augmentations(given).transforms])
        image = given.image
        entry["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        annotations = [
            _transform(annotation, transforms, image.shape[:2])
            for annotation in entry.pop("annotations")
            if annotation["iscrowd"] == 0
        ]
        entry["instances"] = _instances(annotations, image.shape[:2])
        return entry


class _Input(T.AugInput):
    def transform(self, tfm: T.Transform) -> None:
        self.image = _plain(tfm).apply_image(self.image)


class _Resize(T.ResizeTransform):
    def apply_image(self, img: np.ndarray) -> np.ndarray:
        resized = Image.fromarray(img).resize((self.new_w, self.new_h), self.interp)
        return np.asarray(resized)


def _plain(tfm: T.Transform) -> T.Transform:
    if isinstance(tfm, T.ResizeTransform):
        return _Resize(tfm.h, tfm.w, tfm.new_h, tfm.new_w, tfm.interp)
    if isinstance(tfm, fvcore.CropTransform):
        return fvcore.CropTransform(tfm.x0, tfm.y0, tfm.w, tfm.h, tfm.orig_w, tfm.orig_h)
    return tfm


def _transform(
    annotation: dict[str, Any], transforms: T.Transform, size: tuple[int, int]
) -> dict[str, Any]:
    box = torch.tensor(annotation["bbox"])[None]
    box[:, 2:] += box[:, :2]  # XYWH_ABS
    box = transforms.apply_box(np.array(box.tolist()))[0].clip(min=0)
    annotation["bbox"] = np.minimum(box, [*size, *size][::-1])
    annotation["bbox_mode"] = BoxMode.XYXY_ABS
    polygons = [np.asarray(p).reshape(-1, 2) for p in annotation["segmentation"]]
    annotation["segmentation"] = [p.reshape(-1) for p in transforms.apply_polygons(polygons)]
    return annotation


def _instances(annotations: list[dict[str, Any]], size: tuple[int, int]) -> Instances:
    found = Instances(size)
    found.gt_boxes = Boxes(np.stack([annotation["bbox"] for annotation in annotations]))
    found.gt_classes = torch.tensor([a["category_id"] for a in annotations], dtype=torch.int64)
    found.gt_masks = PolygonMasks([annotation["segmentation"] for annotation in annotations])
    return found[found.gt_boxes.nonempty(threshold=1e-5) & found.gt_masks.nonempty()]
