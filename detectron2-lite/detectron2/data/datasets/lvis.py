"""Datasets in LVIS's json format, version 1 (Gupta et al. 2019, arXiv 1908.03195)."""

import copy
import logging
import os
from typing import Any

from detectron2.data.catalog import MetadataCatalog
from detectron2.data.datasets.coco_file import (
    index_by_image,
    is_polygon,
    read_coco_file,
    sorted_ids,
)
from detectron2.data.datasets.register import register_file
from detectron2.structures import BoxMode

__all__ = ["load_lvis_json", "register_lvis_instances"]

logger = logging.getLogger(__name__)


def register_lvis_instances(
    name: str, metadata: dict[str, Any], json_file: str | os.PathLike, image_root: str | os.PathLike
) -> None:
    """Register a dataset in LVIS's format; the file is read when the dataset is loaded.

    Only then does the metadata get `thing_classes` and `class_image_count`.

    Args:
        name: the name for DatasetCatalog and MetadataCatalog.
        metadata: further attributes for MetadataCatalog, may be empty.
        json_file: annotation file.
        image_root: folder of the folders `train2017` and `val2017`.

    Raises:
        AssertionError: an argument has the wrong type, or the name is taken.
    """
    register_file(
        name, metadata, json_file, image_root, load_lvis_json, evaluator_type="lvis", exist_ok=False
    )


def load_lvis_json(
    json_file: str | os.PathLike,
    image_root: str | os.PathLike,
    dataset_name: str | None = None,
    extra_annotation_keys: list[str] | None = None,
) -> list[dict[str, Any]]:
    """Read an LVIS json file into standard dataset dicts, one per image, sorted by image id.

    Args:
        json_file: annotation file.
        image_root: folder that the last two parts of `coco_url`, as in `train2017/1.jpg`, are
            relative to.
        dataset_name: sets `thing_classes` (the first synonym of each category) and, where the file
            has image counts, `class_image_count` in this dataset's metadata.
        extra_annotation_keys: keys to copy from each annotation besides `bbox`, `category_id` and
            `segmentation`.

    Returns:
        Dicts with `file_name`, `height`, `width`, `image_id`, `annotations` and the lists
        `neg_category_ids` and `not_exhaustive_category_ids`, which hold ids as they are in the
        file. Category ids of annotations are those of the file less 1; boxes are XYWH_ABS. The
        dicts are the caller's own.

    Raises:
        FileNotFoundError, ValueError, KeyError: the file is missing or damaged, categories are not
            numbered 1..K, an annotation lacks a key or has an unknown category.
        AssertionError: a polygon has an odd number of coordinates or fewer than three points,
            annotation ids repeat, or the metadata of `dataset_name` holds other classes.
    """
    content = read_coco_file(json_file, image_path_key="coco_url")
    if dataset_name is not None:
        _set_categories(content, dataset_name, json_file)
    images, annotations = index_by_image(content, json_file)
    ids = sorted_ids(content["images"], "images", json_file)
    logger.info("Loaded %d images in the LVIS format from %s", len(images), json_file)
    categories = {category["id"] for category in content.get("categories", [])}
    extra_keys = extra_annotation_keys or []
    return [
        {
            "file_name": os.path.join(image_root, *image["coco_url"].split("/")[-2:]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "not_exhaustive_category_ids": list(image.get("not_exhaustive_category_ids", [])),
            "neg_category_ids": list(image.get("neg_category_ids", [])),
            "annotations": [
                _standard_annotation(annotation, categories, extra_keys, json_file)
                for annotation in annotations[image["id"]]
            ],
        }
        for image in map(images.get, ids)
    ]


def _set_categories(
    content: dict[str, Any], dataset_name: str, json_file: str | os.PathLike
) -> None:
    if "categories" not in content:
        raise KeyError(f"{json_file} has no 'categories', which dataset {dataset_name!r} needs")
    categories = sorted(content["categories"], key=lambda category: category["id"])
    ids = [category["id"] for category in categories]
    if ids != list(range(1, len(ids) + 1)):
        raise ValueError(
            f"the categories of an LVIS file must be numbered from 1 without a gap, but the "
            f"{len(ids)} categories of {json_file} have ids from {min(ids)} to {max(ids)}"
        )
    names = [(category.get("synonyms") or [category["name"]])[0] for category in categories]
    metadata = MetadataCatalog.get(dataset_name).set(thing_classes=names)
    if all("image_count" in category for category in categories):
        keys = ("id", "image_count")
        metadata.class_image_count = [{key: c[key] for key in keys} for c in categories]


def _standard_annotation(
    annotation: dict[str, Any],
    categories: set[int],
    extra_keys: list[str],
    json_file: str | os.PathLike,
) -> dict[str, Any]:
    where = f"annotation {annotation.get('id')} of image {annotation['image_id']} in {json_file}"
    if missing := {"bbox", "segmentation"} - annotation.keys():
        raise KeyError(f"{where} has no {min(missing)!r}; it has {sorted(annotation)}")
    if annotation["category_id"] not in categories:
        raise KeyError(
            f"{where} has category_id {annotation['category_id']}, which is not in the "
            f"'categories' of the file (1..{len(categories)})"
        )
    polygons = annotation["segmentation"]
    assert isinstance(polygons, list) and polygons and all(map(is_polygon, polygons)), (
        f"{where} must have a 'segmentation' of polygons x0, y0, x1, y1, ... of at least three "
        f"points, got {polygons!r:.100}"
    )
    # Copies, because the parsed file is kept for others.
    return {
        "bbox": list(annotation["bbox"]),
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": annotation["category_id"] - 1,
        "segmentation": [list(polygon) for polygon in polygons],
        **{key: copy.deepcopy(annotation[key]) for key in extra_keys if key in annotation},
    }
