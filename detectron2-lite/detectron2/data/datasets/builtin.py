"""Registers the standard names. Their files lie under $DETECTRON2_DATASETS (default `datasets`)."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.datasets.coco import load_coco_json
from detectron2.data.datasets.lvis import load_lvis_json
from detectron2.data.datasets.sem_seg import ADE20K_SPLITS, load_sem_seg

# name: (folder of the images, annotation file), both relative to the root
COCO_SPLITS = {
    "coco_2017_train": ("coco/train2017", "coco/annotations/instances_train2017.json"),
    "coco_2017_val": ("coco/val2017", "coco/annotations/instances_val2017.json"),
    "coco_2017_val_100": ("coco/val2017", "coco/annotations/instances_val2017_100.json"),
    "coco_2017_test": ("coco/test2017", "coco/annotations/image_info_test2017.json"),
    "coco_2017_test-dev": ("coco/test2017", "coco/annotations/image_info_test-dev2017.json"),
}

# The classes of these come from the annotation file; their metadata has none before it is loaded.
LVIS_SPLITS = {
    "lvis_v1_train": ("coco/", "lvis/lvis_v1_train.json"),
    "lvis_v1_val": ("coco/", "lvis/lvis_v1_val.json"),
    "lvis_v1_test_dev": ("coco/", "lvis/lvis_v1_image_info_test_dev.json"),
    "lvis_v1_test_challenge": ("coco/", "lvis/lvis_v1_image_info_test_challenge.json"),
}

_SPLITS = COCO_SPLITS | LVIS_SPLITS | ADE20K_SPLITS

# COCO's paper (Lin et al. 2014, arXiv 1405.0312) lists 91 categories; these were never annotated.
COCO_UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


class _UnderRoot(Metadata):
    """Metadata whose paths follow the environment variable, which may be set after the import."""

    paths = ("image_root", "json_file")  # in the order of the entries of the splits

    def __getattr__(self, key: str) -> Any:
        if key not in self.paths:
            return super().__getattr__(key)
        return _under_root(_SPLITS[self.name][self.paths.index(key)])

    def as_dict(self) -> dict[str, Any]:
        """All attributes by name, as a new dict."""
        return super().as_dict() | {key: getattr(self, key) for key in self.paths}


class _SemSegUnderRoot(_UnderRoot):
    paths = ("image_root", "sem_seg_root")


def class_names(dataset: str) -> list[str]:
    """The names of the classes, in order, which stand in a text file of their own."""
    path = Path(__file__).with_name(f"{dataset}_classes.txt")
    return path.read_text(encoding="utf-8").splitlines()


def _under_root(relative: str) -> str:
    root = os.environ.get("DETECTRON2_DATASETS", "datasets")
    return os.path.join(os.path.expanduser(root), relative)


def _load(name: str, load: Callable[..., list[dict[str, Any]]]) -> list[dict[str, Any]]:
    metadata = MetadataCatalog.get(name)
    image_root, truth = (getattr(metadata, key) for key in metadata.paths)
    return load(truth, image_root, name)


def _load_label_maps(sem_seg_root: str, image_root: str, _: str) -> list[dict[str, Any]]:
    return load_sem_seg(sem_seg_root, image_root)


def _register(
    name: str,
    load: Callable[..., list[dict[str, Any]]],
    metadata_class: type[_UnderRoot] = _UnderRoot,
    **metadata: Any,
) -> None:
    DatasetCatalog.register(name, functools.partial(_load, name, load))
    MetadataCatalog[name] = metadata_class(name=name, **metadata)


_ids = [i for i in range(1, 91) if i not in COCO_UNUSED_IDS]
for _name in COCO_SPLITS:
    _register(
        _name,
        load_coco_json,
        evaluator_type="coco",
        thing_classes=class_names("coco"),
        thing_dataset_id_to_contiguous_id={id_: k for k, id_ in enumerate(_ids)},
    )
for _name in LVIS_SPLITS:
    _register(_name, load_lvis_json, evaluator_type="lvis")
for _name in ADE20K_SPLITS:
    _register(
        _name,
        _load_label_maps,
        _SemSegUnderRoot,
        # as upstream writes it
        stuff_classes=["window " if x == "window" else x for x in class_names("ade20k")],
        evaluator_type="sem_seg",
        ignore_label=255,
    )
