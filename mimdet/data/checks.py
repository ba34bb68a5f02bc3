"""Finds all that is wrong with a dataset in COCO format, in one go."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detectron2.data.detection_utils import read_image

_REQUIRED_KEYS = {
    "images": {"id", "file_name", "height", "width"},
    "annotations": {"id", "image_id", "category_id", "bbox", "area", "iscrowd"},
    "categories": {"id", "name"},
}
_MARGIN = 1.0  # pixels that a box may reach out of its image; annotators' boxes are not exact


def check_coco_dataset(
    json_file: str | os.PathLike, image_root: str | os.PathLike, read_images: bool = True
) -> Iterator[str]:
    """List what would stop a training or evaluation on a dataset, or falsify it.

    Args:
        json_file: its annotations.
        image_root: the folder to which the image paths of `json_file` are relative.
        read_images: also decode each image and compare its size, which takes most of the time.

    Yields:
        One line per problem, which names the entry and, where it has one, the file.

    Raises:
        FileNotFoundError: if `json_file` or `image_root` does not exist.
    """
    if not os.path.isfile(json_file):
        raise FileNotFoundError(f"{json_file} must be an annotation file, and there is none")
    if not os.path.isdir(image_root):
        raise FileNotFoundError(f"{image_root} must be the folder of the images, and there is none")
    try:
        content = json.loads(Path(json_file).read_text(encoding="utf-8"))
    except ValueError as e:
        yield f"{json_file} is not valid JSON: {e}"
        return
    if not isinstance(content, dict):
        yield f"{json_file} must hold an object, it holds a {type(content).__name__}"
        return
    complete = {}
    for section in _REQUIRED_KEYS:
        complete[section] = yield from _complete_entries(content, section)
    images = {image["id"]: image if _has_size(image) else None for image in complete["images"]}
    if "images" in content and not content["images"]:
        yield "images is empty"
    yield from _listed_again(complete["images"], "file_name")
    categories = {category["id"] for category in complete["categories"]}
    for annotation in complete["annotations"]:
        image = images.get(annotation["image_id"])
        name = _name(annotation, image)
        if annotation["image_id"] not in images:
            yield f"{name} belongs to no image of the file"
        yield from (f"{name} {p}" for p in _annotation_problems(annotation, image, categories))
    for image in complete["images"]:
        path = Path(image_root, image["file_name"])
        yield from (f"image {image['id']} ({path}) {p}" for p in _file(path, image, read_images))


def _complete_entries(content: dict[str, Any], section: str) -> Iterator[str]:
    """Yield the problems of a section; the value of the generator is its usable entries."""
    entries = content.get(section)
    if not isinstance(entries, list):
        yield f"{section} must be a list, got {entries!r:.100}"
        return []
    complete = []
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            yield f"{section}[{position}] must be an object, got {entry!r:.100}"
        elif missing := _REQUIRED_KEYS[section] - entry.keys():
            keys = ", ".join(sorted(missing))
            yield f"{section}[{position}] (id {entry.get('id')!r}) has no {keys}"
        else:
            complete.append(entry)
    yield from (f"{section}: {problem}" for problem in _listed_again(complete, "id"))
    return complete


def _listed_again(entries: list[dict[str, Any]], key: str) -> Iterator[str]:
    seen: dict[Any, Any] = {}
    for entry in entries:
        if entry[key] in seen:
            yield f"{key} {entry[key]!r} of id {entry['id']!r} is that of id {seen[entry[key]]!r}"
        seen.setdefault(entry[key], entry["id"])


def _name(annotation: dict[str, Any], image: dict[str, Any] | None) -> str:
    file = "" if image is None else f" ({image['file_name']})"
    return f"annotation {annotation['id']} of image {annotation['image_id']}{file}"


def _annotation_problems(
    annotation: dict[str, Any], image: dict[str, Any] | None, categories: set[Any]
) -> Iterator[str]:
    if annotation["category_id"] not in categories:
        yield f"has category_id {annotation['category_id']!r}, which is not in categories"
    yield from _box_problems(annotation["bbox"], image)
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        yield from _rle_problems(segmentation, image)
    elif isinstance(segmentation, list):
        yield from _polygon_problems(segmentation)
    elif segmentation is not None:
        yield f"has a segmentation that is neither polygons nor RLE: {segmentation!r:.100}"


def _has_size(image: dict[str, Any]) -> bool:
    return all(isinstance(image[key], int) and image[key] > 0 for key in ("height", "width"))


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(v, int | float) and math.isfinite(v) for v in values
    )


def _box_problems(box: Any, image: dict[str, Any] | None) -> Iterator[str]:
    if not _are_numbers(box) or len(box) != 4:
        yield f"has a bbox that is not four finite numbers: {box!r:.100}"
        return
    x, y, width, height = box
    if width <= 0 or height <= 0:
        yield f"has a bbox without area: {box}"
    elif image is not None and (
        min(x, y) < -_MARGIN
        or x + width > image["width"] + _MARGIN
        or y + height > image["height"] + _MARGIN
    ):
        size = f"{image['width']} x {image['height']}"
        yield f"has a bbox that reaches out of the image of {size}: {box}"


def _polygon_problems(polygons: list[Any]) -> Iterator[str]:
    if not polygons:
        yield "has a segmentation without polygons"
    damaged = [p for p in polygons if not _are_numbers(p) or len(p) % 2 or len(p) < 6]
    if damaged:
        yield (
            f"has {len(damaged)} of {len(polygons)} polygons that are not flat lists of the finite "
            f"coordinates of at least three points, the first one is {damaged[0]!r:.100}"
        )


def _rle_problems(rle: dict[str, Any], image: dict[str, Any] | None) -> Iterator[str]:
    if not {"size", "counts"} <= rle.keys():
        yield f"has an RLE that needs size and counts, got {sorted(rle)}"
        return
    if not _are_numbers(rle["size"]) or not (
        isinstance(rle["counts"], str) or _are_numbers(rle["counts"])
    ):
        yield f"has an RLE that is not made of numbers: {rle!r:.100}"
        return
    if image is not None and list(rle["size"]) != [image["height"], image["width"]]:
        yield f"has an RLE of size {rle['size']}, not {[image['height'], image['width']]}"
    runs = _run_lengths(rle["counts"])
    if sum(runs) != math.prod(rle["size"]) or min(runs, default=0) < 0:
        yield f"has an RLE of size {rle['size']} whose run lengths sum to {sum(runs)}"


def _run_lengths(counts: list[int] | str) -> list[int]:
    """Numbers of pixels off, on, off, ... from COCO's text form, or from a list.

    The text has five bits per character, the lowest first; bit 5 says that more follow, bit 4 of
    the last is the sign. From the fourth number on it is the difference to the last but one.
    """
    if isinstance(counts, list):
        return counts
    runs: list[int] = []
    value = shift = 0
    for character in counts.encode():
        bits = character - ord("0")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def _file(path: Path, image: dict[str, Any], read: bool) -> Iterator[str]:
    if not _has_size(image):
        yield (
            "must have a height and width above 0 in pixels, got "
            f"{image['height']!r} and {image['width']!r}"
        )
    if not path.is_file():
        yield "does not exist"
        return
    if not read or not _has_size(image):
        return
    try:
        height, width = read_image(str(path), format="RGB").shape[:2]
    except Exception as e:  # decoders raise many types; all are listed
        yield f"cannot be read: {e}"
        return
    if (height, width) != (image["height"], image["width"]):
        yield (
            f"has height and width {(height, width)} (upright, by its EXIF orientation), not "
            f"{(image['height'], image['width'])}"
        )
