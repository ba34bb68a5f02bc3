"""Folders of images with label maps as people have them: a red square on a blue ground each."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 48
GROUND, SQUARE = (40, 90, 240), (230, 60, 40)


def write_pair(image: Path, labels: Path, place: int = 0, values: tuple[int, int] = (0, 1)) -> None:
    """An image, and its label map with these values for ground and square."""
    square = np.zeros((SIDE, SIDE), dtype=bool)
    shift = 4 * (place % 4)
    square[8 + shift : 28 + shift, 10:32] = True
    pixels = np.where(square[:, :, None], SQUARE, GROUND).astype(np.uint8)
    for path, array in (
        (image, pixels),
        (labels, np.where(square, values[1], values[0]).astype(np.uint8)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


def write_part(images: Path, labels: Path, number: int = 4, **options) -> None:
    """`number` images and their label maps."""
    for place in range(number):
        write_pair(images / f"{place}.jpg", labels / f"{place}.png", place, **options)


def write_folder(root: Path, number: int = 4, **options) -> Path:
    """The usual layout: images/{train,val} beside labels/{train,val}."""
    for split, count in (("train", number), ("val", 2)):
        write_part(root / "images" / split, root / "labels" / split, count, **options)
    return root
