"""An annotation file -> its three lists, or one sentence on what it is instead."""

import os
import re
import stat
from pathlib import Path
from typing import Any

import msgspec

from mimdet.data.coco.problems import BYTE_ORDER_MARK, Problems

_SECTIONS = ("images", "annotations", "categories")
_BOM = b"\xef\xbb\xbf"

# How files begin that are given in place of JSON, and what is said of them.
# In this order: UTF-32 begins as UTF-16 does, and a web page as XML.
_OTHER_FILES = {
    rb"\xff\xfe\0\0|\0\0\xfe\xff": "it is UTF-32; save it as UTF-8",
    rb"\xff\xfe|\xfe\xff|\s*[{\[]\0|\0[{\[]": "it is UTF-16; save it as UTF-8",
    rb"\x1f\x8b|PK\x03\x04|BZh|\xfd7zXZ|7z\xbc\xaf": "it is a compressed archive; unpack it",
    rb"version https://git-lfs": "it is a pointer of Git LFS; fetch the file itself (git lfs pull)",
    rb"(?i)\s*<(!doctype html|html|head|body)": "it is a web page; fetch the file itself",
    rb"\s*<": "it is XML (Pascal VOC, CVAT); export it as COCO",
    rb"\s*\d+( +-?[\d.]+(e-?\d+)?){4,}\s*(\n|$)": "it is a label file of YOLO; give --data DIR",
    rb"[^{\[\n]*,[^{\[\n]*,[^\n]*\n": "it is a table (CSV); export it as COCO",
    rb"\s*[\w-]+:(\s|$)": "it is YAML; give the annotations themselves",
}

# Keys of an entry of a list that other tools write, and whose it is.
_LISTS = {
    ("image_id", "score"): "of detections (COCO results); give the annotations they belong to",
    ("image", "annotations"): "of images (CreateML); export it as COCO",
    ("data", "annotations"): "of tasks (Label Studio); export it there as COCO",
    ("name", "labels"): "of frames (BDD100K, Scalabel); convert it to COCO",
    ("images", "annotations"): "of datasets; give one of them alone",
}


def read_sections(json_file: str | os.PathLike, found: Problems) -> dict[str, list[Any]]:
    """Read the images, annotations and categories of a file in COCO format.

    Args:
        json_file: UTF-8, with or without a byte order mark.
        found: takes what was wrong and could be repaired.

    Returns:
        The three lists, their entries unchecked.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no regular file, no JSON, or JSON of another kind.
    """
    text = _read(json_file)
    if text.startswith(_BOM):
        found.add(BYTE_ORDER_MARK, "byte 0")
    content = _parse(text.removeprefix(_BOM), json_file)
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise ValueError(f"{json_file} must be a COCO file, but it is {_what_else(content)}")
    missing = "categories" not in content
    if missing or not all(isinstance(content[section], list) for section in _SECTIONS):
        types = {s: type(content.get(s)).__name__ for s in _SECTIONS}
        raise ValueError(
            f"{json_file} must have images, annotations and categories, each a list, got {types}; "
            "export it again as COCO"
        )
    return {section: content[section] for section in _SECTIONS}


def _read(json_file: str | os.PathLike) -> bytes:
    path = Path(json_file)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as e:
        raise FileNotFoundError(f"the annotation file {json_file} does not exist") from e
    # A pipe would be waited for without end, a device read without end.
    if not stat.S_ISREG(mode):
        raise ValueError(f"{json_file} must be an annotation file, but it is no regular file")
    return path.read_bytes()


def _parse(text: bytes, json_file: str | os.PathLike) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise ValueError(f"{json_file} must be JSON: {_why_no_json(text, e)}") from e
    except RecursionError:
        # Without its cause: a traceback of a thousand levels tells nothing.
        raise ValueError(
            f"{json_file} must be a COCO file, but its JSON is nested too deep to be one; export "
            "it again"
        ) from None


def _why_no_json(text: bytes, error: Exception) -> str:
    if not text.strip():
        return "it is empty; fetch it again"
    for pattern, what in _OTHER_FILES.items():
        if re.match(pattern, text[:1000]):
            return what
    if _is_json_lines(text):
        return "it has one object per line (JSON lines); export it as one COCO object"
    if number := re.search(rb"[:,\[]\s*(-?(?:NaN|Infinity))\b", text):
        return f"{number[1].decode()} is no number of JSON; write finite numbers"
    if "truncated" in str(error):
        return "it ends too early; it was cut short, fetch it again"
    if isinstance(error, UnicodeDecodeError):
        return f"it is no UTF-8 ({error}); save it as UTF-8"
    return f"{error}; export it again"


def _is_json_lines(text: bytes) -> bool:
    first, _, rest = text.strip().partition(b"\n")
    try:
        return bool(rest) and isinstance(msgspec.json.decode(first), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _what_else(content: Any) -> str:
    """What a JSON file that is not COCO's most likely is, and the way out."""
    if isinstance(content, list):
        first = content[0] if content and isinstance(content[0], dict) else {}
        for keys, whose in _LISTS.items():
            if first.keys() >= {*keys}:
                return f"a list {whose}"
        return "a list; an object with images, annotations and categories is needed"
    if not isinstance(content, dict):
        return f"a {type(content).__name__}; an object with images, annotations is needed"
    if "_via_img_metadata" in content or _is_via(content):
        return "a project or export of VIA (VGG Image Annotator); export it there as COCO"
    if {"shapes", "imagePath"} <= content.keys():
        return "the labelme file of one image; convert the folder to COCO (labelme2coco)"
    if "images" in content:
        return "without annotations; test sets without truth cannot be trained on or scored"
    keys = sorted(map(str, content))[:5]
    return f"an object with {keys}; images, annotations and categories are needed"


def _is_via(content: dict[str, Any]) -> bool:
    """VIA's own export: an object per image, by the name and size of its file."""
    first = next(iter(content.values()), None)
    return isinstance(first, dict) and {"filename", "regions"} <= first.keys()
