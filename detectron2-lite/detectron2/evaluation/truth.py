"""Which annotations can be scored: found out before inference, and told by annotation and file."""

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from faster_coco_eval.core.mask import decode as checked_decode

from detectron2.data.datasets.coco_file import is_polygon
from detectron2.structures.masks import is_too_far


def scorable_annotations(
    content: dict[str, Any], json_file: str | os.PathLike, tasks: Sequence[str]
) -> list[dict[str, Any]]:
    """The annotations that detections are scored against.

    They are numbered from 1: the scoring engine takes the id 0 for "nothing was found", and two
    annotations of one id for the same one. Annotations of images that are not in the file are left
    out, and so are polygons of less than three points, as in training.

    Args:
        content: of an annotation file; its annotations are changed.
        json_file: for messages.
        tasks: of "bbox" and "segm". What a task does not use is not looked at.

    Raises:
        ValueError: an annotation has a value that cannot be scored.
    """
    sizes = {image["id"]: [image["height"], image["width"]] for image in content["images"]}
    categories = {category["id"] for category in content.get("categories", [])}
    known = [a for a in content.get("annotations", []) if a["image_id"] in sizes]
    for number, annotation in enumerate(known, start=1):
        faults = [_category(annotation, categories) if categories else None, _crowd(annotation)]
        faults.append(_area(annotation))
        if "bbox" in tasks:
            faults.append(_box(annotation))
        if "segm" in tasks:
            faults.append(_segmentation(annotation, sizes[annotation["image_id"]]))
        if fault := next(filter(None, faults), None):
            raise ValueError(f"{name_of(annotation, json_file)} cannot be scored: {fault}")
        # For messages, which are to name it as the file does.
        annotation["file_id"] = annotation.get("id")
        annotation["id"] = number
    return known


def name_of(annotation: dict[str, Any], json_file: str | os.PathLike) -> str:
    """An annotation as messages call it, by the id it has in its file."""
    number = annotation.get("file_id", annotation.get("id"))
    return f"annotation {number!r:.40} of image {annotation['image_id']!r} in {json_file}"


def has_mask(annotation: dict[str, Any]) -> bool:
    """Whether there is a segmentation to be scored."""
    return bool(annotation.get("segmentation"))


def _category(annotation: dict[str, Any], categories: set[Any]) -> str | None:
    if annotation["category_id"] in categories:
        return None
    some = sorted(categories, key=repr)[:5]
    return f"its category_id {annotation['category_id']!r} is not in categories (such as {some})"


def _crowd(annotation: dict[str, Any]) -> str | None:
    crowd = annotation.get("iscrowd", 0)
    if _are_numbers([crowd]) and crowd in (0, 1):
        return None
    return f"iscrowd must be 0 or 1, got {crowd!r:.60}"


def _area(annotation: dict[str, Any]) -> str | None:
    area = annotation["area"]
    if _are_numbers([area]) and 0 <= area < math.inf:
        return None
    return f"area must be a number of pixels from 0, got {area!r:.60}"


def _box(annotation: dict[str, Any]) -> str | None:
    box = annotation.get("bbox")
    if isinstance(box, list) and len(box) == 4 and _are_numbers(box) and np.isfinite(box).all():
        return None if min(box[2:]) >= 0 else f"its bbox has a negative width or height: {box}"
    return f"bbox must be four finite numbers [x, y, width, height], got {box!r:.60}"


def _segmentation(annotation: dict[str, Any], size: list[int]) -> str | None:
    """What is wrong with a segmentation; polygons are reduced to those that count."""
    segmentation = annotation.get("segmentation")
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        return _run_lengths(segmentation, size)
    if not isinstance(segmentation, list):
        return f"segmentation must be a list of polygons or run lengths, got {segmentation!r:.60}"
    polygons = [part for part in segmentation if is_polygon(part)]
    for polygon in polygons:
        if not _are_numbers(polygon):
            return f"a polygon has something else than numbers: {polygon!r:.60}"
        if is_too_far(np.asarray(polygon, dtype=np.float64)):
            low, high = min(polygon), max(polygon)
            return f"a polygon reaches from {low:g} to {high:g}, too far to be rasterised"
    annotation["segmentation"] = polygons
    return None


def _run_lengths(rle: dict[str, Any], size: list[int]) -> str | None:
    if rle.get("size") != size:
        return f"its run lengths are of size {rle.get('size')!r:.60}, the image of {size}"
    counts = rle.get("counts")
    try:
        if isinstance(counts, list):
            if not all(type(count) is int and count >= 0 for count in counts):
                return "its run lengths are not all whole numbers from 0"
            total = sum(counts)
            return None if total == math.prod(size) else f"its run lengths sum to {total} pixels"
        # That of pycocotools would take runs that are too few and show what lies in memory.
        checked_decode({"size": size, "counts": counts.encode()})
    except (AttributeError, RuntimeError, ValueError) as e:
        return f"its run lengths are damaged: {e}"
    return None


def _are_numbers(values: Iterable[Any]) -> bool:
    return {type(value) for value in values} <= {int, float, bool}
