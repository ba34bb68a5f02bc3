"""From a record to a sample: ``{"image": (3, H, W) tensor, ...}``."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from mimdet.data.imagenet.read import read_image

logger = logging.getLogger(__name__)


class ImageMapper:
    """Reads and transforms the image of a record.

    Args:
        transform: PIL image -> tensor (3, H, W).
        skip_unreadable: return None for a file that cannot be read, with a warning that counts
            them; for training. False raises the error: an evaluation must see every image.
    """

    def __init__(self, transform: Callable[[Image.Image], torch.Tensor], skip_unreadable: bool):
        self.transform = transform
        self.skip_unreadable = skip_unreadable
        self._unreadable: set[str] = set()

    def __call__(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """The record with its `image`; None for an unreadable one that may be skipped."""
        try:
            image = read_image(record["file_name"])
        except OSError as e:
            if not self.skip_unreadable:
                raise
            if record["file_name"] not in self._unreadable:
                self._unreadable.add(record["file_name"])
                logger.warning(f"skipped image {len(self._unreadable)} of this process: {e}")
            return None
        return {**record, "image": self.transform(image)}
