"""An image file of any mode -> RGB with 8 bits, or an error that names the file."""

import functools
import os
import stat

import numpy as np
from PIL import Image

from mimdet.data.toy import CLASSES, make_labelled_image
from mimdet.shown import shown

SYNTHETIC = "synthetic:"

# Formats of at most 16 bits per channel, some of which Pillow reads as 32-bit numbers.
_UP_TO_16_BITS = ("PNG", "PPM")


def read_image(file_name: str) -> Image.Image:
    """Read an image file, or generate a picture of the built-in set, as RGB.

    Of 16 bits per channel the upper 8 are taken, in grey as in colour. What is transparent keeps
    the colour that the file stores for it. The first picture of several is taken.

    Raises:
        OSError: if the file cannot be read, whatever the decoder says about it; if it is no
            regular file; if its numbers have no fixed range, as 32-bit integers and floats.
    """
    if file_name.startswith(SYNTHETIC):
        return _generated(file_name)
    try:
        # Opening a pipe would wait for a writer without end.
        if not stat.S_ISREG(os.stat(file_name).st_mode):
            raise OSError("it is no regular file")
        with Image.open(file_name) as image:
            return _as_rgb(image)
    except Exception as e:  # decoders raise many types for a damaged file; all are told
        why = f"{type(e).__name__}: {shown(str(e), 600)}"
        raise OSError(f"{shown(file_name, 300)} cannot be read as an image ({why})") from e


def _as_rgb(image: Image.Image) -> Image.Image:
    # Pillow cuts numbers of more than 8 bits off at 255, so that nearly all of it would be white.
    sixteen = image.mode == "I" and image.format in _UP_TO_16_BITS
    if sixteen or image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        lowest, highest = image.getextrema()
        raise ValueError(
            f"it has 32 bits per pixel, with values from {lowest} to {highest}, and no rule which "
            "of them is white; save it with 8 or 16 bits"
        )
    if "transparency" in image.info:  # Pillow wants it so, or warns
        image = image.convert("RGBA")
    return image.convert("RGB")


@functools.lru_cache(maxsize=2048)  # drawing takes longer than a toy network; 50 KB each
def _generated(file_name: str) -> Image.Image:
    split, index = file_name[len(SYNTHETIC) :].split(":")
    seed = [int.from_bytes(split.encode()), int(index)]
    return Image.fromarray(make_labelled_image(seed, int(index) % len(CLASSES)))
