"""Reads and checks annotation files in COCO's format, each file once."""

import functools
import json
import logging
import os
from collections import defaultdict
from typing import Any

from detectron2.utils.file_io import PathManager

logger = logging.getLogger(__name__)

# An image also needs the key that tells where it is.
_REQUIRED_KEYS = {
    "images": {"id", "height", "width"},
    "annotations": {"image_id", "category_id"},
    "categories": {"id", "name"},
}

_ID_KEYS = {"id", "image_id", "category_id"}
_ID_TYPES = {int, str, float}

# Parsed annotations take about five times the memory of the file, 2 GB per process for
# instances_train2017.json. Two files let a run that is evaluated on its training set and a test set
# parse each once; the third one takes the place of the one that was used least recently.
_FILES_KEPT = 2


def read_coco_file(
    json_file: str | os.PathLike, image_path_key: str = "file_name"
) -> dict[str, Any]:
    """The checked content of an annotation file; not to be changed by the caller.

    The files read last are kept, and parsed again only after they changed on disk.

    Args:
        json_file: path that PathManager understands.
        image_path_key: the key that tells where an image is, which each image must have.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or images, annotations or categories are no list of objects.
        KeyError: an image, annotation or category lacks a key.
    """
    local_file = os.path.abspath(PathManager.get_local_path(os.fspath(json_file)))
    if not os.path.isfile(local_file):
        raise FileNotFoundError(
            f"annotation file {json_file} does not exist (looked for {local_file}). The built-in "
            "datasets are expected under the folder named by the environment variable "
            f"DETECTRON2_DATASETS, now {os.environ.get('DETECTRON2_DATASETS', 'datasets')!r}"
        )
    return _parse(local_file, os.stat(local_file).st_mtime_ns, image_path_key)


def own_entries(content: dict[str, Any]) -> dict[str, Any]:
    """A copy of a file's content whose entries may get, lose and replace keys.

    What lies deeper, such as a list of coordinates, is shared and must not be changed.

    Args:
        content: from `read_coco_file`.
    """
    return {
        key: [dict(entry) for entry in value] if key in _REQUIRED_KEYS else value
        for key, value in content.items()
    }


def index_by_image(
    content: dict[str, Any], json_file: str | os.PathLike
) -> tuple[dict[Any, dict], dict[Any, list[dict]]]:
    """The images of a file by id, and the annotations by image id, in the order of the file.

    Annotations of images that are not in the file are counted in a warning.

    Args:
        content: from `read_coco_file`.
        json_file: for messages.

    Raises:
        AssertionError: annotation ids repeat (unless "minival" is in the file name).
        ValueError: two different images have the same id.
    """
    images = _unique_images(content["images"], json_file)
    annotations = content.get("annotations", [])
    # Files of the 2014 "minival" split are published with repeated annotation ids.
    if "minival" not in os.path.basename(json_file):
        _check_annotation_ids(annotations, json_file)
    by_image = defaultdict(list)
    for annotation in annotations:
        by_image[annotation["image_id"]].append(annotation)
    valid = sum(len(by_image[image_id]) for image_id in images)
    if valid < len(annotations):
        logger.warning(
            "%s contains %d annotations, but only %d of them belong to an image in the file.",
            json_file,
            len(annotations),
            valid,
        )
    return images, by_image


def _unique_images(images: list[dict], json_file: str | os.PathLike) -> dict[Any, dict]:
    by_id: dict[Any, dict] = {}
    for image in images:
        first = by_id.setdefault(image["id"], image)
        if first is image:
            continue
        if first != image:
            raise ValueError(
                f"image ids must be unique, but {json_file} uses id {image['id']} for two "
                f"different images: {first} and {image}"
            )
        logger.warning("%s lists image %s again; it is used once.", json_file, image["id"])
    return by_id


def _check_annotation_ids(annotations: list[dict], json_file: str | os.PathLike) -> None:
    images: dict[Any, Any] = {}
    for annotation in annotations:
        if annotation.get("id") is None:
            continue
        assert annotation["id"] not in images, (
            f"annotation ids must be unique, but {json_file} uses id {annotation['id']} again: "
            f"in image {images[annotation['id']]} and in image {annotation['image_id']}"
        )
        images[annotation["id"]] = annotation["image_id"]


def sorted_ids(
    entries: list[dict[str, Any]], section: str, json_file: str | os.PathLike
) -> list[Any]:
    """The different ids of images or categories, ascending.

    Args:
        entries: a list of a file's content.
        section: its name, for messages.
        json_file: for messages.

    Raises:
        ValueError: numbers and text are mixed, which have no order.
    """
    ids = {entry["id"] for entry in entries}
    if not ({*map(type, ids)} <= {int, float} or {*map(type, ids)} <= {str}):
        some = {type(entry_id).__name__: entry_id for entry_id in ids}
        raise ValueError(
            f"the ids of {section} must be all numbers or all text, but {json_file} has "
            f"{list(some.values())}"
        )
    return sorted(ids)


def is_polygon(value: Any) -> bool:
    """Whether a value is a list x0, y0, x1, y1, ... of at least three points."""
    return isinstance(value, list) and len(value) % 2 == 0 and len(value) >= 6


@functools.lru_cache(maxsize=_FILES_KEPT)
def _parse(local_file: str, modified: int, image_path_key: str) -> dict[str, Any]:
    """Read and check a file; `modified` is the time of its content, for the cache."""
    try:
        with open(local_file, encoding="utf-8") as f:
            content = json.load(f)
    except ValueError as e:
        raise ValueError(
            f"annotation file {local_file} is not valid JSON ({e}); it may be cut short, fetch it "
            "again"
        ) from e
    if not isinstance(content, dict) or "images" not in content:
        found = sorted(content) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise ValueError(
            f"annotation file {local_file} must hold a JSON object with a list 'images', "
            f"got {found}"
        )
    required = _REQUIRED_KEYS | {"images": _REQUIRED_KEYS["images"] | {image_path_key}}
    for section, keys in required.items():
        _check_section(section, content.get(section, []), keys, local_file)
    return content


def _check_section(section: str, entries: Any, keys: set[str], local_file: str) -> None:
    if not isinstance(entries, list):
        raise ValueError(
            f"annotation file {local_file} must hold a JSON object with a list {section!r}, got "
            f"{entries!r:.100}"
        )
    for position, entry in enumerate(entries):
        where = f"{section}[{position}]"
        if not isinstance(entry, dict):
            raise ValueError(f"{where} in {local_file} must be an object, got {entry!r:.100}")
        if missing := keys - entry.keys():
            raise KeyError(
                f"{where} (id {entry.get('id')!r}) in {local_file} has no {min(missing)!r}; it has "
                f"{sorted(entry)}"
            )
        for key in _ID_KEYS & entry.keys():
            nothing = section == "annotations" and key == "id" and entry[key] is None
            # Not `isinstance`, for which True is an integer.
            if type(entry[key]) not in _ID_TYPES and not nothing:
                raise ValueError(
                    f"{where} in {local_file} must have a number or text as {key!r}, got "
                    f"{entry[key]!r:.60}"
                )
