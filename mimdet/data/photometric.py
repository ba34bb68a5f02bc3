"""Photometric distortion of 8-bit images: brightness, contrast, saturation and hue.

Hue and saturation live in the 8-bit HSV of OpenCV, computed here by its integer rule: hue in steps
of 2 degrees (0..179), saturation and value in 0..255.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from detectron2.data.transforms import Augmentation, NoOpTransform, TransformList

_HUES = 180
_LEVELS = np.arange(256, dtype=np.float32)
# Reciprocals with 12 fractional bits, of the value and of six times the chroma; 0 for black, grey.
_DIVISORS = np.maximum(np.arange(256), 1)
_PER_VALUE = np.rint(255 * 4096 / _DIVISORS).astype(np.int32) * (np.arange(256) > 0)
_PER_CHROMA = np.rint(_HUES * 4096 / (6 * _DIVISORS)).astype(np.int32) * (np.arange(256) > 0)


def _shares_of_chroma() -> np.ndarray:
    """How far R, G, B fall below the value at each hue, in parts of the chroma: (3, 180)."""
    sector = np.arange(_HUES) / (_HUES / 6)
    # Distance from the hue at which the channel is largest, on the circle of six sectors: up to
    # one sector away it is the value itself, from two on it has the full chroma less.
    distance = np.abs((sector - np.array([[0], [2], [4]]) + 3) % 6 - 3)
    return np.clip(distance - 1, 0, 1).astype(np.float32)


_SHARES = _shares_of_chroma()


class PhotometricDistortion(Augmentation):
    """Distort brightness, contrast, saturation and hue, each with probability one half.

    The order is brightness, contrast, saturation, hue, or with contrast at the end, by a fair
    coin. Results are cut to 0..255 after each step. Random numbers come from numpy's global
    generator, drawn as mmsegmentation draws them.

    Images are RGB. Of a BGR image hues turn the other way, which is as likely.

    Args:
        brightness: largest number that is added to or taken from all levels.
        contrast: smallest and largest factor of all levels.
        saturation: smallest and largest factor of the saturation.
        hue: largest turn of the hue, in steps of 2 degrees.

    Raises:
        ValueError: if a range is empty or negative.

    Reference:
        Liu et al. 2016 (SSD), arXiv 1512.02325, section 2.2, in the form of mmsegmentation, without
        OpenCV: saturated and turned colours are within 1 level.
    """

    def __init__(
        self,
        brightness: float = 32,
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: int = 18,
    ):
        for name, (low, high) in (("contrast", contrast), ("saturation", saturation)):
            if not 0 <= low <= high:
                raise ValueError(
                    f"{name} must be two factors, the smaller one from 0 on first, got "
                    f"{(low, high)} (PhotometricDistortion, dataloader.train.mapper.augmentations)"
                )
        if brightness < 0 or hue < 1:
            raise ValueError(
                "brightness must be at least 0 and hue at least 1, got "
                f"{brightness} and {hue} (PhotometricDistortion, "
                "dataloader.train.mapper.augmentations)"
            )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> TransformList:
        """The drawn steps.

        Args:
            image: (H, W, 3) uint8.

        Raises:
            ValueError: if the image is of another kind.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                "PhotometricDistortion needs RGB images (H, W, 3) of 8 bits, got "
                f"{image.dtype} {image.shape}; put it before what makes floats, and set "
                "dataloader.train.mapper.image_format=RGB"
            )
        steps = []
        if _coin():
            shift = np.random.uniform(-self.brightness, self.brightness)
            steps.append(partial(change_levels, shift=shift))
        early = _coin()
        if early:
            steps += self._draw_contrast()
        if _coin():
            factor = np.random.uniform(*self.saturation)
            steps.append(partial(change_saturation, factor=factor))
        if _coin():
            turn = np.random.randint(-self.hue, self.hue)  # one step less to the right
            steps.append(partial(turn_hue, turn=turn))
        if not early:
            steps += self._draw_contrast()
        return TransformList([PixelTransform(step) for step in steps])

    def _draw_contrast(self) -> list[Callable[[np.ndarray], np.ndarray]]:
        if not _coin():
            return []
        factor = np.random.uniform(*self.contrast)
        return [partial(change_levels, factor=factor)]


class PixelTransform(NoOpTransform):
    """Changes the colours of an image and nothing else.

    Args:
        change: (H, W, 3) uint8 -> the same shape and type.
    """

    def __init__(self, change: Callable[[np.ndarray], np.ndarray]):
        super().__init__()
        self._change = change

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """The changed image."""
        return self._change(img)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """The label map as it is; by default a transform treats it like an image."""
        return segmentation


def _coin() -> bool:
    return bool(np.random.randint(2))


def change_levels(image: np.ndarray, factor: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """``factor * level + shift``, cut to 0..255 and rounded down.

    Args:
        image: uint8 of any shape.
        factor: of the contrast, about black.
        shift: of the brightness, in levels.
    """
    return np.clip(_LEVELS * factor + shift, 0, 255).astype(np.uint8).take(image)


def change_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the saturation, (H, W, 3) uint8 RGB -> the same."""
    hue, saturation, value = to_hsv(image)
    return from_hsv(hue, change_levels(saturation, factor), value)


def turn_hue(image: np.ndarray, turn: int) -> np.ndarray:
    """Add `turn` steps of 2 degrees to the hue, (H, W, 3) uint8 RGB -> the same."""
    hue, saturation, value = to_hsv(image)
    return from_hsv((hue + turn) % _HUES, saturation, value)


def to_hsv(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue 0..179 (int32), saturation and value 0..255 (uint8) as OpenCV computes them.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        Three maps (H, W).
    """
    red, green, blue = np.ascontiguousarray(np.moveaxis(image, 2, 0))
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    # 2048 is one half of the 12 fractional bits: both results are rounded.
    saturation = (chroma * _PER_VALUE.take(value) + 2048) >> 12
    # Six sectors of length `chroma`, counted from red. Where channels tie, red and green win.
    red, green, blue, wide = (x.astype(np.int16) for x in (red, green, blue, chroma))
    sector = red - green + 4 * wide
    np.copyto(sector, blue - red + 2 * wide, where=value == green)
    np.copyto(sector, green - blue, where=value == red)
    hue = (sector * _PER_CHROMA.take(chroma) + 2048) >> 12
    hue += _HUES * (hue < 0)
    return hue, saturation.astype(np.uint8), value


def from_hsv(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Three maps (H, W), as `to_hsv` gives them -> (H, W, 3) uint8 RGB."""
    chroma = saturation * (value * np.float32(1 / 255))
    planes = np.empty((3, *value.shape), dtype=np.uint8)
    for plane, shares in zip(planes, _SHARES, strict=True):
        # A sum of positive numbers: to round, half a level is added and the rest cut off.
        plane[:] = value - chroma * shares.take(hue) + np.float32(0.5)
    return np.moveaxis(planes, 0, 2)
