"""A file in COCO format -> checked, normalised records: the one place that says what it may hold.

Loader, evaluator's truth, checker and preflight all use what comes from here.
"""

import functools
import gc
import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mimdet.data.coco import problems as p
from mimdet.data.coco.annotation import AnnotationReader
from mimdet.data.coco.file import read_sections
from mimdet.data.coco.problems import Problems, Severity
from mimdet.data.coco.segmentation import as_numbers
from mimdet.shown import shown

_FILES_KEPT = 2  # a training and a test set


@dataclass
class CocoData:
    """A dataset as training and evaluation see it.

    Attributes:
        json_file: where it came from.
        image_root: folder of the images.
        records: Detectron2's standard dataset dicts, in order of their ids. Annotations also have
            `area`, the `id` of the file, and boxes as XYWH_ABS; categories are 0..K-1.
        classes: names of the K categories, in order of their ids.
        category_ids: ids of the K categories as COCO's tools need them: distinct whole numbers.
        file_image_ids: id -> the file's own id, for the images that had to be numbered anew.
        file_category_ids: likewise for categories.
        problems: what was found.
    """

    json_file: str
    image_root: str
    records: list[dict[str, Any]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    category_ids: list[int] = field(default_factory=list)
    file_image_ids: dict[int, Any] = field(default_factory=dict)
    file_category_ids: dict[int, Any] = field(default_factory=dict)
    problems: Problems = field(default_factory=lambda: Problems(""))

    @property
    def is_own_truth(self) -> bool:
        """Whether scoring against the file itself is scoring against the records."""
        return not self.problems.kinds(Severity.FIXED, Severity.DROPPED, Severity.REFUSED)

    def counts(self) -> tuple[list[int], list[int]]:
        """Objects and crowds of each class."""
        objects, crowds = [0] * len(self.classes), [0] * len(self.classes)
        for record in self.records:
            for annotation in record["annotations"]:
                kind = crowds if annotation["iscrowd"] else objects
                kind[annotation["category_id"]] += 1
        return objects, crowds

    def without_mask(self) -> Iterable[tuple[dict[str, Any], dict[str, Any]]]:
        """The images and annotations of objects (no crowds) that have no segmentation."""
        return (
            (record, annotation)
            for record in self.records
            for annotation in record["annotations"]
            if not annotation["iscrowd"] and "segmentation" not in annotation
        )


def read_coco(
    json_file: str | os.PathLike, image_root: str | os.PathLike, allow_outside_root: bool = False
) -> CocoData:
    """Read a dataset. A file that was read before is read again only if it has changed.

    Entries that cannot be used are not in the records; `CocoData.problems` tells which ones and
    why, and its `report` refuses what must not be gone on with.

    Args:
        json_file: annotations in COCO format.
        image_root: folder to which the file names are relative.
        allow_outside_root: accept file names that lead out of `image_root`.

    Returns:
        The data; shared by all callers, not to be changed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no COCO file.
    """
    path = os.path.abspath(json_file)
    # Without a file there is no version, and nothing is kept: an error leaves no entry in the
    # cache.
    status = os.stat(path) if os.path.exists(path) else None
    version = status and (status.st_mtime_ns, status.st_size, status.st_ino)
    return _read(os.fspath(json_file), path, version, os.fspath(image_root), allow_outside_root)


@functools.lru_cache(maxsize=_FILES_KEPT)
def _read(
    json_file: str, path: str, version: tuple | None, image_root: str, allow_outside_root: bool
) -> CocoData:
    """`path` and `version` are for the cache alone."""
    data = CocoData(json_file, image_root, problems=Problems(json_file))
    with garbage_collection_paused():
        sections = read_sections(json_file, data.problems)
        for section in ("images", "categories"):
            if not sections[section]:
                data.problems.add(p.EMPTY_LIST, section)
        categories = _read_categories(sections["categories"], data)
        images = _read_images(sections["images"], data, allow_outside_root)
        _read_annotations(sections["annotations"], images, categories, data)
        _look_at_crowds(data)
    # As Detectron2's own reader orders them.
    data.records.sort(key=lambda record: record["image_id"])
    return data


def forget_files() -> None:
    """Free what was read; who needs it again reads it again."""
    _read.cache_clear()


def rectangle(x: float, y: float, width: float, height: float) -> list[float]:
    """A box as a polygon."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """For making millions of objects and no garbage; looking for it takes half of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def id_key(value: Any) -> int | str | None:
    """What an id stands for: 7, 7.0 and "7" are one; None if it is no id."""
    # Not `isinstance`: a bool is an int to Python, and no id.
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is str and value.strip():
        text = value.strip()
        # "007" is a name and no number; 19 digits may be more than 64 bits hold
        is_number = text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 19
        return int(text) if is_number and str(int(text)) == text else text
    return None


def _sound_ids(keys: list[int | str]) -> dict[int | str, int]:
    """Key -> a whole number: itself if all are, otherwise their places, from 1."""
    # from 2^53 on, neighbours are one number to programs that read JSON numbers as float64
    if all(type(key) is int and abs(key) < 2**53 for key in keys):
        return {key: key for key in keys}
    return {key: place for place, key in enumerate(keys, start=1)}


def _read_categories(entries: list[Any], data: CocoData) -> dict[int | str, int]:
    """Key of the file's id -> class, a number from 0 in the order of the ids."""
    found: dict[int | str, dict[str, Any]] = {}
    for place, category in enumerate(entries):
        name = f"categories[{place}]"
        if not isinstance(category, dict):
            data.problems.add(p.CATEGORY_ENTRY, name, category)
        elif (key := id_key(category.get("id"))) is None:
            data.problems.add(p.CATEGORY_ID, name, category.get("id"))
        elif not (isinstance(category.get("name"), str) and category["name"].strip()):
            data.problems.add(p.CATEGORY_NAME, f"category {key}", category.get("name"))
        elif key in found:
            data.problems.add(p.CATEGORY_ID_TWICE, name, key)
        else:
            found[key] = category
    keys = list(found)
    if all(type(key) is int for key in keys):
        keys.sort()  # text has no order that means anything: it stays in that of the file
    sound = _sound_ids(keys)
    for key in keys:
        if type(found[key]["id"]) is not int:
            data.problems.add(p.CATEGORY_ID_TYPES, f"category {key}", found[key]["id"])
    data.category_ids = [sound[key] for key in keys]
    data.file_category_ids = _own_ids(sound, found)
    data.classes = _distinct_names(keys, found, data)
    return {key: place for place, key in enumerate(keys)}


def _own_ids(sound: dict[int | str, int], entries: dict[int | str, dict]) -> dict[int, Any]:
    """Sound id -> the file's, where they differ."""
    own = {sound[key]: entry["id"] for key, entry in entries.items()}
    return {number: i for number, i in own.items() if type(i) is not int or i != number}


def _distinct_names(
    keys: list[int | str], found: dict[int | str, dict[str, Any]], data: CocoData
) -> list[str]:
    names: list[str] = []
    for key in keys:
        name = shown(found[key]["name"])
        if name != found[key]["name"]:
            data.problems.add(p.CATEGORY_NAME_CONTROL, f"category {key}", name)
        if name in names:
            data.problems.add(p.CATEGORY_NAME_TWICE, f"category {key}", name)
            name = f"{name} ({shown(key)})"
        names.append(name)
    return names


def _read_images(
    entries: list[Any], data: CocoData, allow_outside_root: bool
) -> dict[int | str, dict[str, Any]]:
    """Key of the file's id -> the image's record, without annotations."""
    found: dict[int | str, dict[str, Any]] = {}
    records: dict[int | str, dict[str, Any]] = {}
    files: dict[str, int | str] = {}
    for place, image in enumerate(entries):
        if not isinstance(image, dict):
            data.problems.add(p.IMAGE_ENTRY, f"images[{place}]", image)
            continue
        key = id_key(image.get("id"))
        if key is None:
            data.problems.add(p.IMAGE_ID, f"images[{place}]", image.get("id"))
            continue
        name = f"image {key} ({image.get('file_name')})"
        if key in found:
            kind = p.IMAGE_TWICE if found[key] == image else p.IMAGE_ID_TWICE
            data.problems.add(kind, name)
            continue
        found[key] = image
        height, width = (_side(image.get(side), name, data) for side in ("height", "width"))
        file_name = _file_name(image.get("file_name"), f"image {key}", data, allow_outside_root)
        path = file_name and os.path.normpath(file_name)
        if path in files:
            data.problems.add(p.FILE_NAME_TWICE, name, f"that of image {files[path]}")
        if height and width and file_name:
            files[path] = key
            records[key] = {
                "file_name": os.path.join(data.image_root, file_name),
                "height": height,
                "width": width,
                "annotations": [],
            }
    sound = _sound_ids(list(found))
    for key, image in found.items():
        if type(image["id"]) is not int:
            data.problems.add(p.IMAGE_ID_TYPES, f"image {key}", image["id"])
        if key in records:
            records[key]["image_id"] = sound[key]
    data.file_image_ids = _own_ids(sound, found)
    data.records = list(records.values())
    # Entries that were refused are known, so that their annotations are not blamed as well.
    return {key: records.get(key, {}) for key in found}


def _side(value: Any, name: str, data: CocoData) -> int | None:
    """A height or width in pixels that a C int holds; None, and a problem, if it is none."""
    if type(value) is int and 0 < value < 2**31:
        return value
    if type(value) is str:
        number = as_numbers([value])
        value = number[0] if number else value
        if number:
            data.problems.add(p.SIZE_TEXT, name, value)
    if type(value) is float and value.is_integer() and 0 < value < 2**31:
        return int(value)
    data.problems.add(p.IMAGE_SIZE, name, value)
    return None


def _file_name(value: Any, name: str, data: CocoData, allow_outside_root: bool) -> str | None:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        data.problems.add(p.FILE_NAME, name, value)
        return None
    if any(unicodedata.category(c) == "Cc" for c in value):
        data.problems.add(p.FILE_NAME_CONTROL, name, value)
        return None
    if "://" in value:
        data.problems.add(p.FILE_NAME_URL, name, value)
        return None
    if "\\" in value and os.sep == "/" and not os.path.exists(Path(data.image_root, value)):
        kind = p.FILE_NAME_WINDOWS
        if not os.path.exists(Path(data.image_root, value.replace("\\", "/"))):
            kind = p.FILE_NAME_BACKSLASH
        data.problems.add(kind, name, value)
        value = value.replace("\\", "/")
    # By its text, without following links: a link below the folder is its owner's own decision.
    leads_out = os.path.isabs(value) or os.path.normpath(value).startswith("..")
    if leads_out and not allow_outside_root and not _is_below(value, data.image_root):
        data.problems.add(p.FILE_NAME_OUTSIDE, name, value)
        return None
    return value


def _is_below(file_name: str, image_root: str) -> bool:
    """Whether an absolute name, or one with .., is in the folder all the same."""
    # Not `resolve`: see `_file_name` on links.
    root = os.path.abspath(image_root)
    return os.path.commonpath([root, os.path.abspath(os.path.join(root, file_name))]) == root


def _read_annotations(
    entries: list[Any],
    images: dict[int | str, dict[str, Any]],
    categories: dict[int | str, int],
    data: CocoData,
) -> None:
    """Put every annotation that can be used into the record of its image."""
    ids: set[int] = set()
    shares = boxes = 0
    for place, entry in enumerate(entries):
        entries[place] = None  # its memory is free as soon as it has been read
        if not isinstance(entry, dict):
            data.problems.add(p.ENTRY, f"annotations[{place}]", entry)
            continue
        own_id = entry.get("id")
        if type(own_id) is not int or own_id <= 0 or own_id in ids:
            data.problems.add(p.ANNOTATION_ID, f"annotations[{place}]", own_id)
        else:
            ids.add(own_id)
        image_id, category_id = entry.get("image_id"), entry.get("category_id")
        image = _referred(images, image_id, p.IMAGE_REFERENCE, entry, data)
        category = _referred(categories, category_id, p.CATEGORY_REFERENCE, entry, data)
        if not image or category is None:
            continue
        annotation = AnnotationReader(entry, image, data.problems).read()
        if annotation is not None:
            annotation["category_id"] = category
            image["annotations"].append(annotation)
            boxes += 1
            shares += max(annotation["bbox"]) <= 1  # a real box is rarely below one pixel
    if shares and 2 * shares >= boxes:
        data.problems.add(p.BOX_NORMALIZED, f"{shares} of {boxes}")


def _referred(table: dict, value: Any, kind: p.Kind, entry: dict, data: CocoData) -> Any:
    """The entry of `table` whose id an annotation gives; None if there is none."""
    if type(value) is int and value in table:
        return table[value]
    key = id_key(value)
    if key is None or key not in table:
        data.problems.add(kind, f"annotation {entry.get('id')}", value)
        return None
    if type(value) is not type(key):
        data.problems.add(p.ID_TEXT, f"annotation {entry.get('id')}", value)
    return table[key]


def _look_at_crowds(data: CocoData) -> None:
    """Find classes of crowds alone, and give crowds a mask where objects have one.

    What is detected inside a crowd is not counted as wrong, and for masks "inside" is told by the
    crowd's mask.
    """
    for name, objects, crowds in zip(data.classes, *data.counts(), strict=True):
        if crowds and not objects:
            data.problems.add(p.ONLY_CROWDS, f"class {name}", f"{crowds} crowds")
    annotations = [(r, a) for r in data.records for a in r["annotations"]]
    if not any("segmentation" in a for _, a in annotations):
        return
    for record, annotation in annotations:
        if annotation["iscrowd"] and "segmentation" not in annotation:
            name = f"annotation {annotation['id']} of image {record['image_id']}"
            data.problems.add(p.CROWD_MASK, name)
            annotation["segmentation"] = [rectangle(*annotation["bbox"])]
