"""All that is wrong with a dataset in COCO format, in one go."""

import itertools
import os
from collections.abc import Iterator

from mimdet.data.coco.image_files import check_image_files
from mimdet.data.coco.layouts import NoAnnotations, find_data
from mimdet.data.coco.read import CocoData, read_coco
from mimdet.shown import shown


def check_coco_dataset(
    json_file: str | os.PathLike,
    image_root: str | os.PathLike,
    read_images: bool = True,
    allow_outside_root: bool = False,
) -> tuple[int, Iterator[str]]:
    """Look for what would stop a training or evaluation on a dataset, or falsify it.

    Args:
        json_file: its annotations.
        image_root: the folder to which the image paths of `json_file` are relative.
        read_images: also decode each image and compare its size, which takes most of the time.
        allow_outside_root: accept file names that lead out of `image_root`.

    Returns:
        The number of problems, and a line for each kind of them.

    Raises:
        FileNotFoundError: if `json_file` or `image_root` does not exist.
    """
    try:
        data = read_coco(json_file, image_root, allow_outside_root)
    except ValueError as e:
        return 1, iter([str(e)])
    if not os.path.isdir(image_root):  # one line, not one for every image
        raise FileNotFoundError(f"{image_root} must be the folder of the images, and there is none")
    files = check_image_files(data, decode=read_images)
    lines = itertools.chain(data.problems.lines(), files.lines(), _notes(data))
    return len(data.problems) + len(files), lines


def check_data_folder(folder: str | os.PathLike, read_images: bool = True) -> tuple[int, list[str]]:
    """`check_coco_dataset` of what `--data` takes from a folder.

    Args:
        folder: see `find_data`.
        read_images: see `check_coco_dataset`.

    Returns:
        The number of problems, and a line for each kind of them; what was found besides.

    Raises:
        FileNotFoundError: if there is no such folder.
        NoAnnotations: if there is none in it.
    """
    try:
        found = find_data(folder)
    except NoAnnotations:
        raise
    except ValueError as e:
        return 1, [str(e)]
    lines, count = list(found.notes), 0
    # of a folder without a split both parts are of one file
    parts = dict.fromkeys((part.json_file, part.image_root) for part in (found.train, found.val))
    for json_file, image_root in parts:
        problems, told = check_coco_dataset(json_file, image_root, read_images)
        count += problems
        lines += [*told, f"{json_file}: of the images in {image_root}"]
    return count, lines


def _notes(data: CocoData) -> Iterator[str]:
    """What is no mistake, but good to know before a training."""
    objects, crowds = data.counts()
    if without := sum(1 for _ in data.without_mask()):
        yield (
            f"{data.json_file}: note: {without} of {sum(objects)} objects have no segmentation; a "
            "detector of boxes needs none, one of masks wants dataset.missing_masks"
        )
    counts = zip(data.classes, objects, crowds, strict=True)
    if unused := [name for name, *count in counts if not any(count)]:
        names = ", ".join(map(shown, unused[:5])) + (", ..." if len(unused) > 5 else "")
        yield f"{data.json_file}: note: {len(unused)} classes have no annotations: {names}"
