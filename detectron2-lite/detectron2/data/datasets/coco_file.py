"""Reads and checks annotation files in COCO's format, each file once."""

import contextlib
import functools
import io
import json
import os
from typing import Any

from pycocotools.coco import COCO

from detectron2.utils.file_io import PathManager

_REQUIRED_KEYS = {
    "images": {"id", "file_name", "height", "width"},
    "annotations": {"id", "image_id", "category_id"},
    "categories": {"id", "name"},
}

# Parsed annotations take about five times the memory of the file, 2 GB per process for
# instances_train2017.json. Two files let a run that is evaluated on its training set and a test set
# parse each once; the third one takes the place of the one that was used least recently.
_FILES_KEPT = 2


def read_coco_file(json_file: str | os.PathLike) -> dict[str, Any]:
    """The checked content of an annotation file; not to be changed by the caller.

    The files read last are kept, and parsed again only after they changed on disk.

    Args:
        json_file: path that PathManager understands.

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
    return _parse(local_file, os.stat(local_file).st_mtime_ns)


def load_coco_api(json_file: str | os.PathLike) -> COCO:
    """A pycocotools `COCO` with the content of an annotation file.

    Every call gives an object of its own whose entries may get, lose and replace keys, as
    `COCOeval` does (it puts RLE in place of polygons and sets `ignore`). What lies deeper, such as
    a list of coordinates, is shared and must not be changed.

    Args:
        json_file: path that PathManager understands.

    Raises:
        FileNotFoundError, ValueError, KeyError: see `read_coco_file`.
    """
    content = read_coco_file(json_file)
    api = COCO()
    api.dataset = {
        key: [dict(entry) for entry in value] if key in _REQUIRED_KEYS else value
        for key, value in content.items()
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        api.createIndex()
    return api


@functools.lru_cache(maxsize=_FILES_KEPT)
def _parse(local_file: str, modified: int) -> dict[str, Any]:
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
    for section, keys in _REQUIRED_KEYS.items():
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
