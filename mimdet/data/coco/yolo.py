"""Label files of YOLO -> annotations in COCO format.

An image has a text file of its name, beside it or in ``labels`` where the image is in ``images``.
Each line is an object: its class, then the centre, width and height of a box, or the corners of a
polygon, as shares of the image's width and height (docs.ultralytics.com/datasets/detect and
/segment). The classes are ``names`` of a YAML file such as data.yaml, or the lines of classes.txt.
An image without a text file has no objects.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mimdet.data.coco.image_files import upright_size
from mimdet.data.imagenet.folder import SUFFIXES
from mimdet.progress import progress
from mimdet.shown import shown
from mimdet.yaml_check import check_yaml

_CLASS_FILES = ("classes.txt", "obj.names")
_SLACK = 0.01  # by which a share may be below 0 or above 1: tools round


def labelled_images(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images that lie in a folder, and those of them that have a label file."""
    images = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES and p.is_file()]
    return images, [image for image in images if _label_file(image).is_file()]


def _label_file(image: Path) -> Path:
    beside = image.with_suffix(".txt")
    parts = list(beside.parts)
    if "images" in parts[:-1] and not beside.is_file():
        # The last "images" of the path, as Ultralytics does: an outer folder may have that name by
        # chance.
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def class_names(folders: Sequence[Path]) -> dict[int, str]:
    """Number -> name of the classes, from a file in one of `folders`.

    Raises:
        ValueError: if there is none, several differ, one cannot be read, or its labels are of
            keypoints.
    """
    found: dict[Path, dict[int, str]] = {}
    for path in (path for folder in folders for path in sorted(folder.iterdir())):
        is_yaml = path.suffix.lower() in (".yaml", ".yml") and path.is_file()
        if is_yaml and b"names" in path.read_bytes():
            check_yaml(str(path))
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and "names" in content:
                found[path] = _names(content, path)
        elif path.name in _CLASS_FILES:
            found[path] = dict(enumerate(path.read_text(encoding="utf-8-sig").split("\n")))
            found[path] = {k: n.strip() for k, n in found[path].items() if n.strip()}
    if not found:
        raise ValueError(
            f"{folders[0]} has label files of YOLO, and no file that names their classes; write "
            "them into classes.txt there, one a line, in the order of their numbers"
        )
    (first, names), *others = found.items()
    for path, other in others:
        if other != names:
            raise ValueError(
                f"{first} and {path} must name the same classes, and do not; move one away"
            )
    return names


def _names(content: dict[str, Any], path: Path) -> dict[int, str]:
    names = content["names"]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if "kpt_shape" in content:
        raise ValueError(f"{path} tells of keypoints, and detectors here learn boxes and masks")
    if not (isinstance(names, dict) and names and all(type(k) is int and k >= 0 for k in names)):
        raise ValueError(
            f"names in {path} must be a list, or numbers with names, got {shown(names)}"
        )
    return {number: str(name) for number, name in names.items()}


def to_coco(
    root: Path, images: Sequence[Path], names: dict[int, str]
) -> dict[str, list[dict[str, Any]]]:
    """The content of a COCO file; its image paths are relative to `root`.

    Args:
        root: of the dataset.
        images: to list, numbered from 1 in this order.
        names: of the classes, whose numbers stay.

    Raises:
        ValueError: if an image or a line of a label file cannot be read.
    """
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    content["categories"] = [{"id": number, "name": name} for number, name in names.items()]
    told = progress(images, len(images), "Reading labels", "image", leave=False)
    for number, image in enumerate(told, start=1):
        try:
            height, width = upright_size(str(image))
        except Exception as e:  # decoders raise many types
            raise ValueError(f"{shown(str(image))} cannot be read as an image: {e}") from e
        size = {"height": height, "width": width}
        content["images"].append({"id": number, "file_name": os.path.relpath(image, root), **size})
        for category, shape in _objects(_label_file(image), names):
            content["annotations"].append(
                {
                    **{"id": len(content["annotations"]) + 1, "image_id": number},
                    **{"category_id": category, "iscrowd": 0},
                    **_outline(shape * (width, height)),
                }
            )
    return content


def _objects(path: Path, names: dict[int, str]) -> Iterator[tuple[int, np.ndarray]]:
    """Class and points of each line: centre and size of a box (2, 2), or corners (N, 2)."""
    lines = path.read_text(errors="replace").split("\n") if path.is_file() else ()
    for place, words in enumerate(map(str.split, lines), start=1):
        if not words:
            continue
        try:
            # The class as a float too, as some tools write 0.0; in a dict 0.0 and 0 are one key.
            category, *shares = map(float, words)
        except ValueError:
            category, shares = -1.0, []
        is_box_or_polygon = len(shares) == 4 or (len(shares) >= 6 and len(shares) % 2 == 0)
        if not (is_box_or_polygon and all(-_SLACK <= x <= 1 + _SLACK for x in shares)):
            raise ValueError(
                f"{shown(str(path))}, line {place} must be a class with the centre, width and "
                "height of a box, or with the corners of a polygon, as shares from 0 to 1, got "
                f"{shown(' '.join(words), 80)}"
            )
        if category not in names:
            raise ValueError(
                f"{shown(str(path))}, line {place} must begin with the number of a class, one of "
                f"{shown(', '.join(map(str, names)), 80)}, got {shown(words[0], 20)}"
            )
        yield int(category), np.reshape(shares, (-1, 2))


def _outline(points: np.ndarray) -> dict[str, Any]:
    """What COCO says of an object, from points in pixels as `_objects` has them."""
    if len(points) == 2:
        centre, sides = points
        return {"bbox": _rounded([*(centre - sides / 2), *sides]), "area": float(sides.prod())}
    x, y = points.T
    low, high = points.min(axis=0), points.max(axis=0)
    return {
        "bbox": _rounded([*low, *(high - low)]),
        "area": float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2),
        "segmentation": [_rounded(points.ravel())],
    }


def _rounded(values: Sequence[float] | np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in values]  # 1/1000 of a pixel
