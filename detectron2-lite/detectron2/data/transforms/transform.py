import numpy as np
import torch
import torch.nn.functional as F
from fvcore.transforms.transform import Transform
from PIL import Image

__all__ = ["ResizeTransform"]

_TORCH_MODES = {
    Image.Resampling.NEAREST: "nearest",
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.BICUBIC: "bicubic",
}


class ResizeTransform(Transform):
    """Resize an image from h x w to new_h x new_w pixels.

    uint8 images go through Pillow, whose filters are antialiased when shrinking. Other dtypes go
    through `torch.nn.functional.interpolate`, which is not antialiased, so the same picture gives
    different numbers as uint8 and as float.

    Args:
        h: height of the input in pixels.
        w: width of the input in pixels.
        new_h: height of the output in pixels.
        new_w: width of the output in pixels.
        interp: a `PIL.Image.Resampling` filter; None means BILINEAR. Arrays other than uint8
            allow NEAREST, BILINEAR and BICUBIC.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None):
        super().__init__()
        self.h, self.w = h, w
        self.new_h, self.new_w = new_h, new_w
        self.interp = Image.Resampling.BILINEAR if interp is None else interp

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
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
        assert img.shape[:2] == (self.h, self.w), (
            f"this transform resizes images of height and width {(self.h, self.w)}, "
            f"got an array of shape {img.shape}"
        )
        interp = self.interp if interp is None else interp
        resize = self._resize_uint8 if img.dtype == np.uint8 else self._resize_tensor
        return resize(img, interp)

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
        # Pillow knows single-channel images without a channel axis only.
        single_channel = img.ndim == 3 and img.shape[2] == 1
        image = Image.fromarray(img[:, :, 0] if single_channel else img)
        resized = np.asarray(image.resize((self.new_w, self.new_h), interp))
        return resized[:, :, None] if single_channel else resized

    def _resize_tensor(self, img: np.ndarray, interp: int) -> np.ndarray:
        if interp not in _TORCH_MODES:
            raise ValueError(
                f"arrays of dtype {img.dtype} are resized with one of "
                f"{[mode.name for mode in _TORCH_MODES]}, got interp={interp!r}; "
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
