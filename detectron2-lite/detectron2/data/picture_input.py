"""The input of augmentations for a picture that Pillow has read."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from detectron2.data import transforms as T
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.data.transforms.transform import FAST_BILINEAR, unmirrored

# (format, mode): arrays of others are floating point, or come back to Pillow in another mode.
_KEPT = (("RGB", "RGB"), ("BGR", "RGB"), ("L", "L"), (None, "RGB"), (None, "L"))


class PictureInput(T.AugInput):
    """An image that stays with Pillow until somebody looks at its pixels.

    Pillow mirrors, crops and resizes to the very values that the transforms make of an array.
    Without this class a picture would be turned into an array and back for each of them.

    Args:
        picture: as `detection_utils.read_picture` gives it.
        format: that of `picture`, as in `detection_utils.read_image`.
        sem_seg: (H, W) map of integer labels, or None.

    Raises:
        AssertionError: if the pixels are neither uint8 nor floating point.
    """

    def __init__(
        self, picture: Image.Image, format: str | None, *, sem_seg: np.ndarray | None = None
    ):
        self._format = format
        if (format, picture.mode) in _KEPT:
            self._picture: Image.Image | None = picture
            self._array: np.ndarray | None = None  # the same, where somebody has asked for it
            self.boxes, self.sem_seg = None, sem_seg
        else:
            super().__init__(convert_PIL_to_numpy(picture, format), sem_seg=sem_seg)

    @property
    def image(self) -> np.ndarray:
        """(H, W) or (H, W, C); setting it takes the place of the picture."""
        if self._array is None:
            self._array = convert_PIL_to_numpy(self._picture, self._format)
        return self._array

    @image.setter
    def image(self, image: np.ndarray) -> None:
        self._picture, self._array = None, image

    @property
    def canvas(self) -> np.ndarray:
        """An array of the shape of `image`, which takes no memory and has no pixels to look at."""
        if self._array is not None:
            return self._array
        grey = (self._format, self._picture.mode) == (None, "L")
        channels = () if grey else (len(self._picture.getbands()),)
        shape = (self._picture.height, self._picture.width, *channels)
        return np.broadcast_to(np.uint8(0), shape)

    def transform(self, tfm: T.Transform) -> None:
        """Replace all data that is present by its transformed version."""
        if type(tfm) is T.TransformList:
            for part in tfm.transforms:
                self.transform(part)
            return
        picture = _with_pillow(tfm, self._picture)
        if picture is None:
            super().transform(tfm)
        else:
            self._picture, self._array = picture, None
            self.transform_labels(tfm)

    def channels_first(self) -> np.ndarray:
        """The image as a new (C, H, W) array."""
        if self._picture is None:
            # A copy, because the array may be read-only, reversed or a view of a larger image.
            return np.atleast_3d(unmirrored(self._array)).transpose(2, 0, 1).copy()
        # Pillow keeps a picture for BGR as RGB.
        bands = self._picture.split()
        return np.stack(bands[::-1] if self._format == "BGR" else bands)


def _with_pillow(tfm: T.Transform, picture: Image.Image | None) -> Image.Image | None:
    """The transformed picture; None where a transform has to see an array.

    That is so of any class but those here: also of their subclasses, which may do something else.
    """
    do = _PILLOW.get(type(tfm))
    return None if do is None or picture is None else do(tfm, picture)


def _resize(tfm: T.ResizeTransform, picture: Image.Image) -> Image.Image | None:
    if tfm.interp == FAST_BILINEAR:
        return None
    tfm.check_size((picture.height, picture.width))
    return picture.resize((tfm.new_w, tfm.new_h), tfm.interp)


def _crop(tfm: T.CropTransform, picture: Image.Image) -> Image.Image | None:
    # cut as a slice is, while Pillow would add black pixels beyond the edges
    columns = range(picture.width)[tfm.x0 : tfm.x0 + tfm.w]
    rows = range(picture.height)[tfm.y0 : tfm.y0 + tfm.h]
    if not (columns and rows):
        return None
    return picture.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))


def _pad(tfm: T.PadTransform, picture: Image.Image) -> Image.Image | None:
    return None if any((tfm.x0, tfm.y0, tfm.x1, tfm.y1)) else picture


_PILLOW: dict[type[T.Transform], Callable[[T.Transform, Image.Image], Image.Image | None]] = {
    T.NoOpTransform: lambda _, picture: picture,
    T.HFlipTransform: lambda _, picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    T.VFlipTransform: lambda _, picture: picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    T.ResizeTransform: _resize,
    T.CropTransform: _crop,
    T.PadTransform: _pad,
}
