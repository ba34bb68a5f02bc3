"""One annotation of a COCO file -> Detectron2's form of it, or the reason why there is none."""

import os
from typing import Any

import pycocotools.mask as mask_util

from detectron2.structures import BoxMode
from mimdet.data.coco import problems as p
from mimdet.data.coco.problems import Problems, Severity
from mimdet.data.coco.segmentation import as_numbers, read_segmentation

_MARGIN = 1.0  # pixels that a box may reach out of its image; annotators' boxes are not exact
_FAR = 10.0  # sides of the image: a coordinate beyond has nothing to do with it

# A bounding box and the bounds of its polygons may differ by what rounding and loose annotation
# give; x and y swapped, or another object's polygon, differ by more.
_SAME_EDGE = 2.0  # pixels
_SAME_BOX = 0.7  # intersection over union

_NUMBERS = {int, float}
# By words, because any text but "" is true to Python, "0" and "false" too.
_CROWD = {0: 0, None: 0, "0": 0, "false": 0, "1": 1, "true": 1}  # True == 1 and False == 0


class AnnotationReader:
    """Reads one annotation; what it finds is counted with the name of annotation and image.

    Args:
        entry: the annotation as the file has it.
        image: the record of its image.
        problems: counts what is wrong.
    """

    def __init__(self, entry: dict[str, Any], image: dict[str, Any], problems: Problems):
        self.entry = entry
        self.height, self.width = image["height"], image["width"]
        self.image = image
        self.problems = problems

    def read(self) -> dict[str, Any] | None:
        """Detectron2's form of the annotation, without its category; None if it is left out."""
        entry = self.entry
        far = _FAR * max(self.height, self.width)
        segmentation = read_segmentation(entry.get("segmentation"), self.height, self.width, far)
        for kind in segmentation.kinds:
            self._found(kind, entry["segmentation"])
            if kind.severity in (Severity.REFUSED, Severity.DROPPED):
                return None
        box = self._box(segmentation.bounds, far)
        crowd = self._crowd()
        if box is None or crowd is None:
            return None
        if segmentation.bounds and not crowd and _disagree(box, segmentation.bounds):
            self._found(p.POLYGON_DISAGREES, f"bbox {box}, around it {segmentation.bounds}")
        annotation = {
            "id": entry.get("id"),
            "iscrowd": crowd,
            "bbox": box,
            "bbox_mode": BoxMode.XYWH_ABS,
            "area": self._area(box, segmentation.value),
        }
        if segmentation.value is not None:
            annotation["segmentation"] = segmentation.value
        return annotation

    def _found(self, kind: p.Kind, value: Any = "") -> None:
        # A file with one systematic mistake has it for each of a million annotations.
        if self.problems.is_full(kind):
            value = ""  # only counted: no text is made of a polygon that nobody will read
        file = os.path.basename(self.image["file_name"])
        name = f"annotation {self.entry.get('id')} of image {self.image['image_id']} ({file})"
        self.problems.add(kind, name, value)

    def _box(self, bounds: tuple | None, far: float) -> list[float] | None:
        box = self.entry.get("bbox")
        # Types and not `isinstance`: a bool is an int to Python, and no coordinate.
        if not (type(box) is list and len(box) == 4 and {*map(type, box)} <= _NUMBERS):
            box = self._repaired_box(box, bounds)
            if box is None:
                return None
        x, y, width, height = box
        if not (-far < x < far and -far < y < far and width < far and height < far):
            self._found(p.TOO_FAR, box)
        elif width <= 0 or height <= 0:
            self._found(p.BOX_EMPTY, box)
        elif x >= self.width or y >= self.height or x + width <= 0 or y + height <= 0:
            self._found(p.BOX_OUTSIDE, box)
        else:
            # Kept as it is: the mapper clips it, and COCO's scorer takes boxes as they are.
            right, bottom = x + width - self.width, y + height - self.height
            if max(-x, -y, right, bottom) > _MARGIN:
                self._found(p.BOX_REACHES_OUT, box)
            elif width < 1 and height < 1:
                self._found(p.BOX_TINY, box)
            return box
        return None

    def _repaired_box(self, box: Any, bounds: tuple | None) -> list[float] | None:
        numbers = as_numbers(box) if isinstance(box, list) and len(box) == 4 else None
        if numbers is not None:
            self._found(p.NUMBERS_TEXT, box)
            return numbers
        if bounds is not None:
            self._found(p.BOX_FROM_MASK, box)
            return [bounds[0], bounds[1], bounds[2] - bounds[0], bounds[3] - bounds[1]]
        self._found(p.BOX, box)
        return None

    def _crowd(self) -> int | None:
        value = self.entry.get("iscrowd", None)
        if type(value) is int and value in (0, 1):
            crowd = value
        else:
            crowd = self._crowd_in_other_words(value)
        ignored = self.entry.get("ignore")
        if crowd == 0 and ignored not in (None, 0, "0"):
            self._found(p.IGNORE, ignored)
            return 1
        return crowd

    def _crowd_in_other_words(self, value: Any) -> int | None:
        if isinstance(value, list | dict):
            self._found(p.CROWD_VALUE, value)
            return None
        word = value.strip().lower() if isinstance(value, str) else value
        crowd = _CROWD.get(word, 1 if isinstance(word, int | float) else None)
        self._found(p.CROWD_VALUE if crowd is None else p.CROWD, value)
        return crowd

    def _area(self, box: list[float], mask: Any) -> float:
        area = self.entry.get("area")
        if type(area) in _NUMBERS and 0 < area <= self.height * self.width * _FAR:
            return area
        self._found(p.AREA, area)
        if mask is None:
            return box[2] * box[3]
        if isinstance(mask, list):
            mask = mask_util.merge(mask_util.frPyObjects(mask, self.height, self.width))
        return float(mask_util.area(mask))


def _disagree(box: list[float], bounds: tuple[float, float, float, float]) -> bool:
    """Whether a box (x, y, width, height) is another one than the bounds of its segmentation."""
    x0, y0, x1, y1 = box[0], box[1], box[0] + box[2], box[1] + box[3]
    a, b, c, d = bounds
    if max(abs(x0 - a), abs(y0 - b), abs(x1 - c), abs(y1 - d)) <= _SAME_EDGE:
        return False
    overlap = max(min(x1, c) - max(x0, a), 0) * max(min(y1, d) - max(y0, b), 0)
    union = box[2] * box[3] + (c - a) * (d - b) - overlap
    return overlap < _SAME_BOX * union
