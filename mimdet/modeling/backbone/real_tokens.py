"""Tokens of the images of a padded batch, as each image has them when it is alone.

Shape letters: B batch, C channels, H W pixels of the padded batch, h w its token grid, L = h * w.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mimdet.modeling.backbone.token_sampling import Sampler, random_noise

Size = tuple[int, int]


def cells(image_sizes: Sequence[Size], stride: int) -> list[Size]:
    """(rows, columns) of the tokens that touch each image, from its true size in pixels."""
    return [
        (math.ceil(height / stride), math.ceil(width / stride)) for height, width in image_sizes
    ]


def stem_of_each(
    stem: Callable[[Tensor], list[Tensor]], images: Tensor, image_sizes: Sequence[Size], unit: int
) -> list[Tensor]:
    """The maps of a stem that sees every image alone, padded to a multiple of `unit` pixels.

    The statistics of its norms would take the padding of the batch in.

    Args:
        stem: (1, 3, h, w) -> maps.
        images: (B, 3, H, W).
        image_sizes: true (height, width) of each image.
        unit: a multiple of the strides of all maps.

    Returns:
        The maps of the batch, zero outside of what each image has alone.
    """
    crops = [(a * unit, b * unit) for a, b in cells(image_sizes, unit)]
    alone = [stem(images[i : i + 1, :, :h, :w]) for i, (h, w) in enumerate(crops)]
    H, W = images.shape[-2:]
    # A map of stride s has H / s rows; its own share of them follows from the crop.
    return [
        torch.cat([_padded(x, (x.shape[-2] * H // h, x.shape[-1] * W // w)) for x, (h, w) in level])
        for level in (list(zip(maps, crops, strict=True)) for maps in zip(*alone, strict=True))
    ]


def table_of_each(resized: Callable[[Size], Tensor], grids: Sequence[Size], grid: Size) -> Tensor:
    """A position table for every image at its own grid: (B, L, C), zero at padding.

    Args:
        resized: grid (rows, columns) -> (1, rows * columns, C).
        grids: of the images.
        grid: (h, w) of the batch.
    """
    maps = [resized(own).unflatten(1, own).permute(0, 3, 1, 2) for own in grids]
    return torch.cat([_padded(x, grid) for x in maps]).flatten(2).transpose(1, 2)


def sample_real_tokens(
    grids: Sequence[Size],
    grid: Size,
    sample_ratio: float,
    device: torch.device,
    generator: torch.Generator | None = None,
    sampler: Sampler = random_noise,
) -> tuple[Tensor, Tensor]:
    """Choose a share of each image's own tokens.

    Image i keeps ``max(int(n_i * sample_ratio), 1)`` of its n_i tokens. Noise is drawn on its own
    grid, with a generator from the same start for every image, so the choice does not depend on
    the batch.

    Args:
        grids: (rows, columns) of the tokens of each image.
        grid: (h, w) of the batch.
        sample_ratio: share kept, in (0, 1].
        device: where the result is wanted.
        generator: source of the noise; the global one by default.
        sampler: gives the noise, see `token_sampling.SAMPLERS`.

    Returns:
        ids_keep (B, K) int64, raster positions in `grid`, where K is the largest number kept; and
        (B, K) bool, which of them count: an image that keeps fewer has fillers behind its own.
    """
    noise = []
    for own in grids:
        if generator is not None:
            generator.manual_seed(generator.initial_seed())
        drawn = sampler((1, *own), device, generator)
        noise.append(_padded(drawn, grid, value=100.0))  # sorts after every real token
    counts = [max(int(rows * columns * sample_ratio), 1) for rows, columns in grids]
    order = torch.cat(noise).flatten(1).argsort(dim=1, stable=True)
    slots = torch.arange(max(counts), device=device)
    return order[:, : max(counts)], slots[None] < torch.tensor(counts, device=device)[:, None]


def _padded(x: Tensor, hw: Size, value: float = 0.0) -> Tensor:
    """Maps (..., a, b) -> (..., *hw), filled at the bottom and the right."""
    return F.pad(x, (0, hw[1] - x.shape[-1], 0, hw[0] - x.shape[-2]), value=value)
