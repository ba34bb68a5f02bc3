from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class ImageList:
    """A batch of images of different sizes, padded at the right and bottom to one size.

    Args:
        tensor: (N, C, H, W) the padded images.
        image_sizes: the (height, width) of each image without its padding.
    """

    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensor = tensor
        self.image_sizes = image_sizes

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, index: int) -> Tensor:
        """Image `index` without its padding, (C, h, w), a view."""
        height, width = self.image_sizes[index]
        return self.tensor[index, ..., :height, :width]

    def to(self, *args: Any, **kwargs: Any) -> "ImageList":
        """A new list whose tensor went through `torch.Tensor.to`."""
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.tensor.device

    @staticmethod
    def from_tensors(
        tensors: Sequence[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: Mapping[str, int] | None = None,
    ) -> "ImageList":
        """Pad images to a common size and stack them.

        Args:
            tensors: images (C, h, w), or (h, w), that agree in all but the last two sizes.
            size_divisibility: both sides become multiples of it; 0 and 1 ask for nothing.
            pad_value: value of the padding. Images are padded after they were normalised, so 0
                is the mean colour.
            padding_constraints: `"square_size"`, if positive, is the length of both sides in
                place of the largest height and width; `"size_divisibility"` replaces the
                argument of that name.

        Raises:
            AssertionError: if there are no images or their leading sizes differ.
            RuntimeError: if an image is larger than the square.
        """
        tensors = list(tensors)
        assert tensors, "ImageList.from_tensors needs at least one image, got none"
        leading = tensors[0].shape[:-2]
        for index, image in enumerate(tensors):
            assert isinstance(image, Tensor) and image.shape[:-2] == leading, (
                "images of a batch must be tensors that agree in all but height and width, got "
                f"{tuple(image.shape)} at index {index} beside {tuple(tensors[0].shape)}"
            )
        image_sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in tensors]
        height, width = _padded_size(image_sizes, size_divisibility, padding_constraints or {})
        batch = tensors[0].new_full((len(tensors), *leading, height, width), pad_value)
        for index, (image, (h, w)) in enumerate(zip(tensors, image_sizes, strict=True)):
            batch[index, ..., :h, :w].copy_(image)
        return ImageList(batch, image_sizes)


def _padded_size(
    image_sizes: list[tuple[int, int]], size_divisibility: int, constraints: Mapping[str, int]
) -> tuple[int, int]:
    """The (height, width) to which images of `image_sizes` are padded."""
    largest = [max(sides) for sides in zip(*image_sizes, strict=True)]
    square_size = constraints.get("square_size", 0)
    divisor = max(constraints.get("size_divisibility", size_divisibility), 1)
    sides = [square_size, square_size] if square_size > 0 else largest
    height, width = (-(-side // divisor) * divisor for side in sides)  # rounded up
    return height, width
