"""Writes a registered dataset as a COCO json file, for evaluation with pycocotools."""

import datetime
import json
import logging
import os
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from iopath.common.file_io import file_lock

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode, PolygonMasks
from detectron2.structures.masks import compressed_rle
from detectron2.utils.file_io import PathManager, atomic_write

logger = logging.getLogger(__name__)


def convert_to_coco_json(
    dataset_name: str, output_file: str | os.PathLike, allow_cached: bool = True
) -> None:
    """Write a registered dataset as a COCO json file with the category ids of its source.

    Processes that write the same file wait for each other (a lock file stays beside it).

    Args:
        dataset_name: a name in DatasetCatalog; its metadata needs `thing_classes`.
        output_file: local path to write.
        allow_cached: leave an existing file as it is, with a warning.

    Raises:
        KeyError: unknown dataset, or a category id without a class.
        TypeError: a segmentation is neither polygons nor RLE.
    """
    output_file = os.path.abspath(output_file)
    PathManager.mkdirs(os.path.dirname(output_file))
    with file_lock(output_file):
        if allow_cached and PathManager.exists(output_file):
            logger.warning(
                "Using the annotations of %r in %s, written by an earlier run; delete the file if "
                "the dataset has changed.",
                dataset_name,
                output_file,
            )
            return
        logger.info("Converting dataset %r to COCO format ...", dataset_name)
        content = convert_to_coco_dict(dataset_name)
        logger.info("Writing COCO format annotations to %s ...", output_file)
        with atomic_write(output_file) as f:
            json.dump(content, f)


def convert_to_coco_dict(dataset_name: str) -> dict[str, Any]:
    """The content of the file that `convert_to_coco_json` writes.

    Args:
        dataset_name: see there.

    Returns:
        `info`, `images`, `categories`, `licenses`, and `annotations` where there are any.
    """
    records = DatasetCatalog.get(dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    id_map = metadata.get("thing_dataset_id_to_contiguous_id")
    if id_map is None:
        id_map = {i: i for i in range(len(metadata.thing_classes))}
    dataset_ids = {contiguous_id: dataset_id for dataset_id, contiguous_id in id_map.items()}
    images, annotations = [], []
    for index, record in enumerate(records):
        image_id = record.get("image_id", index)
        images.append(
            {
                "id": image_id,
                "width": int(record["width"]),
                "height": int(record["height"]),
                "file_name": str(record["file_name"]),
            }
        )
        for annotation in record.get("annotations", []):
            where = f"an annotation of image {image_id} of dataset {dataset_name!r}"
            entry = _coco_annotation(annotation, dataset_ids, where)
            # From 1, because COCO's evaluation takes the id 0 for "nothing was found".
            annotations.append({"id": len(annotations) + 1, "image_id": image_id} | entry)
    content = {
        "info": {
            "date_created": str(datetime.datetime.now()),
            "description": f"dataset {dataset_name!r}, written by detectron2",
        },
        "images": images,
        "categories": [
            {"id": dataset_ids[i], "name": name} for i, name in enumerate(metadata.thing_classes)
        ],
        "licenses": None,
    }
    # A file without the key says: ground truth unknown, do not evaluate.
    return content | {"annotations": annotations} if annotations else content


def _coco_annotation(
    annotation: dict[str, Any], dataset_ids: dict[int, int], where: str
) -> dict[str, Any]:
    if annotation["category_id"] not in dataset_ids:
        raise KeyError(
            f"{where} has category_id {annotation['category_id']}, but the classes of the dataset "
            f"are {sorted(dataset_ids)}"
        )
    # As Python's numbers: json knows none of numpy's.
    box = np.asarray(annotation["bbox"], dtype=np.float64).tolist()
    box = BoxMode.convert(box, annotation["bbox_mode"], BoxMode.XYWH_ABS)
    result = {
        "bbox": [round(float(x), 3) for x in box],
        "area": float(box[2] * box[3]),
        "iscrowd": int(annotation.get("iscrowd", 0)),
        "category_id": int(dataset_ids[annotation["category_id"]]),
    }
    if len(annotation.get("segmentation", [])) > 0:
        result |= _segmentation_and_area(annotation["segmentation"], where)
    return result


def _segmentation_and_area(segmentation: Any, where: str) -> dict[str, Any]:
    if isinstance(segmentation, list):
        polygons = [np.asarray(p, dtype=np.float64).tolist() for p in segmentation]
        return {"segmentation": polygons, "area": float(PolygonMasks([polygons]).area()[0])}
    if not isinstance(segmentation, dict):
        raise TypeError(
            f"{where} has a segmentation of type {type(segmentation).__name__}; a COCO file holds "
            "polygons or RLE"
        )
    rle = compressed_rle(segmentation)
    counts = rle["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {
        "segmentation": {"size": [int(n) for n in rle["size"]], "counts": text},
        "area": float(mask_util.area(rle)),
    }
