import numpy as np
import torch
import torch.nn.functional as F
from fvcore.transforms import transform as fvcore
from PIL import Image

__all__ = ["CropTransform", "ResizeTransform"]

FAST_BILINEAR = "fast_bilinear"

_TORCH_MODES = {
    Image.Resampling.NEAREST: "nearest",
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.BICUBIC: "bicubic",
    FAST_BILINEAR: "bilinear",
}


class ResizeTransform(fvcore.Transform):
    """Resize an image from h x w to new_h x new_w pixels.

    uint8 images go through Pillow, whose filters are antialiased when shrinking. Other dtypes go
    through `torch.nn.functional.interpolate`, which is not antialiased, so the same picture gives
    different numbers as uint8 and as float.

    With `interp="fast_bilinear"` torch resizes uint8 images of one or three channels too,
    antialiased like Pillow and more than twice as fast (those with alpha, which Pillow weights,
    stay with Pillow). The values differ from those of Pillow, and so from upstream Detectron2, by
    at most one grey level; sizes, random numbers, boxes, polygons and label maps do not differ.
    Choose it for throughput in training, not where numbers of upstream are to be reproduced.

    Args:
        h: height of the input in pixels.
        w: width of the input in pixels.
        new_h: height of the output in pixels.
        new_w: width of the output in pixels.
        interp: a `PIL.Image.Resampling` filter, or "fast_bilinear"; None means BILINEAR. Arrays
            other than uint8 allow NEAREST, BILINEAR, BICUBIC and "fast_bilinear", which is BILINEAR
            for them.

    Raises:
        ValueError: if `interp` is another string.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | str | None = None):
        super().__init__()
        if isinstance(interp, str) and interp != FAST_BILINEAR:
            raise ValueError(
                f"interp must be a PIL.Image.Resampling filter or {FAST_BILINEAR!r}, got {interp!r}"
            )
        self.h, self.w = h, w
        self.new_h, self.new_w = new_h, new_w
        self.interp = Image.Resampling.BILINEAR if interp is None else interp

    def apply_image(self, img: np.ndarray, interp: int | str | None = None) -> np.ndarray:
        """Resize an image.

        Args:
            img: (h, w) or (h, w, C).
            interp: filter for this call; None means that of the constructor.

        Returns:
            (new_h, new_w) or (new_h, new_w, C), of the dtype of `img`.

        Raises:
            AssertionError: if `img` is not h x w.
            ValueError: if the filter does not exist for the dtype of `img`.
        """
        self.check_size(img.shape)
        interp = self.interp if interp is None else interp
        if img.dtype != np.uint8:
            return self._resize_tensor(img, interp)
        if interp != FAST_BILINEAR:
            return self._resize_uint8(img, interp)
        if img.shape[2:] in ((), (1,), (3,)):
            return self._resize_antialiased(img)
        return self._resize_uint8(img, Image.Resampling.BILINEAR)

    def check_size(self, shape: tuple[int, ...]) -> None:
        """AssertionError if an image of (height, width, ...) is not h x w."""
        assert shape[:2] == (self.h, self.w), (
            f"this transform resizes images of height and width {(self.h, self.w)}, "
            f"got an array of shape {shape}"
        )

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale (N, 2) points (x, y) in place; integer arrays would be truncated."""
        coords[:, 0] *= self.new_w / self.w
        coords[:, 1] *= self.new_h / self.h
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Resize an (h, w) map of labels with nearest interpolation."""
        return self.apply_image(segmentation, interp=Image.Resampling.NEAREST)

    def inverse(self) -> "ResizeTransform":
        """The transform back to h x w."""
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)

    def _resize_uint8(self, img: np.ndarray, interp: int) -> np.ndarray:
        img = unmirrored(img)
        # Pillow knows single-channel images without a channel axis only.
        single_channel = img.ndim == 3 and img.shape[2] == 1
        image = Image.fromarray(img[:, :, 0] if single_channel else img)
        resized = np.asarray(image.resize((self.new_w, self.new_h), interp))
        return resized[:, :, None] if single_channel else resized

    def _resize_antialiased(self, img: np.ndarray) -> np.ndarray:
        tensor = _as_tensor(unmirrored(img))
        # Without a copy (1, C, h, w) in "channels last" order, for which torch is fastest.
        tensor = tensor.reshape(1, self.h, self.w, -1).permute(0, 3, 1, 2)
        resized = F.interpolate(
            tensor, size=(self.new_h, self.new_w), mode="bilinear", antialias=True
        )
        resized = resized[0].permute(1, 2, 0).numpy()  # (new_h, new_w, C)
        return resized[:, :, 0] if img.ndim == 2 else resized

    def _resize_tensor(self, img: np.ndarray, interp: int | str) -> np.ndarray:
        if interp not in _TORCH_MODES:
            raise ValueError(
                f"arrays of dtype {img.dtype} are resized with one of "
                f"{[getattr(mode, 'name', mode) for mode in _TORCH_MODES]}, got interp={interp!r}; "
                "use another filter or a uint8 image"
            )
        # torch takes neither negative strides nor integers: float64 holds labels exactly
        dtype = img.dtype if np.issubdtype(img.dtype, np.floating) else np.float64
        tensor = torch.from_numpy(np.array(img, dtype=dtype, order="C"))
        tensor = tensor.reshape(1, self.h, self.w, -1).permute(0, 3, 1, 2)  # (1, C, h, w)
        mode = _TORCH_MODES[interp]
        resized = F.interpolate(
            tensor,
            size=(self.new_h, self.new_w),
            mode=mode,
            align_corners=None if mode == "nearest" else False,
        )
        resized = resized[0].permute(1, 2, 0)  # (new_h, new_w, C)
        resized = resized.reshape(self.new_h, self.new_w, *img.shape[2:])
        return resized.numpy().astype(img.dtype, copy=False)


class CropTransform(fvcore.CropTransform):
    """fvcore's, but polygons outside of the window never reach shapely."""

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        """The parts of (n, 2) polygons in the window, as (m, 2); those without area are left out.

        One that is all inside goes through shapely as well, which changes its first corner.
        """
        low = np.array([self.x0, self.y0])
        high = low + [self.w, self.h]
        near = [p for p in polygons if (p.max(axis=0) > low).all() and (p.min(axis=0) < high).all()]
        return super().apply_polygons(near) if near else []


def unmirrored(img: np.ndarray) -> np.ndarray:
    """An array of the same values without negative strides; `img` itself if it has none.

    Flips and BGR give such views, and torch turns them around in a tenth of numpy's time.
    """
    mirrored = [axis for axis, stride in enumerate(img.strides) if stride < 0]
    return _as_tensor(np.flip(img, mirrored)).flip(mirrored).numpy() if mirrored else img


def _as_tensor(img: np.ndarray) -> torch.Tensor:
    """A tensor without a copy, except of read-only arrays, which torch does not take."""
    return torch.from_numpy(img if img.flags.writeable else img.copy())
