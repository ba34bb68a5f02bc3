"""What masked image modelling predicts: numbers for every cell of a grid over the image.

A target has `cell_size`, the side of a cell in pixels, and `channels`, the numbers of a cell.
Called with normalised images (B, 3, H, W), it gives (B, channels, h, w) for h x w cells, without
gradient and in float32 whatever the autocast.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class PixelTarget(nn.Module):
    """The pixels of a cell in the order (row, column, colour).

    Args:
        cell_size: side of a cell in pixels.
        normalize: subtract a cell's mean and divide by its standard deviation, over all its
            numbers (``norm_pix_loss``).

    Reference:
        He et al. 2021 (MAE), arXiv 2111.06377, section 3 ("Reconstruction target"); with the
        unbiased variance and 1e-6 added to it, as its released code has them.
    """

    def __init__(self, cell_size: int = 16, normalize: bool = True):
        super().__init__()
        self.cell_size = cell_size
        self.channels = cell_size * cell_size * 3
        self.normalize = normalize

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels, h, w)."""
        cells = patchify(images.float(), self.cell_size)
        if self.normalize:
            mean, std = patch_statistics(cells)
            cells = (cells - mean) / std
        return cells


def patchify(images: Tensor, size: int) -> Tensor:
    """(B, 3, h * size, w * size) -> (B, size * size * 3, h, w), in order row, column, colour.

    Raises:
        ValueError: if a side of the images is no multiple of `size`.
    """
    _check_divisible(images, size, "cell_size")
    return rearrange(images, "B C (h p) (w q) -> B (p q C) h w", p=size, q=size)


def unpatchify(cells: Tensor, size: int) -> Tensor:
    """The inverse of `patchify`."""
    return rearrange(cells, "B (p q C) h w -> B C (h p) (w q)", p=size, q=size)


def patch_statistics(cells: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each cell (B, P, h, w), both (B, 1, h, w)."""
    # Unbiased, as torch's default and MAE have it: on 768 numbers a difference that tests see.
    variance, mean = torch.var_mean(cells, dim=1, keepdim=True)
    return mean, (variance + 1e-6).sqrt()


class HOGTarget(nn.Module):
    """Histograms of the orientations of gradients, for each colour of each cell.

    Orientations are unsigned and fall wholly into one bin; a histogram sums magnitudes. Bin 0 is
    that of horizontal edges, bin ``bins // 2`` that of vertical ones. Neither blocks nor clipping.

    Args:
        cell_size: side of a cell in pixels.
        bins: orientations told apart.
        normalize: divide each histogram by its L2 norm; that of a flat cell stays 0.
        gaussian_window: side in pixels of the windows, tiled over the image, by whose Gaussian
            weights magnitudes are multiplied; None for no weights.

    Raises:
        ValueError: when called, if cells or windows do not fill the images.

    Reference:
        Dalal and Triggs 2005, as target of Wei et al. 2021 (MaskFeat), arXiv 2112.09133; this form
        is that of Guo et al. 2022 (FastMIM), arXiv 2212.06593. There a 3x3 convolution in reduced
        precision leaves noise where a gradient is zero, which normalising blows up to unit
        histograms of flat cells; here differences of equal pixels are exactly zero.
    """

    def __init__(
        self,
        cell_size: int = 8,
        bins: int = 9,
        normalize: bool = True,
        gaussian_window: int | None = None,
    ):
        super().__init__()
        self.cell_size = cell_size
        self.bins = bins
        self.channels = 3 * bins
        self.normalize = normalize
        window = None if gaussian_window is None else _gaussian(gaussian_window)
        self.register_buffer("window", window, persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3 * bins, h, w), channel ``colour * bins + bin``."""
        _check_divisible(images, self.cell_size, "cell_size")
        if self.window is not None:
            _check_divisible(images, len(self.window), "gaussian_window")
        with torch.autocast(images.device.type, enabled=False):
            return self._histograms(images.float())

    def _histograms(self, images: Tensor) -> Tensor:
        dx, dy = _sobel(images)
        magnitude = torch.hypot(dx, dy)
        # From the vertical and without sign: the modulo joins opposite directions in one bin.
        bins = (torch.atan2(dx, dy) / math.pi * self.bins).floor().long() % self.bins
        if self.window is not None:
            tiles = [side // len(self.window) for side in images.shape[-2:]]
            magnitude = magnitude * self.window.repeat(*tiles)
        # (B, 3, H, W) -> (B, 3, bins, H, W): zero but in the bin of each pixel
        shape = (*images.shape[:2], self.bins, *images.shape[2:])
        votes = magnitude.new_zeros(shape).scatter_(2, bins[:, :, None], magnitude[:, :, None])
        cells = F.avg_pool2d(votes.flatten(1, 2), self.cell_size, divisor_override=1)  # sums
        if not self.normalize:
            return cells
        by_colour = cells.unflatten(1, (3, self.bins))
        return F.normalize(by_colour, dim=2, eps=1e-12).flatten(1, 2)


def _sobel(images: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel differences "left - right" and "top - bottom", both (B, 3, H, W).

    Smoothing first and subtracting then gives exactly 0 where both sides are equal, which a sum of
    nine products does not.
    """
    # Mirrored, so that the border of an image is no edge.
    x = F.pad(images, (1, 1, 1, 1), mode="reflect")
    columns = x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]  # smoothed along y, (H, W + 2)
    rows = x[:, :, :, :-2] + 2 * x[:, :, :, 1:-1] + x[:, :, :, 2:]  # along x, (H + 2, W)
    return columns[..., :-2] - columns[..., 2:], rows[:, :, :-2] - rows[:, :, 2:]


def _gaussian(size: int) -> Tensor:
    """(size, size) weights of standard deviation ``size // 2`` with the sum 1."""
    position = torch.arange(size) - (size - 1) / 2
    weights = (-(position**2) / (2 * (size // 2) ** 2)).exp()
    weights = weights / weights.sum()
    return weights[:, None] * weights[None, :]


def _check_divisible(images: Tensor, size: int, name: str) -> None:
    if images.shape[-2] % size or images.shape[-1] % size:
        raise ValueError(
            f"the sides of images must be multiples of {size} pixels ({name} of the target), "
            f"got {images.shape[-2]}x{images.shape[-1]}"
        )
