"""Whether the images of a dataset are there, are files, and are what their entries say."""

import os
import stat
from typing import Any

from PIL import Image

from detectron2.data.detection_utils import read_image
from mimdet.data.coco import problems as p
from mimdet.data.coco.problems import Problems
from mimdet.data.coco.read import CocoData

# The orientations that swap width and height.
_EXIF_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)


def upright_size(path: str) -> tuple[int, int]:
    """(height, width) of an image as it is read: turned as its EXIF entry says."""
    with Image.open(path) as image:
        is_turned = image.getexif().get(_EXIF_ORIENTATION) in _TURNED
        # PIL's size is (width, height): of a turned image that is the upright (height, width).
        return image.size if is_turned else image.size[::-1]


def check_image_files(data: CocoData, decode: bool = False) -> Problems:
    """Look at the image file of every record.

    Args:
        data: from `read_coco`.
        decode: also read each image and compare its size, which takes most of the time.

    Returns:
        What was found.
    """
    found = Problems(data.json_file)
    for record in data.records:
        name = f"image {record['image_id']} ({record['file_name']})"
        try:
            mode = os.stat(record["file_name"]).st_mode
        except (OSError, ValueError):
            found.add(p.FILE_MISSING, name)
            continue
        if not stat.S_ISREG(mode):  # reading a pipe or a device never ends
            found.add(p.FILE_SPECIAL, name)
        elif decode:
            _decode(record, name, found)
    return found


def _decode(record: dict[str, Any], name: str, found: Problems) -> None:
    try:
        size = read_image(record["file_name"], format="RGB").shape[:2]
    except Exception as e:  # decoders raise many types; all are told
        found.add(p.FILE_UNREADABLE, name, str(e))
        return
    if size != (record["height"], record["width"]):
        expected = f"{record['height']} x {record['width']} expected"
        found.add(p.FILE_SIZE, name, f"{size[0]} x {size[1]} (upright), {expected}")
