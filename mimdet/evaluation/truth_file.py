"""The objects that an evaluation was scored against, kept with its results for reports."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimdet.evaluation.results import write_json

_OF_IMAGES = ("id", "file_name", "height", "width")
_OF_ANNOTATIONS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
_OF_CATEGORIES = ("id", "name")


def write_truth_file(
    json_file: str,
    path: str | os.PathLike,
    image_root: str | None = None,
    image_ids: Mapping[int, Any] | None = None,
    category_ids: Mapping[int, Any] | None = None,
) -> None:
    """Write boxes and classes of a COCO file, without masks, as a COCO file.

    It makes the folder of a run complete: reports are made where the data are not, and a dataset
    whose file had to be mended is scored against a temporary one.

    Args:
        json_file: the truth.
        path: of the new file.
        image_root: folder of the images, named in the new file.
        image_ids: id in `json_file` -> id in the new file, where they differ.
        category_ids: likewise.
    """
    content = json.loads(Path(json_file).read_text(encoding="utf-8"))
    images = [_part(image, _OF_IMAGES) for image in content.get("images", ())]
    categories = [_part(category, _OF_CATEGORIES) for category in content.get("categories", ())]
    annotations = [_part(entry, _OF_ANNOTATIONS) for entry in content.get("annotations", ())]
    for entries, key, own in (
        (images, "id", image_ids),
        (categories, "id", category_ids),
        (annotations, "image_id", image_ids),
        (annotations, "category_id", category_ids),
    ):
        for entry in entries if own else ():
            entry[key] = own.get(entry[key], entry[key])
    root = os.path.abspath(image_root) if image_root else None
    truth = {"images": images, "annotations": annotations, "categories": categories}
    write_json({"image_root": root, **truth}, path)


def _part(entry: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: entry[key] for key in keys if key in entry}
