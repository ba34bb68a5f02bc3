"""Two folders, of images and of label maps -> a dataset that Detectron2's loaders know."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from mimdet.data.coco.problems import Kind, Problems, Severity
from mimdet.data.coco.select import part_of
from mimdet.data.imagenet.folder import images_below

_NO_LABELS = Kind(
    Severity.REFUSED,
    "images have no label map of their name",
    "add the label maps, or move the images away",
)
_NO_IMAGE = Kind(
    Severity.REFUSED,
    "label maps have no image of their name",
    "add the images, or move the label maps away",
)
_SAME_NAME = Kind(
    Severity.REFUSED,
    "files have the name of another one, but for its extension",
    "give each a name of its own",
)


def load_sem_seg_folder(
    name: str,
    image_root: str,
    sem_seg_root: str,
    classes: Sequence[str],
    ignore_label: int = 255,
    share: Sequence[float] | None = None,
) -> list[dict[str, Any]]:
    """Register a dataset of images with label maps under `name` and load it; made for configs.

    Args:
        name: the dataset's name, also for an evaluator.
        image_root: folder of the images, at any depth.
        sem_seg_root: folder of their label maps, images of one channel of 8 bits with the names of
            the images but for the extension.
        classes: names of the classes, in the order of their labels from 0 on.
        ignore_label: label of pixels that do not count.
        share: two numbers from 0 to 1, the part of the images to take, chosen by their names alone;
            None for all.

    Returns:
        Dicts with `file_name` and `sem_seg_file_name`, ordered by name.

    Raises:
        FileNotFoundError: if a folder does not exist.
        ValueError: if an image or a label map has no partner, or `name` is taken by another
            dataset.
    """
    source = dict(
        image_root=image_root,
        sem_seg_root=sem_seg_root,
        classes=list(classes),
        ignore_label=ignore_label,
        share=None if share is None else tuple(share),
    )
    if name not in DatasetCatalog.list():
        load = partial(pair_files, image_root, sem_seg_root, source["share"])
        load()  # what cannot be loaded is not registered
        DatasetCatalog.register(name, load)
        MetadataCatalog.get(name).set(
            evaluator_type="sem_seg",
            stuff_classes=source["classes"],
            ignore_label=ignore_label,
            source=source,
        )
    known = MetadataCatalog.get(name).get("source", {})
    if known != source:
        raise ValueError(
            f"one name must stand for one dataset: {name!r} is already {known.get('image_root')} "
            f"with {known.get('sem_seg_root')}, and not {image_root} with {sem_seg_root}, or with "
            "other classes, ignore_label or share; choose another name (dataloader.*.dataset.name)"
        )
    return get_detection_dataset_dicts(name, filter_empty=False)


def pair_files(
    image_root: str, sem_seg_root: str, share: Sequence[float] | None = None
) -> list[dict[str, Any]]:
    """Find the label map of each image: that of the same name, at the same place below its folder.

    Names are compared even where the numbers of files are equal, in which case Detectron2 pairs
    files by their order.

    Args:
        image_root: folder of the images.
        sem_seg_root: folder of the label maps.
        share: see `load_sem_seg_folder`.

    Returns:
        Dicts with `file_name` and `sem_seg_file_name`, ordered by name.

    Raises:
        FileNotFoundError: if a folder does not exist.
        ValueError: if a file has no partner or several, or `share` is no part.
    """
    problems = Problems(f"{image_root} with {sem_seg_root}")
    images = _by_name(image_root, "images", problems)
    labels = _by_name(sem_seg_root, "label maps", problems)
    for kind, ours, others in ((_NO_LABELS, images, labels), (_NO_IMAGE, labels, images)):
        for key in sorted(ours.keys() - others.keys()):
            problems.add(kind, ours[key])
    problems.report()
    records = [{"file_name": images[k], "sem_seg_file_name": labels[k]} for k in sorted(images)]
    return records if share is None else part_of(records, image_root, share)


def _by_name(root: str, what: str, problems: Problems) -> dict[str, str]:
    """Path below `root` without extension -> path, of all image files."""
    if not (root and os.path.isdir(root)):
        raise FileNotFoundError(
            f"{what} must lie in a folder, and there is no {root or 'name of one'} "
            "(dataloader.*.dataset)"
        )
    found: dict[str, str] = {}
    for path in sorted(images_below(root)):
        key = os.path.splitext(os.path.relpath(path, root))[0]
        if key in found:
            problems.add(_SAME_NAME, path)
        found[key] = path
    if not found:
        raise ValueError(f"{root} must hold {what}, and holds no image file (dataloader.*.dataset)")
    return found


def labels_in(records: Sequence[dict[str, Any]]) -> Iterator[set[int]]:
    """The values of each label map, read in as many threads as there are cores.

    Those of a file that is no label map are left out: `check_label_maps` tells what it is.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield from threads.map(_values, (record["sem_seg_file_name"] for record in records))


def _values(path: str) -> set[int]:
    try:
        with Image.open(path) as image:
            return set(np.flatnonzero(image.histogram()).tolist()) if image.mode == "L" else set()
    except Exception:  # decoders raise many types
        return set()
