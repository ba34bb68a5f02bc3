"""A segmentation of any tool -> polygons or compressed RLE that C code can be given."""

import itertools
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as mask_util

from mimdet.data.coco import problems
from mimdet.data.coco.problems import Kind

# Limits of one object. The largest of COCO has 1,600 points and 160 parts; from a million points
# on, rasterising takes seconds for every image and crop.
MAX_POINTS = 100_000
MAX_PARTS = 10_000

_NUMBERS = {int, float}


class Segmentation(NamedTuple):
    """What an object's segmentation is, after reading.

    Attributes:
        value: polygons (lists x0, y0, x1, y1, ...), a compressed RLE, or None if there is none.
        bounds: (x0, y0, x1, y1) around it; None without a value.
        kinds: problems that were found; a refused one leaves `value` None.
    """

    value: list[list[float]] | dict[str, Any] | None
    bounds: tuple[float, float, float, float] | None = None
    kinds: tuple[Kind, ...] = ()


def read_segmentation(value: Any, height: int, width: int, far: float) -> Segmentation:
    """Read the segmentation of one object.

    Args:
        value: any JSON value.
        height: of its image, in pixels.
        width: of its image.
        far: coordinates beyond this are refused, as rasterising reserves memory for the way there.
    """
    if value is None or value == [] or value == {}:
        return Segmentation(None)
    if isinstance(value, dict):
        return _read_rle(value, height, width)
    if not isinstance(value, list):
        return Segmentation(None, kinds=(problems.SEGMENTATION,))
    first = value[0]
    if isinstance(first, dict):
        return _merge_rles(value, height, width)
    if len(value) > MAX_PARTS and isinstance(first, list):
        return Segmentation(None, kinds=(problems.TOO_LARGE,))
    kinds: tuple[Kind, ...] = ()
    if not _are_polygons(value):
        value, kinds = _as_polygons(value)
        if value is None:
            return Segmentation(None, kinds=(problems.SEGMENTATION,))
    return _read_polygons(value, far, kinds)


def _are_polygons(value: list[Any]) -> bool:
    """Whether a segmentation is what nearly all are: lists of plain numbers, and no points."""
    for part in value:
        if type(part) is not list or len(part) == 2 or not {*map(type, part)} <= _NUMBERS:
            return False
    return True


def _as_polygons(value: list[Any]) -> tuple[list[list[float]] | None, tuple[Kind, ...]]:
    """Flat polygons of numbers, from COCO's form or from the forms that other tools write."""
    kinds: tuple[Kind, ...] = ()
    if not isinstance(value[0], list):  # one polygon, x0, y0, x1, ...
        value, kinds = [value], (problems.SEGMENTATION_FLAT,)
    elif all(_is_point(part) for part in value):  # one polygon of points
        value, kinds = [[*itertools.chain(*value)]], (problems.SEGMENTATION_POINTS,)
    elif any(isinstance(part, list) and part and isinstance(part[0], list) for part in value):
        if not all(isinstance(part, list) and all(map(_is_point, part)) for part in value):
            return None, ()
        value = [[*itertools.chain(*part)] for part in value]
        kinds = (problems.SEGMENTATION_POINTS,)
    numbers = []
    for part in value:
        if not isinstance(part, list):
            return None, ()
        if not {*map(type, part)} <= _NUMBERS:
            part = as_numbers(part)
            if part is None:
                return None, ()
            kinds = (*kinds, problems.NUMBERS_TEXT)
        numbers.append(part)
    return numbers, tuple(dict.fromkeys(kinds))


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and as_numbers(value) is not None


def as_numbers(values: list[Any]) -> list[float] | None:
    """Numbers, also those written as text; None if there is anything else among the values."""
    if {*map(type, values)} <= _NUMBERS:
        return values
    try:
        numbers = [float(v) if type(v) is str else v for v in values]
    except ValueError:
        return None
    return numbers if all(type(v) in _NUMBERS and abs(v) < np.inf for v in numbers) else None


def _read_polygons(
    polygons: list[list[float]], far: float, kinds: tuple[Kind, ...]
) -> Segmentation:
    whole = [p for p in polygons if len(p) % 2 == 0 and _has_area(p)]
    if not whole:
        return Segmentation(None, kinds=(problems.POLYGON_NONE,))
    if len(whole) < len(polygons):
        kinds = (*kinds, problems.POLYGON_PARTS)
    coordinates = whole[0] if len(whole) == 1 else [*itertools.chain(*whole)]
    if len(coordinates) > 2 * MAX_POINTS:
        return Segmentation(None, kinds=(problems.TOO_LARGE,))
    xs, ys = coordinates[::2], coordinates[1::2]
    bounds = (min(xs), min(ys), max(xs), max(ys))
    if bounds[0] < -far or bounds[1] < -far or bounds[2] > far or bounds[3] > far:
        return Segmentation(None, kinds=(problems.TOO_FAR,))
    return Segmentation(whole, bounds, kinds)


def _has_area(polygon: list[float]) -> bool:
    """Whether there is anything inside; of five points or more that is taken for granted."""
    if not 6 <= len(polygon) <= 8:
        return len(polygon) > 8
    x, y, *others = polygon
    first, *rest = ((a - x, b - y) for a, b in zip(others[::2], others[1::2], strict=True))
    area = 0
    for point in rest:  # triangles from the first corner; twice their areas
        area += first[0] * point[1] - first[1] * point[0]
        first = point
    return area != 0


def _read_rle(rle: dict[str, Any], height: int, width: int) -> Segmentation:
    size, runs = rle.get("size"), _run_lengths(rle.get("counts"))
    if not isinstance(size, list) or len(size) != 2 or runs is None:
        return Segmentation(None, kinds=(problems.RLE,))
    if size != [height, width]:
        return Segmentation(None, kinds=(problems.RLE_SIZE,))
    if runs.min(initial=0) < 0 or runs.sum() != height * width:
        return Segmentation(None, kinds=(problems.RLE,))
    counts = rle["counts"]
    if isinstance(counts, list):
        compressed = mask_util.frPyObjects({"size": size, "counts": runs.tolist()}, height, width)
    else:
        compressed = {"size": size, "counts": counts.encode()}
    if not runs[1::2].sum():  # no pixel is on
        return Segmentation(None, kinds=(problems.POLYGON_NONE,))
    x, y, w, h = mask_util.toBbox(compressed).tolist()
    return Segmentation(compressed, (x, y, x + w, y + h))


def _merge_rles(parts: list[Any], height: int, width: int) -> Segmentation:
    if len(parts) > MAX_PARTS:
        return Segmentation(None, kinds=(problems.TOO_LARGE,))
    if not all(isinstance(part, dict) and "counts" in part for part in parts):
        return Segmentation(None, kinds=(problems.SEGMENTATION,))
    read = [_read_rle(part, height, width) for part in parts]
    if broken := [part.kinds for part in read if part.value is None]:
        return Segmentation(None, kinds=broken[0])
    merged = mask_util.merge([part.value for part in read])
    x, y, w, h = mask_util.toBbox(merged).tolist()
    return Segmentation(merged, (x, y, x + w, y + h), (problems.SEGMENTATION_RLES,))


def _run_lengths(counts: Any) -> np.ndarray | None:
    """Numbers of pixels off, on, off, ... from COCO's text form or from a list; None if neither.

    The text has five bits per character, the lowest first; bit 5 says that more follow, bit 4 of
    the last is the sign. From the fourth number on it is the difference to the last but one.
    """
    if isinstance(counts, list):
        if not all(type(c) is int and 0 <= c < 2**32 for c in counts):
            return None
        return np.array(counts, dtype=np.int64)
    if not isinstance(counts, str) or not counts or not counts.isascii():
        return None
    bits = np.frombuffer(counts.encode(), dtype=np.uint8).astype(np.int64) - ord("0")
    is_last = (bits & 32) == 0
    if bits.min() < 0 or bits.max() > 63 or not is_last[-1]:
        return None
    ends = np.flatnonzero(is_last) + 1
    starts = np.concatenate([[0], ends[:-1]])
    length = ends - starts
    if length.max() > 7:  # 35 bits: no run of an image is longer
        return None
    shift = 5 * (np.arange(len(bits)) - np.repeat(starts, length))
    numbers = np.add.reduceat((bits & 31) << shift, starts)
    numbers -= np.where(bits[ends - 1] & 16, np.int64(1) << (5 * length), 0)
    # Differences are to the number two places before, so odd and even places are two chains. The
    # chain of the even ones begins at place 2: place 0 stands for itself.
    numbers[1::2] = numbers[1::2].cumsum()
    numbers[2::2] = numbers[2::2].cumsum()
    return numbers
