"""Data sets of images with label maps, and the names of the built-in ones."""

import logging
import os
from typing import Any

from detectron2.utils.file_io import PathManager

logger = logging.getLogger(__name__)

# name: (folder of the images, folder of the label maps), both relative to the root
ADE20K_SPLITS = {
    f"ade20k_sem_seg_{name}": (
        f"ADEChallengeData2016/images/{folder}",
        f"ADEChallengeData2016/annotations_detectron2/{folder}",
    )
    for name, folder in (("train", "training"), ("val", "validation"))
}


def load_sem_seg(
    gt_root: str, image_root: str, gt_ext: str = "png", image_ext: str = "jpg"
) -> list[dict[str, Any]]:
    """Pair the images of a folder with the label maps of another, by name without extension.

    Args:
        gt_root: folder of label maps, images of one channel.
        image_root: folder of images.
        gt_ext: extension of the label maps.
        image_ext: extension of the images.

    Returns:
        Entries with `file_name` and `sem_seg_file_name`, ordered by name. What has no partner is
        left out with a warning.

    Raises:
        AssertionError: if there are no label maps, or none belongs to an image.
        FileNotFoundError: if a folder does not exist.
    """
    images, labels = _stems(image_root, image_ext), _stems(gt_root, gt_ext)
    assert labels, f"No annotations found in {gt_root}: it must hold label maps *.{gt_ext}"
    both = sorted(images & labels)
    assert both, (
        f"label maps must have the names of their images, but none of the {len(labels)} in "
        f"{gt_root} has that of one of the {len(images)} images *.{image_ext} in {image_root}"
    )
    if alone := sorted(images ^ labels):
        logger.warning(
            f"{image_root} has {len(images)} images and {gt_root} {len(labels)} label maps; "
            f"{len(alone)} have no partner and are left out, for instance {alone[0]!r}"
        )
    return [
        {
            "file_name": os.path.join(image_root, f"{stem}.{image_ext}"),
            "sem_seg_file_name": os.path.join(gt_root, f"{stem}.{gt_ext}"),
        }
        for stem in both
    ]


def _stems(root: str, extension: str) -> set[str]:
    if not PathManager.isdir(root):
        raise FileNotFoundError(
            f"{root} must be a folder, but there is none; set DETECTRON2_DATASETS or prepare the "
            "data set"
        )
    end = f".{extension}"
    return {name.removesuffix(end) for name in PathManager.ls(root) if name.endswith(end)}
