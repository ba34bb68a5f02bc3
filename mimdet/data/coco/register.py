"""A folder in COCO format -> a dataset that Detectron2's loaders and evaluators know."""

import itertools
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from mimdet.data.coco.kept import keep_file
from mimdet.data.coco.read import CocoData, garbage_collection_paused, rectangle
from mimdet.data.coco.select import read_part

MISSING_MASKS = ("refuse", "boxes", "rectangle")


def load_coco_folder(
    name: str,
    json_file: str,
    image_root: str,
    filter_empty: bool = True,
    missing_masks: str = "refuse",
    allow_outside_root: bool = False,
    classes: Sequence[str] | None = None,
    share: Sequence[float] | None = None,
) -> list[dict]:
    """Register a COCO-format dataset under `name` and load it; made for config files.

    What is wrong with the file is told once per kind, and what cannot be used is refused. The
    evaluator of this name scores against the same records, see `CocoData.is_own_truth`.

    Args:
        name: the dataset's name, also for an evaluator (``COCOEvaluator(dataset_name=name)``).
        json_file: its annotations.
        image_root: the folder to which the image paths of `json_file` are relative.
        filter_empty: leave out images without an object that is not a crowd (for training).
        missing_masks: what becomes of objects without a segmentation: "refuse" leaves the
            decision to the model (one that learns masks refuses them), "rectangle" takes the box
            as mask, "boxes" leaves out all masks of the dataset.
        allow_outside_root: accept file names that lead out of `image_root`.
        classes: names of those to keep, in the order of their numbers; None keeps all.
        share: two numbers from 0 to 1, the part of the images to take; see `select`.

    Returns:
        Detectron2's standard dataset dicts, the caller's own.

    Raises:
        FileNotFoundError: if `json_file` or `image_root` does not exist.
        ValueError: if the file is no COCO file or has what is refused, `name` is taken by another
            dataset, or `missing_masks` is another word.
    """
    _check_arguments(name, json_file, image_root, missing_masks)
    source = dict(json_file=json_file, image_root=image_root, allow_outside_root=allow_outside_root)
    source["classes"] = None if classes is None else tuple(classes)
    source["share"] = None if share is None else tuple(share)
    # It is registered already where preflight has loaded it, or another loader of the config.
    if name not in DatasetCatalog.list():
        data = read_part(**source)
        data.problems.report()
        truth = json_file
        # Scored against the file itself wherever that is the same: no gigabytes are written then.
        if not data.is_own_truth or classes or share or missing_masks == "rectangle":
            truth = write_truth(data, _load_records(source, missing_masks))
        DatasetCatalog.register(name, partial(_load_records, source, missing_masks))
        MetadataCatalog.get(name).set(
            json_file=truth,
            image_root=image_root,
            evaluator_type="coco",
            thing_classes=data.classes,
            thing_dataset_id_to_contiguous_id={i: k for k, i in enumerate(data.category_ids)},
            source={**source, "missing_masks": missing_masks},
            file_image_ids=data.file_image_ids,
            file_category_ids=data.file_category_ids,
        )
    _refuse_other(name, {**source, "missing_masks": missing_masks})
    return get_detection_dataset_dicts(name, filter_empty=filter_empty)


def _check_arguments(name: str, json_file: str, image_root: str, missing_masks: str) -> None:
    if not (json_file and os.path.exists(json_file)):
        raise FileNotFoundError(
            f"dataset {name!r} needs the annotations {json_file}, and there is no such file "
            "(dataloader.*.dataset.json_file)"
        )
    if not (image_root and os.path.isdir(image_root)):
        raise FileNotFoundError(
            f"dataset {name!r} needs the image folder {image_root}, and there is no such folder "
            "(dataloader.*.dataset.image_root)"
        )
    if missing_masks not in MISSING_MASKS:
        raise ValueError(
            f"missing_masks must be one of {MISSING_MASKS}, got {missing_masks!r} "
            "(dataloader.*.dataset.missing_masks)"
        )


def _refuse_other(name: str, source: dict[str, Any]) -> None:
    known = MetadataCatalog.get(name).get("source", {})
    if known != source:
        raise ValueError(
            f"one name must stand for one dataset: {name!r} is already {known.get('json_file')} "
            f"with {known.get('image_root')}, and not {source['json_file']} with "
            f"{source['image_root']}, or with another missing_masks, allow_outside_root, classes "
            "or share; choose another name (dataloader.*.dataset.name)"
        )


def _load_records(source: dict[str, Any], missing_masks: str) -> list[dict[str, Any]]:
    """Records for a caller who may change them, down to the annotations but not their numbers."""
    with garbage_collection_paused():
        records = [
            {**record, "annotations": [dict(a) for a in record["annotations"]]}
            for record in read_part(**source).records
        ]
    for annotation in itertools.chain(*(record["annotations"] for record in records)):
        if missing_masks == "boxes":
            annotation.pop("segmentation", None)
        elif missing_masks == "rectangle":
            annotation.setdefault("segmentation", [rectangle(*annotation["bbox"])])
    return records


def write_truth(data: CocoData, records: list[dict[str, Any]]) -> str:
    """Write records as the COCO file that evaluators score against.

    Annotations are numbered from 1, because COCO's scorer takes the id 0 for "not found".

    Args:
        data: the dataset, for its classes.
        records: of the dataset.

    Returns:
        The path, see `keep_file`.
    """
    return keep_file(_truth(data, records), "truth")


def _truth(data: CocoData, records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    images = [
        {
            "id": record["image_id"],
            "file_name": os.path.relpath(record["file_name"], data.image_root),
            "height": record["height"],
            "width": record["width"],
        }
        for record in records
    ]
    annotations = [
        {
            "image_id": record["image_id"],
            "category_id": data.category_ids[annotation["category_id"]],
            **{key: annotation[key] for key in ("bbox", "area", "iscrowd")},
            **({"segmentation": s} if (s := _as_text(annotation.get("segmentation"))) else {}),
        }
        for record in records
        for annotation in record["annotations"]
    ]
    return {
        "images": images,
        "annotations": [{"id": k, **a} for k, a in enumerate(annotations, start=1)],
        "categories": [
            {"id": i, "name": name} for i, name in zip(data.category_ids, data.classes, strict=True)
        ],
    }


def _as_text(segmentation: Any) -> Any:
    """The segmentation with compressed run lengths as JSON can hold them."""
    if not isinstance(segmentation, dict):
        return segmentation
    return {"size": segmentation["size"], "counts": segmentation["counts"].decode()}
