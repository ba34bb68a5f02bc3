"""Registers a dataset that is an annotation file and a folder of images."""

import functools
import os
from collections.abc import Callable
from typing import Any

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog


def register_file(
    name: str,
    metadata: dict[str, Any],
    json_file: str | os.PathLike,
    image_root: str | os.PathLike,
    load_json: Callable[..., list[dict[str, Any]]],
    *,
    evaluator_type: str,
    exist_ok: bool,
) -> None:
    """Register a dataset; the file is read when the dataset is loaded.

    Args:
        name: the name for DatasetCatalog and MetadataCatalog.
        metadata: further attributes for MetadataCatalog, may be empty.
        json_file: annotation file.
        image_root: folder of the images.
        load_json: called with `json_file`, `image_root` and `name`.
        evaluator_type: "coco" or "lvis".
        exist_ok: a name that is registered keeps its loader; otherwise it is an error.

    Raises:
        AssertionError: an argument has the wrong type, the name is taken, or it has other metadata
            already.
    """
    assert isinstance(name, str), f"name must be a string, got {name!r}"
    for key, path in {"json_file": json_file, "image_root": image_root}.items():
        assert isinstance(path, str | os.PathLike), (
            f"{key} of {name!r} must be a path, got {path!r}"
        )
    if not (exist_ok and name in DatasetCatalog):
        DatasetCatalog.register(name, functools.partial(load_json, json_file, image_root, name))
    MetadataCatalog.get(name).set(
        json_file=json_file, image_root=image_root, evaluator_type=evaluator_type, **metadata
    )
