"""COCO truth and a list of results -> arrays; the start of everything a report says of detections.

Only numpy and pycocotools are used: a report can be made where there is neither torch nor
Detectron2.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_util

TASKS = ("bbox", "segm")


@dataclass(frozen=True)
class Image:
    """An image of the truth: its id, its file, and height and width in pixels."""

    id: Any
    file_name: str
    height: int
    width: int


@dataclass(frozen=True)
class Truth:
    """G objects of the truth, image by image.

    Attributes:
        image: (G,) place of its image in `Evaluated.images`.
        category: (G,) place of its class in `Evaluated.categories`.
        box: (G, 4) XYXY in pixels.
        area: (G,) in square pixels, as annotated.
        is_crowd: (G,) bool, True for regions in which detections are not judged.
    """

    image: np.ndarray
    category: np.ndarray
    box: np.ndarray
    area: np.ndarray
    is_crowd: np.ndarray


@dataclass(frozen=True)
class Found:
    """D detections, image by image, in each image by falling score.

    Attributes:
        image, category, box: as those of `Truth`.
        area: (D,) of the box or of the mask, by the task.
        score: (D,)
    """

    image: np.ndarray
    category: np.ndarray
    box: np.ndarray
    area: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class Evaluated:
    """Detections and what they are to be judged by.

    Attributes:
        images: in the order of their ids.
        categories: names of the classes, in the order of their category ids.
        truth, found: the objects and the detections.
        overlaps: for each image (d, g), the IoU of each detection with each object of any class;
            with a crowd region the share of the detection that lies in it.
    """

    images: list[Image]
    categories: list[str]
    truth: Truth
    found: Found
    overlaps: list[np.ndarray]


def read_detections(
    truth: str | os.PathLike | Mapping[str, Any],
    results: str | os.PathLike | Sequence[Mapping[str, Any]],
    task: str = "bbox",
) -> Evaluated:
    """Read a COCO annotation file and a COCO result list.

    Args:
        truth: the file that the detections were scored against, or its content. An annotation
            without an area has that of its box.
        results: the file of the detections (``coco_instances_results.json``), or its content.
        task: "bbox" to judge boxes, "segm" to judge masks.

    Raises:
        FileNotFoundError: one of the files does not exist.
        ValueError: one is no such file; a detection is of an image or category that the truth does
            not have; masks are to be judged and something has none; or the task is another word.
    """
    if task not in TASKS:
        raise ValueError(f"the task must be one of {TASKS}, got {task!r}")
    content, where = read_part(truth, dict, "the truth")
    detections, whence = read_part(results, list, "the detections")
    images = _by_id(content, "images", where)
    categories = _by_id(content, "categories", where)
    objects = _sorted_by_image(content.get("annotations", []), images, categories, where)
    # Stable: detections of one score stay in the order of the file, as in COCO's own evaluation.
    detections = sorted(detections, key=lambda detection: -detection["score"])
    detections = _sorted_by_image(detections, images, categories, whence)
    numbers = {entry: number for number, entry in enumerate(images)}
    classes = {entry: number for number, entry in enumerate(categories)}

    def columns(entries: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        corner_and_size = np.array([e["bbox"] for e in entries], float).reshape(-1, 4)
        return (
            np.array([numbers[e["image_id"]] for e in entries], int),
            np.array([classes[e["category_id"]] for e in entries], int),
            corner_and_size,
        )

    image, category, box = columns(objects)
    area = [a.get("area", a["bbox"][2] * a["bbox"][3]) for a in objects]
    is_crowd = np.array([bool(a.get("iscrowd", 0)) for a in objects], bool)
    objects_of = Truth(image, category, _xyxy(box), np.array(area, float), is_crowd)

    found_image, found_category, found_box = columns(detections)
    if task == "segm":
        truth_shapes: Any = _run_lengths(objects, images, where)
        found_shapes: Any = _run_lengths(detections, images, whence)
        found_area = [mask_util.area(shape) for shape in found_shapes]
    else:
        truth_shapes, found_shapes = box, found_box
        found_area = found_box[:, 2] * found_box[:, 3]
    score = np.array([d["score"] for d in detections], float)
    found = Found(found_image, found_category, _xyxy(found_box), np.array(found_area, float), score)
    return Evaluated(
        images=[
            Image(i, e.get("file_name", str(i)), e.get("height", 0), e.get("width", 0))
            for i, e in images.items()
        ],
        categories=[str(entry.get("name", i)) for i, entry in categories.items()],
        truth=objects_of,
        found=found,
        overlaps=[
            _overlaps(found_shapes[rows], truth_shapes[columns], is_crowd[columns])
            for rows, columns in image_slices(len(images), found, objects_of)
        ],
    )


def image_slices(count: int, found: Found, truth: Truth) -> list[tuple[slice, slice]]:
    """For each of `count` images where its detections and its objects lie in their arrays."""
    edges = np.arange(count + 1)
    d, g = np.searchsorted(found.image, edges), np.searchsorted(truth.image, edges)
    return [(slice(d[i], d[i + 1]), slice(g[i], g[i + 1])) for i in range(count)]


def read_part(source: Any, kind: type, what: str) -> tuple[Any, str]:
    """The content of a file, or the content that was given, and its name for messages.

    Args:
        source: the path of a file, or content.
        kind: dict or list, what the file must hold.
        what: it is, for messages.

    Raises:
        FileNotFoundError, ValueError: see `read_detections`.
    """
    if not isinstance(source, str | os.PathLike):
        return source, what
    try:
        content = json.loads(Path(source).read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise FileNotFoundError(f"{what} must be in {source}, and there is no such file") from e
    except ValueError as e:
        raise ValueError(f"{what} must be JSON, and {source} is not: {e}") from e
    if not isinstance(content, kind):
        raise ValueError(
            f"{what} must be a {kind.__name__} in JSON, and {source} is a {type(content).__name__}"
        )
    return content, str(source)


def _by_id(content: Mapping[str, Any], section: str, where: str) -> dict[Any, Mapping[str, Any]]:
    entries = content.get(section)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"a COCO file must list its {section}, and {where} has none")
    return dict(sorted((entry["id"], entry) for entry in entries))


def _sorted_by_image(
    entries: Sequence[Mapping[str, Any]], images: Mapping, categories: Mapping, where: str
) -> list[Mapping[str, Any]]:
    number = {entry: k for k, entry in enumerate(images)}
    for entry in entries:
        for key, known in (("image_id", images), ("category_id", categories)):
            if entry[key] not in known:
                raise ValueError(
                    f"each {key} of {where} must be one of the truth, and {entry[key]!r} is none: "
                    "is this the annotation file that the detections were scored against?"
                )
    return sorted(entries, key=lambda entry: number[entry["image_id"]])


def _xyxy(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _run_lengths(
    entries: Sequence[Mapping[str, Any]], images: Mapping, where: str
) -> list[dict[str, Any]]:
    """The masks as COCO's compressed run lengths."""
    masks = []
    for entry in entries:
        mask = entry.get("segmentation")
        if not mask:
            raise ValueError(
                f"to judge masks, each entry of {where} must have a segmentation, and one of image "
                f"{entry['image_id']!r} has none; judge boxes instead"
            )
        image = images[entry["image_id"]]
        if isinstance(mask, list):  # polygons; their union is the object
            mask = mask_util.merge(mask_util.frPyObjects(mask, image["height"], image["width"]))
        elif isinstance(mask["counts"], list):
            mask = mask_util.frPyObjects(mask, *mask["size"])
        masks.append(mask)
    return masks


def _overlaps(found: Any, truth: Any, is_crowd: np.ndarray) -> np.ndarray:
    # pycocotools gives an empty list where there is nothing on one side
    overlaps = mask_util.iou(found, truth, is_crowd.tolist())
    return np.asarray(overlaps, float).reshape(len(found), len(truth))
