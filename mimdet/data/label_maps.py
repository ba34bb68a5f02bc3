"""Whether the label maps of a data set of semantic segmentation fit its images and classes."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mimdet.data.coco import problems as p
from mimdet.data.coco.image_files import upright_size
from mimdet.data.coco.problems import Kind, Problems, Severity

_R = Severity.REFUSED
OTHER_NAME = Kind(
    _R,
    "label maps do not have the name of their image, so they would belong to another one",
    "give both files of a pair the same name",
)
LABELS_MISSING = Kind(
    _R,
    "images have no label map",
    "add the label maps, or take the images out of the folder",
)
IMAGE_MISSING = Kind(
    _R, "label maps have no image", "add the images, or take the label maps out of the folder"
)
LABELS_UNREADABLE = Kind(_R, "label maps cannot be read", "replace the files")
LABELS_MODE = Kind(
    _R,
    "label maps are no images of one channel of 8 bits, whose values are the classes",
    "save the numbers of the classes alone; of a palette image, its indices",
)
OTHER_SIZE = Kind(
    _R,
    "label maps have another size than their image (height x width, upright)",
    "make them anew from the right image, or resize them without interpolation",
)


def check_label_maps(
    records: Sequence[dict[str, Any]],
    name: str,
    num_classes: int,
    ignore_label: int = 255,
    roots: tuple[str, str] | None = None,
) -> Problems:
    """Compare every label map with its image and with the number of classes.

    Of images the head is read, label maps are decoded, in as many threads as there are cores.

    Args:
        records: dicts with `file_name` and `sem_seg_file_name`.
        name: of the data set, for messages.
        num_classes: that labels are below.
        ignore_label: of pixels that do not count.
        roots: folders of the images and of the label maps, to find what is in one of them alone:
            Detectron2 leaves that out with a warning.

    Returns:
        What was found.
    """
    found = Problems(name)
    out_of_range = Kind(
        _R,
        f"label maps have values that are neither below {num_classes}, the number of classes, nor "
        f"{ignore_label}, for pixels that do not count",
        "renumber them from 0, without gaps (of ADE20K: tools/prepare_ade20k.py)",
    )
    if roots:
        _compare_folders(records, roots, found)
    look = partial(_look, allowed={*range(num_classes), ignore_label}, out_of_range=out_of_range)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for problems in threads.map(look, records):
            for kind, entry, value in problems:
                found.add(kind, entry, value)
    return found


def _compare_folders(
    records: Iterable[dict[str, Any]], roots: tuple[str, str], found: Problems
) -> None:
    keys = ("file_name", "sem_seg_file_name")
    for root, key, kind in zip(roots, keys, (LABELS_MISSING, IMAGE_MISSING), strict=True):
        paired = {Path(record[key]).name for record in records}
        ends = {Path(name).suffix for name in paired}  # other files of a folder do not matter
        for path in sorted(Path(root).iterdir()):
            if path.suffix in ends and path.name not in paired:
                found.add(kind, str(path))


def _look(
    record: dict[str, Any], allowed: set[int], out_of_range: Kind
) -> list[tuple[Kind, str, str]]:
    """What is wrong with one pair of files: kind, file, and what it has."""
    image, labels = record["file_name"], record["sem_seg_file_name"]
    if Path(image).stem != Path(labels).stem:
        return [(OTHER_NAME, labels, f"of {image}")]
    for path, kind in ((image, p.FILE_MISSING), (labels, LABELS_MISSING)):
        if not os.path.isfile(path):
            return [(kind, image, "" if path == image else f"no {labels}")]
    try:
        image_size = upright_size(image)
    except Exception as e:  # decoders raise many types; all are told
        return [(p.FILE_UNREADABLE, image, str(e))]
    try:
        with Image.open(labels) as opened:
            mode, size = opened.mode, opened.size[::-1]
            values = np.flatnonzero(opened.histogram()) if mode == "L" else ()
    except Exception as e:
        return [(LABELS_UNREADABLE, labels, str(e))]
    if mode != "L":
        return [(LABELS_MODE, labels, f"mode {mode}")]
    problems = []
    if size != image_size:
        sizes = f"{size[0]} x {size[1]}, its image {image_size[0]} x {image_size[1]}"
        problems.append((OTHER_SIZE, labels, sizes))
    if wrong := sorted(set(values.tolist()) - allowed):
        problems.append((out_of_range, labels, ", ".join(map(str, wrong))))
    return problems
