"""Which tokens of a padded batch MIMDet's encoder sees.

A sampler gives every cell of the token grid a number; the cells with the smallest are kept.

Shape letters: B batch, L tokens (L = h * w), K kept tokens, h w cells of the token grid.
"""

import math
from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor

Sampler = Callable[[tuple[int, int, int], torch.device, torch.Generator | None], Tensor]

# Squares of 2, 4 and 8 tokens a side; in a larger one chance has evened itself out.
_LEVELS = 3


def random_noise(
    shape: tuple[int, int, int], device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Uniform numbers (B, h, w): every choice of cells is as likely as any other.

    Args:
        shape: B, h and w.
        device: where the numbers are drawn.
        generator: their source; the global one by default.

    Reference:
        Fang et al. 2022, arXiv 2204.02964, section 3.
    """
    # torch.rand's numbers; itself it takes no generator while a graph of any size is traced
    return torch.empty(shape, device=device).uniform_(generator=generator)


def stratified_noise(
    shape: tuple[int, int, int], device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Numbers (B, h, w) whose smallest ones are spread evenly over the grid.

    The cells of every 2x2 square are put into a random order, and so are the four squares of every
    4x4 square, and those of every 8x8 one. First come the first cells of the squares, those of the
    first squares before others. So a quarter of the tokens is one of each 2x2 square, a sixteenth
    one of each 4x4 square; and each cell is as likely to be kept as any other, but for squares
    that the border cuts.

    Args:
        shape: B, h and w.
        device: where the numbers are drawn.
        generator: their source; the global one by default.

    Reference:
        Ours. Nested strata with random orders are Owen's scrambling of digital nets (Owen 1995,
        "Randomly permuted (t, m, s)-nets and (t, s)-sequences"), used on the cells of a grid.
    """
    B, h, w = shape
    noise = random_noise(shape, device, generator) * 4.0**-_LEVELS  # the order of what is level
    for level in range(_LEVELS):
        side = 2**level
        # In whole fours, also where the border cuts one; what lies beyond it is cut off below.
        squares = [2 * math.ceil(cells / (2 * side)) for cells in (h, w)]
        drawn = random_noise((B, *squares), device, generator)
        fours = rearrange(drawn, "B (h p) (w q) -> B h w (p q)", p=2, q=2)
        rank = fours.argsort(dim=-1).argsort(dim=-1).to(noise.dtype)  # 0 to 3 in each four
        rank = rearrange(rank, "B h w (p q) -> B (h p) (w q)", p=2, q=2)
        cells = rank.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)
        noise = noise + cells[:, :h, :w] * 4.0 ** -(level + 1)
    return noise


SAMPLERS: dict[str, Sampler] = {"random": random_noise, "stratified": stratified_noise}


def padding_mask(
    image_sizes: Sequence[tuple[int, int]],
    grid: tuple[int, int],
    stride: int,
    device: torch.device,
) -> Tensor:
    """Mark the tokens that lie wholly outside their image.

    Args:
        image_sizes: true (height, width) of each image in pixels.
        grid: (h, w) of the padded batch.
        stride: side of a token in pixels; a token that touches one real pixel is no padding.
        device: where the mask is wanted.

    Returns:
        (B, h, w) bool, True = padding.
    """
    cells = [(math.ceil(hh / stride), math.ceil(ww / stride)) for hh, ww in image_sizes]
    to_gpu = torch.device(device).type == "cuda"  # whose later work comes after the copy
    valid = torch.tensor(cells).to(device, non_blocking=to_gpu)  # (B, 2)
    rows = torch.arange(grid[0], device=device)[None, :] >= valid[:, :1]  # (B, h)
    columns = torch.arange(grid[1], device=device)[None, :] >= valid[:, 1:]  # (B, w)
    return rows[:, :, None] | columns[:, None, :]


def sample_tokens(noise: Tensor, is_padding: Tensor, sample_ratio: float) -> Tensor:
    """Choose the tokens to encode, padding last.

    Every image of the batch keeps ``K = int(L * sample_ratio)`` tokens, so an image with much
    padding keeps a larger share of its real tokens.

    Args:
        noise: (B, L) numbers below 1 of a sampler; the smallest are kept.
        is_padding: (B, L) bool, True where the token lies outside the true image.
        sample_ratio: share kept, in (0, 1].

    Returns:
        (B, K) int64 raster positions, in the order of the noise, in which the encoder gets them.

    Raises:
        ValueError: if `sample_ratio` keeps no token.

    Reference:
        Fang et al. 2022, arXiv 2204.02964, section 3. Ties among padding tokens are broken by
        position here (stable sort), where the release leaves them to the sort at hand.
    """
    L = noise.shape[1]
    num_keep = int(L * sample_ratio)
    if num_keep == 0:
        raise ValueError(
            f"sample_ratio must keep at least one token, got {sample_ratio} for {L} tokens "
            "(model.backbone.bottom_up.sample_ratio); raise it or use larger images"
        )
    noise = noise.masked_fill(is_padding, 100.0)  # sorts after every real token
    return noise.argsort(dim=1, stable=True)[:, :num_keep]
