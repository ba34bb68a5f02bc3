"""A segmentor that looks at an image through overlapping windows.

Shape letters: K classes, H W the image that the network gets, c the side of a window.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from detectron2.modeling import SemanticSegmentor
from mimdet.modeling.meta_arch import refuse_larger
from mimdet.modeling.segmentation.head import resize

_TOO_LARGE = (
    "crop training images to that size (dataloader.train.mapper.augmentations), or raise "
    "model.backbone.img_size"
)
_AT_ONCE = 2**23  # scores of a band of rows, 32 MiB of float32


class SlidingWindowSegmentor(SemanticSegmentor):
    """Detectron2's segmentor, which at test time averages the scores of windows.

    In training it takes crops, padded to the square of the backbone. At test time images of any
    size are cut into windows of that square; one that is smaller is padded by the mean colour.
    The result is a class map: K float32 maps of a photo of 2000x2500 pixels would take 3 GB.

    Args:
        crop_size: side c of the windows, in pixels of the network's input.
        crop_stride: from one window to the next, at most `crop_size`. The last one of a row or
            column is moved back to end with the image.
        windows_per_batch: windows of an image that pass through the network together. More are
            meant for GPUs, and take more memory; the result is the same but for rounding.
        **kwargs: those of Detectron2's SemanticSegmentor.

    Raises:
        ValueError: if the windows would not cover an image.

    Reference:
        Zhao et al. 2017 (PSPNet), arXiv 1612.01105; scores before the softmax are averaged, as
        mmsegmentation does.
    """

    def __init__(
        self, *, crop_size: int, crop_stride: int, windows_per_batch: int = 4, **kwargs: Any
    ):
        super().__init__(**kwargs)
        if not 0 < crop_stride <= crop_size:
            raise ValueError(
                f"windows must cover the image, so crop_stride must be from 1 to crop_size, got "
                f"{crop_stride} and {crop_size} (model.crop_stride, model.crop_size)"
            )
        # 0 is Detectron2's word for no such constraint.
        if crop_size % (divisor := max(self.backbone.size_divisibility, 1)):
            raise ValueError(
                f"windows must be a multiple of what the backbone takes, {divisor} pixels, got "
                f"{crop_size} (model.crop_size)"
            )
        if windows_per_batch < 1:
            raise ValueError(
                f"windows_per_batch must be at least 1, got {windows_per_batch} "
                "(model.windows_per_batch)"
            )
        self.crop_size = crop_size
        self.crop_stride = crop_stride
        self.windows_per_batch = windows_per_batch

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """The losses of a batch in training; class maps otherwise.

        Args:
            batched_inputs: per image a dict with `image`, (C, H, W) with values 0..255; in training
                `sem_seg`, (H, W) labels; at test time where wanted `height` and `width` of the
                output, by default those of the image.

        Returns:
            In training the losses; otherwise per image ``{"sem_seg": (height, width) int32}``.

        Raises:
            ValueError: if a training image does not fit into the square of the backbone.
        """
        if self.training:
            refuse_larger(batched_inputs, self.backbone, _TOO_LARGE)
            return super().forward(batched_inputs)
        outputs = []
        for given in batched_inputs:
            image = (given["image"].to(self.device) - self.pixel_mean) / self.pixel_std
            height, width = (
                given.get(key, side)
                for key, side in zip(("height", "width"), image.shape[-2:], strict=True)
            )
            outputs.append({"sem_seg": class_map(self.scores(image), (height, width))})
        return outputs

    def scores(self, image: Tensor) -> Tensor:
        """The mean of the windows' scores at every pixel.

        Args:
            image: (C, H, W) normalised.

        Returns:
            (K, H, W) float32, before the softmax.
        """
        side, size = self.crop_size, tuple(image.shape[-2:])
        missing = [max(side - length, 0) for length in size]
        padded = F.pad(image, (0, missing[1], 0, missing[0]))  # 0 is the mean colour
        rows, columns = (_starts(n, side, self.crop_stride) for n in padded.shape[-2:])
        total = None
        # One axis after the other tells how many windows lie over a pixel.
        weights = _counts(rows, side, padded)[:, None] * _counts(columns, side, padded)
        windows = itertools.product(rows, columns)
        while some := list(itertools.islice(windows, self.windows_per_batch)):
            crops = torch.stack([padded[:, y : y + side, x : x + side] for y, x in some])
            logits, _ = self.sem_seg_head(self.backbone(crops), None)  # (n, K, c / 4, c / 4)
            if total is None:
                shape = (logits.shape[1], *padded.shape[-2:])
                total = torch.zeros(shape, device=logits.device)
            # One at a time, because K maps of a whole window are the largest tensor here.
            for (y, x), window in zip(some, logits, strict=True):
                place = total[:, y : y + side, x : x + side]
                place += resize(window[None].float(), (side, side))[0]
        total /= weights
        return total[:, : size[0], : size[1]]


def _starts(length: int, side: int, stride: int) -> list[int]:
    """Where the windows along an axis begin; the last one ends with the axis."""
    # Rounded up: the last step may be shorter than the others.
    number = max(length - side + stride - 1, 0) // stride + 1
    return [min(k * stride, length - side) for k in range(number)]


def _counts(starts: list[int], side: int, image: Tensor) -> Tensor:
    """How many windows lie over each place of an axis: (length,)."""
    counts = image.new_zeros(starts[-1] + side, dtype=torch.float32)
    for start in starts:
        counts[start : start + side] += 1
    return counts


def class_map(scores: Tensor, size: tuple[int, int], at_once: int = _AT_ONCE) -> Tensor:
    """The class of the highest score at each pixel of a map that is resized bilinearly.

    Rows are done in bands, so that the scores never exist at the new size.

    Args:
        scores: (K, H, W) float32.
        size: (height, width) of the result.
        at_once: about as many scores make a band.

    Returns:
        (height, width) int32.
    """
    if tuple(scores.shape[-2:]) == tuple(size):
        return _largest(scores)
    rows = max(at_once // (len(scores) * size[1]), 1)
    return torch.cat([_largest(band) for band in _resized_in_bands(scores, size, rows)])


def _largest(scores: Tensor) -> Tensor:
    # The place of the maximum along the first axis: on a CPU argmax takes twice as long.
    return scores.max(dim=0).indices.int()


def _resized_in_bands(scores: Tensor, size: tuple[int, int], rows: int) -> Iterator[Tensor]:
    """(K, H, W) -> bands (K, up to `rows`, width) of the bilinearly resized map.

    Few rows are made wider first, and what lies between two of them is then a blend of whole rows.
    torch's bilinear blends four points for each new one: on a CPU a class map took three times as
    long by it.
    """
    height = scores.shape[1]
    # The sampling points of torch's bilinear, in its own precision: centres of pixels.
    points = ((torch.arange(size[0]) + 0.5) * (height / size[0]) - 0.5).clamp(min=0)
    above = points.long().clamp(max=height - 1)
    shares = (points - above).to(scores.device).split(above.bincount(minlength=height).tolist())
    for first in range(0, height, rows):
        some = scores[:, first : first + rows + 1]
        wide = resize(some[None], (some.shape[1], size[1]))[0]
        for k, between in enumerate(shares[first : first + rows]):
            upper, lower = wide[:, k, None], wide[:, min(k + 1, wide.shape[1] - 1), None]
            for share in between.split(rows):
                yield torch.lerp(upper, lower, share[:, None])
