import sys
from collections.abc import Sequence

import numpy as np
from fvcore.transforms.transform import (
    BlendTransform,
    HFlipTransform,
    NoOpTransform,
    PadTransform,
    Transform,
    TransformList,
    VFlipTransform,
)
from PIL import Image

from detectron2.data.transforms.augmentation import (
    AugInput,
    Augmentation,
    as_augmentation,
    by_shape,
)
from detectron2.data.transforms.transform import CropTransform, ResizeTransform

__all__ = [
    "FixedSizeCrop",
    "RandomApply",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomCrop_CategoryAreaConstraint",
    "RandomFlip",
    "RandomResize",
    "RandomSaturation",
    "Resize",
    "ResizeScale",
    "ResizeShortestEdge",
]

# Which random numbers are drawn, and in which order, decides whether a seed gives the same
# training samples as upstream Detectron2; the tests pin it.


class RandomApply(Augmentation):
    """Apply an augmentation with a given probability, else nothing.

    Args:
        tfm_or_aug: the `Augmentation` or `Transform`.
        prob: its probability in [0, 1].

    Raises:
        AssertionError: if `prob` is out of range.
    """

    def __init__(self, tfm_or_aug: Augmentation | Transform, prob: float = 0.5):
        assert 0.0 <= prob <= 1.0, f"prob must be in [0, 1], got {prob}"
        self._init(locals())
        self.aug = as_augmentation(tfm_or_aug)

    def get_transform(self, *args: np.ndarray) -> Transform:
        """The transform of the inner augmentation, or one that does nothing."""
        return self.aug.get_transform(*args) if self._is_taken() else NoOpTransform()

    def __call__(self, aug_input: AugInput) -> Transform:
        """Apply the inner augmentation to `aug_input`, or nothing."""
        return self.aug(aug_input) if self._is_taken() else NoOpTransform()

    def _is_taken(self) -> bool:
        return self._rand_range() < self.prob


class RandomFlip(Augmentation):
    """Flip the image with a given probability.

    Args:
        prob: probability in [0, 1].
        horizontal: mirror left and right.
        vertical: mirror top and bottom; exactly one of the two must be set.

    Raises:
        ValueError: if both or neither direction is set.
    """

    def __init__(self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False):
        if bool(horizontal) == bool(vertical):
            raise ValueError(
                "exactly one of horizontal and vertical must be set, got "
                f"horizontal={horizontal}, vertical={vertical}; use two RandomFlip for both"
            )
        self._init(locals())

    @by_shape
    def get_transform(self, image: np.ndarray) -> Transform:
        """A flip, or a transform that does nothing."""
        height, width = image.shape[:2]
        if self._rand_range() >= self.prob:
            return NoOpTransform()
        return HFlipTransform(width) if self.horizontal else VFlipTransform(height)


class Resize(Augmentation):
    """Resize every image to one size, whatever its aspect ratio.

    Args:
        shape: (height, width) in pixels, or one number for both.
        interp: a `PIL.Image.Resampling` filter, or "fast_bilinear" (see `ResizeTransform`).
    """

    def __init__(self, shape: int | tuple[int, int], interp: int | str = Image.Resampling.BILINEAR):
        shape = (shape, shape) if isinstance(shape, int) else tuple(shape)
        self._init(locals())

    @by_shape
    def get_transform(self, image: np.ndarray) -> Transform:
        """The resize to `shape`."""
        return ResizeTransform(*image.shape[:2], *self.shape, self.interp)


class RandomResize(Augmentation):
    """Resize to a random entry of a list of sizes.

    Args:
        shape_list: (height, width) pairs in pixels.
        interp: a `PIL.Image.Resampling` filter, or "fast_bilinear" (see `ResizeTransform`).
    """

    def __init__(
        self, shape_list: Sequence[tuple[int, int]], interp: int | str = Image.Resampling.BILINEAR
    ):
        self._init(locals())

    @by_shape
    def get_transform(self, image: np.ndarray) -> Transform:
        """The resize to the drawn size."""
        shape = self.shape_list[np.random.randint(len(self.shape_list))]
        return ResizeTransform(*image.shape[:2], *shape, self.interp)


class ResizeShortestEdge(Augmentation):
    """Resize so that the shorter side has a given or random length, keeping the aspect ratio.

    Args:
        short_edge_length: lengths in pixels, or one number. With "range" exactly two: the smallest
            and the largest length; with "choice" a list to choose from. The length 0 means that
            the image stays as it is.
        max_size: limit of the longer side in pixels; the image shrinks further where it is hit.
        sample_style: "range" or "choice".
        interp: a `PIL.Image.Resampling` filter, or "fast_bilinear" (see `ResizeTransform`).

    Raises:
        AssertionError: if `sample_style` is another one, or "range" is given with other than two
            lengths.
    """

    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int | str = Image.Resampling.BILINEAR,
    ):
        assert sample_style in ("range", "choice"), (
            f"sample_style must be 'range' or 'choice', got {sample_style!r}"
        )
        if isinstance(short_edge_length, int):
            short_edge_length = (short_edge_length, short_edge_length)
        assert sample_style == "choice" or len(short_edge_length) == 2, (
            "short_edge_length must be (smallest, largest) with sample_style='range', "
            f"got {short_edge_length}; for a list of lengths use sample_style='choice'"
        )
        self._init(locals())

    @by_shape
    def get_transform(self, image: np.ndarray) -> Transform:
        """The resize to the drawn length."""
        if self.sample_style == "range":
            smallest, largest = self.short_edge_length
            length = np.random.randint(smallest, largest + 1)
        else:
            length = np.random.choice(self.short_edge_length)
        if length == 0:
            return NoOpTransform()
        height, width = image.shape[:2]
        shape = self.get_output_shape(height, width, int(length), self.max_size)
        return ResizeTransform(height, width, *shape, self.interp)

    @staticmethod
    def get_output_shape(
        oldh: int, oldw: int, short_edge_length: int, max_size: int
    ) -> tuple[int, int]:
        """The size after resizing.

        Args:
            oldh: height in pixels.
            oldw: width in pixels.
            short_edge_length: wanted length of the shorter side.
            max_size: limit of the longer side.

        Returns:
            (height, width), at least one pixel each.
        """
        scale = short_edge_length / min(oldh, oldw)
        # The shorter side is set, not multiplied, so that it is exact.
        height = scale * oldh if oldh > oldw else float(short_edge_length)
        width = scale * oldw if oldw > oldh else float(short_edge_length)
        if max(height, width) > max_size:
            shrink = max_size / max(height, width)
            height, width = height * shrink, width * shrink
        return max(int(height + 0.5), 1), max(int(width + 0.5), 1)


class ResizeScale(Augmentation):
    """Resize to fit into a randomly scaled target size, keeping the aspect ratio.

    With `FixedSizeCrop` this is large scale jittering.

    Args:
        min_scale: smallest factor on the target size.
        max_scale: largest factor on the target size.
        target_height: height in pixels at scale 1.
        target_width: width in pixels at scale 1.
        interp: a `PIL.Image.Resampling` filter, or "fast_bilinear" (see `ResizeTransform`).

    Reference: Ghiasi et al. 2021, "Simple Copy-Paste is a Strong Data Augmentation Method for
    Instance Segmentation", arXiv 2012.07177.
    """

    def __init__(
        self,
        min_scale: float,
        max_scale: float,
        target_height: int,
        target_width: int,
        interp: int | str = Image.Resampling.BILINEAR,
    ):
        self._init(locals())

    @by_shape
    def get_transform(self, image: np.ndarray) -> Transform:
        """The resize at the drawn scale."""
        scale = np.random.uniform(self.min_scale, self.max_scale)
        height, width = image.shape[:2]
        factor = min(scale * self.target_height / height, scale * self.target_width / width)
        # Upstream rounds halves to even here, and up in `ResizeShortestEdge`.
        new_height, new_width = np.round(np.array([height, width]) * factor).astype(int).tolist()
        return ResizeTransform(height, width, max(new_height, 1), max(new_width, 1), self.interp)


class FixedSizeCrop(Augmentation):
    """Crop to a size at a random place; pad to it at the right and bottom where it is larger.

    One random number serves both axes, as in upstream Detectron2, so the places lie on a
    diagonal of the image.

    Args:
        crop_size: (height, width) in pixels.
        pad: if smaller images are padded.
        pad_value: value of padded pixels in the range of the image, before normalisation.
        seg_pad_value: label of padded pixels in segmentation maps.
    """

    def __init__(
        self,
        crop_size: tuple[int, int],
        pad: bool = True,
        pad_value: float = 128.0,
        seg_pad_value: int = 255,
    ):
        self._init(locals())

    @by_shape
    def get_transform(self, image: np.ndarray) -> TransformList:
        """The crop, followed by the padding if `pad`."""
        # Drawn also where there is nothing to crop, for upstream's order of random numbers.
        place = self._rand_range()
        height, width = image.shape[:2]
        crop_height, crop_width = self.crop_size
        spare = np.maximum([height - crop_height, width - crop_width], 0)
        y0, x0 = np.round(spare * place).astype(int).tolist()
        # A window beyond the border is cut short, as slices are; the padding makes up for it.
        transforms = [CropTransform(x0, y0, crop_width, crop_height, width, height)]
        if self.pad:
            transforms.append(
                PadTransform(
                    0,
                    0,
                    max(crop_width - width, 0),
                    max(crop_height - height, 0),
                    # The size of what is padded: that after the crop.
                    min(crop_width, width),
                    min(crop_height, height),
                    self.pad_value,
                    self.seg_pad_value,
                )
            )
        return TransformList(transforms)


class RandomCrop(Augmentation):
    """Crop a window at a random place.

    Args:
        crop_type: how the size of the window follows from `crop_size`:
            "relative": those fractions of (height, width), in (0, 1];
            "relative_range": fractions drawn between those of `crop_size` and 1;
            "absolute": (height, width) in pixels, or the image where that is smaller;
            "absolute_range": height and width each drawn from [crop_size[0], crop_size[1]] pixels.
        crop_size: two numbers.

    Raises:
        AssertionError: if `crop_type` is another one, or `crop_size` is out of range for it.
    """

    def __init__(self, crop_type: str, crop_size: Sequence[float]):
        types = ("relative_range", "relative", "absolute", "absolute_range")
        assert crop_type in types, f"crop_type must be one of {types}, got {crop_type!r}"
        first, second = crop_size
        if crop_type.startswith("relative"):
            in_range, rule = 0 < first <= 1 and 0 < second <= 1, "two fractions in (0, 1]"
        elif crop_type == "absolute":
            in_range, rule = first > 0 and second > 0, "two positive numbers of pixels"
        else:
            in_range, rule = 0 < first <= second, "(smallest, largest) number of pixels"
        assert in_range, f"crop_size must be {rule} with {crop_type!r}, got {crop_size}"
        self._init({"crop_type": crop_type, "crop_size": crop_size})

    @by_shape
    def get_transform(self, image: np.ndarray) -> Transform:
        """The crop of the drawn window."""
        height, width = image.shape[:2]
        crop_height, crop_width = self.get_crop_size((height, width))
        y0 = np.random.randint(height - crop_height + 1)
        x0 = np.random.randint(width - crop_width + 1)
        return CropTransform(x0, y0, crop_width, crop_height, width, height)

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Draw the size of the window.

        Args:
            image_size: (height, width) in pixels.

        Returns:
            (height, width) in pixels.
        """
        height, width = image_size
        first, second = self.crop_size
        if self.crop_type == "absolute":
            return min(first, height), min(second, width)
        if self.crop_type == "absolute_range":
            crop_height = np.random.randint(min(height, first), min(height, second) + 1)
            crop_width = np.random.randint(min(width, first), min(width, second) + 1)
            return crop_height, crop_width
        if self.crop_type == "relative_range":
            # float32 as in upstream, whose sizes these are to be.
            smallest = np.asarray(self.crop_size, dtype=np.float32)
            first, second = smallest + np.random.rand(2) * (1 - smallest)
        return int(height * first + 0.5), int(width * second + 0.5)


class RandomCrop_CategoryAreaConstraint(Augmentation):
    """`RandomCrop` that looks for a window of at least two classes, none of which covers too much.

    Up to ten windows are drawn; the tenth is taken as it is.

    Args:
        crop_type: see `RandomCrop`.
        crop_size: see `RandomCrop`.
        single_category_max_area: largest share of a window's pixels that one class may have;
            1.0 for any.
        ignored_category: label of pixels that do not count; None for none.
    """

    def __init__(
        self,
        crop_type: str,
        crop_size: Sequence[float],
        single_category_max_area: float = 1.0,
        ignored_category: int | None = None,
    ):
        self.crop_aug = RandomCrop(crop_type, crop_size)
        self._init(locals())

    @by_shape
    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> Transform:
        """The crop of the drawn window.

        Args:
            image: (H, W, ...).
            sem_seg: (H, W) labels.
        """
        if self.single_category_max_area >= 1.0:
            return self.crop_aug.get_transform(image)
        for _ in range(10):
            crop = self.crop_aug.get_transform(image)
            if self._is_mixed(crop.apply_segmentation(sem_seg)):
                break
        return crop

    def _is_mixed(self, labels: np.ndarray) -> bool:
        classes, pixels = np.unique(labels, return_counts=True)
        if self.ignored_category is not None:
            pixels = pixels[classes != self.ignored_category]
        return len(pixels) > 1 and pixels.max() < pixels.sum() * self.single_category_max_area


class RandomBrightness(Augmentation):
    """Multiply the image by a random factor.

    Args:
        intensity_min: smallest factor; below 1 is darker, less contrast or greyer.
        intensity_max: largest factor; above 1 is brighter, more contrast or more colourful.
    """

    def __init__(self, intensity_min: float, intensity_max: float):
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        """The blend of the image with what is left of it at factor 0."""
        weight = np.random.uniform(self.intensity_min, self.intensity_max)
        return BlendTransform(self._at_zero(image), src_weight=1 - weight, dst_weight=weight)

    def _at_zero(self, image: np.ndarray) -> float | np.ndarray:
        return 0


class RandomContrast(RandomBrightness):
    """Scale the distance of all pixels from the mean of the image; see `RandomBrightness`."""

    def _at_zero(self, image: np.ndarray) -> float | np.ndarray:
        return image.mean()


class RandomSaturation(RandomBrightness):
    """Scale the distance of all pixels of an RGB image from their grey; see `RandomBrightness`.

    Raises:
        AssertionError: on a call, if the image is not (H, W, 3).
    """

    def _at_zero(self, image: np.ndarray) -> float | np.ndarray:
        assert image.ndim == 3 and image.shape[2] == 3, (
            f"RandomSaturation needs an RGB image (H, W, 3), got shape {image.shape}"
        )
        return image.dot([0.299, 0.587, 0.114])[:, :, None]  # (H, W, 1), luma of BT.601
