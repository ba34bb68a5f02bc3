"""A random resize by a continuous ratio."""

import numpy as np
from PIL import Image

from detectron2.data.transforms import Augmentation, ResizeShortestEdge, ResizeTransform


class RandomRatioResize(Augmentation):
    """Fit an image into a rectangle of random size, keeping its aspect ratio.

    A ratio is drawn uniformly; the shorter side gets ``int(short_edge_length * ratio)`` pixels
    unless the longer one would pass ``int(max_size * ratio)``. `ResizeShortestEdge` draws whole
    pixels and leaves `max_size` as it is.

    Args:
        short_edge_length: of the shorter side at ratio 1, in pixels.
        max_size: limit of the longer side at ratio 1, in pixels.
        min_ratio: the smallest ratio, above 0.
        max_ratio: the largest ratio.
        interp: a `PIL.Image.Resampling` filter for the image; label maps take the nearest pixel.

    Raises:
        ValueError: if there is no such ratio.

    Reference:
        The multi-scale training of mmsegmentation's ADE20K recipes. That reduces images without
        antialiasing and rounds label maps down; here both are done by Pillow, as everywhere in
        Detectron2, so that borders of label maps may lie a pixel beside.
    """

    def __init__(
        self,
        short_edge_length: int,
        max_size: int,
        min_ratio: float = 0.5,
        max_ratio: float = 2.0,
        interp: int = Image.Resampling.BILINEAR,
    ):
        if not 0 < min_ratio <= max_ratio:
            raise ValueError(
                "ratios must be above 0, the smaller one first, got "
                f"{min_ratio} and {max_ratio} (dataloader.train.mapper.augmentations)"
            )
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> ResizeTransform:
        """The resize by a ratio from numpy's global generator."""
        height, width = image.shape[:2]
        ratio = np.random.uniform(self.min_ratio, self.max_ratio)
        return ResizeTransform(height, width, *self.output_shape(height, width, ratio), self.interp)

    def output_shape(self, height: int, width: int, ratio: float) -> tuple[int, int]:
        """(height, width) of an image after a resize by `ratio`."""
        short, long = int(self.short_edge_length * ratio), int(self.max_size * ratio)
        return ResizeShortestEdge.get_output_shape(height, width, short, long)
