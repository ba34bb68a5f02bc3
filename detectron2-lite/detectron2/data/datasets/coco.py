"""Datasets in COCO's json format."""

import copy
import logging
import os
import time
from typing import Any

from detectron2.data.catalog import MetadataCatalog
from detectron2.data.datasets.coco_export import convert_to_coco_dict, convert_to_coco_json
from detectron2.data.datasets.coco_file import (
    index_by_image,
    is_polygon,
    read_coco_file,
    sorted_ids,
)
from detectron2.data.datasets.register import register_file
from detectron2.data.datasets.sem_seg import load_sem_seg
from detectron2.structures import BoxMode
from detectron2.structures.masks import compressed_rle

__all__ = [
    "convert_to_coco_dict",
    "convert_to_coco_json",
    "load_coco_json",
    "load_sem_seg",
    "register_coco_instances",
]

logger = logging.getLogger(__name__)


def register_coco_instances(
    name: str, metadata: dict[str, Any], json_file: str | os.PathLike, image_root: str | os.PathLike
) -> None:
    """Register a dataset in COCO's format; the file is read when the dataset is loaded.

    A name that is already registered keeps its loader; its metadata must then agree.

    Args:
        name: the name for DatasetCatalog and MetadataCatalog.
        metadata: further attributes for MetadataCatalog, may be empty.
        json_file: annotation file.
        image_root: folder of the images.

    Raises:
        AssertionError: an argument has the wrong type, or the name has other metadata already.
    """
    register_file(
        name, metadata, json_file, image_root, load_coco_json, evaluator_type="coco", exist_ok=True
    )


def load_coco_json(
    json_file: str | os.PathLike,
    image_root: str | os.PathLike,
    dataset_name: str | None = None,
    extra_annotation_keys: list[str] | None = None,
) -> list[dict[str, Any]]:
    """Read a COCO json file into standard dataset dicts, one per image, sorted by image id.

    Args:
        json_file: annotation file.
        image_root: folder that the file names in the json are relative to.
        dataset_name: sets `thing_classes` and `thing_dataset_id_to_contiguous_id` in this
            dataset's metadata and turns category ids into 0..K-1, in the order of the ids. None
            leaves category ids as they are in the file.
        extra_annotation_keys: keys to copy from each annotation besides `iscrowd`, `bbox`,
            `keypoints`, `category_id` and `segmentation`.

    Returns:
        Dicts with `file_name`, `height`, `width`, `image_id` and `annotations`. Boxes are
        XYWH_ABS. An annotation none of whose polygons has three points is left out. The dicts are
        the caller's own.

    Raises:
        FileNotFoundError, ValueError, KeyError: the file is missing or damaged, a box is empty, a
            category is unknown, two images have one id.
        AssertionError: annotation ids repeat, an annotation has `ignore` set, or the metadata of
            `dataset_name` holds other classes.
    """
    start = time.perf_counter()
    content = read_coco_file(json_file)
    seconds = time.perf_counter() - start
    if seconds > 1:
        logger.info("Loading %s takes %.2f seconds.", json_file, seconds)
    id_map = None if dataset_name is None else _set_categories(content, dataset_name, json_file)
    images, annotations = index_by_image(content, json_file)
    logger.info("Loaded %d images in COCO format from %s", len(images), json_file)

    records, dropped = [], []
    for image_id in sorted_ids(content["images"], "images", json_file):
        usable = []
        for annotation in annotations[image_id]:
            standard = _standard_annotation(
                annotation, id_map, extra_annotation_keys or [], json_file
            )
            if standard.get("segmentation") == []:
                dropped.append(str(annotation.get("id")))
            else:
                usable.append(standard)
        records.append(
            {
                "file_name": os.path.join(image_root, images[image_id]["file_name"]),
                "height": images[image_id]["height"],
                "width": images[image_id]["width"],
                "image_id": image_id,
                "annotations": usable,
            }
        )
    if dropped:
        logger.warning(
            "Left out %d annotations of %s whose polygons all have an odd number of coordinates "
            "or fewer than three points: %s",
            len(dropped),
            json_file,
            ", ".join(dropped[:10]) + (", ..." if len(dropped) > 10 else ""),
        )
    return records


def _set_categories(
    content: dict[str, Any], dataset_name: str, json_file: str | os.PathLike
) -> dict[int, int]:
    if "categories" not in content:
        raise KeyError(f"{json_file} has no 'categories', which dataset {dataset_name!r} needs")
    names = {category["id"]: category["name"] for category in content["categories"]}
    ids = sorted_ids(content["categories"], "categories", json_file)
    # COCO's own ids have gaps, see `COCO_UNUSED_IDS`: no warning there.
    if ids != list(range(1, len(ids) + 1)) and "coco" not in dataset_name:
        logger.warning(
            "Category ids of %s are not 1..%d; they are mapped to 0..%d in ascending order.",
            dataset_name,
            len(ids),
            len(ids) - 1,
        )
    id_map = {dataset_id: contiguous_id for contiguous_id, dataset_id in enumerate(ids)}
    MetadataCatalog.get(dataset_name).set(
        thing_classes=[names[i] for i in ids], thing_dataset_id_to_contiguous_id=id_map
    )
    return id_map


def _standard_annotation(
    annotation: dict[str, Any],
    id_map: dict[int, int] | None,
    extra_keys: list[str],
    json_file: str | os.PathLike,
) -> dict[str, Any]:
    where = f"annotation {annotation.get('id')} of image {annotation['image_id']} in {json_file}"
    assert annotation.get("ignore", 0) == 0, f"{where} has 'ignore' set, which is not supported"
    # Lists are copied, because the parsed file is kept for others.
    result = {key: annotation[key] for key in ("iscrowd", "category_id") if key in annotation}
    result |= {key: copy.deepcopy(annotation[key]) for key in extra_keys if key in annotation}
    if "bbox" in annotation:
        if not annotation["bbox"]:
            raise ValueError(f"{where} has an empty 'bbox'; it must be [x, y, width, height]")
        result["bbox"] = list(annotation["bbox"])
    result["bbox_mode"] = BoxMode.XYWH_ABS
    if annotation.get("segmentation"):
        result["segmentation"] = _standard_segmentation(annotation["segmentation"], where)
    if "keypoints" in annotation:
        result["keypoints"] = _pixel_centres(annotation["keypoints"])
    if id_map is not None:
        if annotation["category_id"] not in id_map:
            raise KeyError(
                f"{where} has category_id {annotation['category_id']!r}, which is not in the "
                f"'categories' of the file ({sorted(id_map)})"
            )
        result["category_id"] = id_map[annotation["category_id"]]
    return result


def _standard_segmentation(segmentation: Any, where: str) -> dict[str, Any] | list[list[float]]:
    """Compressed RLE, or the polygons that have at least three points (perhaps none)."""
    if isinstance(segmentation, dict):
        if not {"size", "counts"} <= segmentation.keys():
            raise ValueError(
                f"{where} has a run-length 'segmentation' that needs the keys 'size' and 'counts', "
                f"got {sorted(segmentation)}"
            )
        try:
            return dict(compressed_rle(segmentation))
        except (OverflowError, TypeError, ValueError) as e:
            raise ValueError(
                f"{where} has a run-length 'segmentation' whose counts must be integers from 0: {e}"
            ) from e
    if not isinstance(segmentation, list):
        raise ValueError(
            f"{where} has a 'segmentation' that is neither a list of polygons nor a run-length "
            f"object: {segmentation!r:.100}"
        )
    return [list(polygon) for polygon in segmentation if is_polygon(polygon)]


def _pixel_centres(keypoints: list[float]) -> list[float]:
    """COCO's keypoints (x, y, visibility, ...) are pixel indices: move x and y by half a pixel."""
    return [value if i % 3 == 2 else value + 0.5 for i, value in enumerate(keypoints)]
