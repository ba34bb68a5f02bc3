"""A folder in COCO format -> a dataset that Detectron2's loaders and evaluators know."""

from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.datasets import register_coco_instances


def load_coco_folder(
    name: str, json_file: str, image_root: str, filter_empty: bool = True
) -> list[dict]:
    """Register a COCO-format dataset under `name` and load it; made for config files.

    Args:
        name: the dataset's name, also for an evaluator (``COCOEvaluator(dataset_name=name)``).
        json_file: its annotations.
        image_root: the folder to which the image paths of `json_file` are relative.
        filter_empty: leave out images without an object that is not a crowd (for training).

    Returns:
        Detectron2's standard dataset dicts.

    Raises:
        FileNotFoundError: if `json_file` or `image_root` does not exist.
        ValueError: if `name` is taken by another dataset.
    """
    if not Path(json_file).is_file():
        raise FileNotFoundError(
            f"dataset {name!r} needs the annotations {json_file}, and there is no such file "
            "(dataloader.*.dataset.json_file)"
        )
    if not Path(image_root).is_dir():
        raise FileNotFoundError(
            f"dataset {name!r} needs the image folder {image_root}, and there is no such folder "
            "(dataloader.*.dataset.image_root)"
        )
    if name not in DatasetCatalog.list():
        register_coco_instances(name, {}, json_file, image_root)
    known = MetadataCatalog.get(name)
    if (known.get("json_file"), known.get("image_root")) != (json_file, image_root):
        raise ValueError(
            f"one name must stand for one dataset: {name!r} is already {known.get('json_file')} "
            f"with {known.get('image_root')}, and not {json_file} with {image_root}; choose "
            "another name (dataloader.*.dataset.name)"
        )
    return get_detection_dataset_dicts(name, filter_empty=filter_empty)
