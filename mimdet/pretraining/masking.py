"""Which tokens or blocks of an image are removed, from noise that a caller can also give.

Shape letters: B batch, L places (tokens or blocks, row-major), K kept ones.
"""

from typing import NamedTuple

import torch
from einops import repeat
from torch import Tensor


class Masking(NamedTuple):
    """A random choice of places.

    Attributes:
        ids_keep: (B, K) int64, the kept places in random order.
        ids_restore: (B, L) int64, where each place stands in the order "kept, then removed".
        removed: (B, L) bool.
    """

    ids_keep: Tensor
    ids_restore: Tensor
    removed: Tensor


def num_kept(num_places: int, mask_ratio: float) -> int:
    """``int(num_places * (1 - mask_ratio))``, as MAE counts.

    Raises:
        ValueError: if `mask_ratio` is not in (0, 1), or nothing would be kept or removed.
    """
    if not 0 < mask_ratio < 1:
        raise ValueError(
            f"mask_ratio must be in (0, 1), got {mask_ratio} (model.mask_ratio); it is the share "
            "that is removed"
        )
    kept = int(num_places * (1 - mask_ratio))
    if not 0 < kept < num_places:
        raise ValueError(
            f"mask_ratio {mask_ratio} must keep some of {num_places} places and remove some, and "
            f"it keeps {kept} (model.mask_ratio); use larger images or smaller blocks"
        )
    return kept


def random_masking(noise: Tensor, mask_ratio: float) -> Masking:
    """Keep the places with the smallest noise, equally many in every image.

    Args:
        noise: (B, L), usually uniform.
        mask_ratio: share of the places that is removed, in (0, 1).

    Raises:
        ValueError: see `num_kept`.

    Reference:
        He et al. 2021 (MAE), arXiv 2111.06377, section 3 ("Simple implementation").
    """
    kept = num_kept(noise.shape[1], mask_ratio)
    # Stable: equal noises are ordered by place, on every device.
    order = noise.argsort(dim=1, stable=True)
    # The permutation that undoes the first one: a place's rank among the noises.
    ids_restore = order.argsort(dim=1)
    return Masking(order[:, :kept], ids_restore, ids_restore >= kept)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean of `x` where `mask`, bool of the same shape, is True; it is somewhere.

    By weights of 0 and 1: for a selection, whose size depends on values, the host would wait for
    the GPU in every step.
    """
    return (x * mask).sum() / mask.sum()


def enlarge(removed: Tensor, factor: int) -> Tensor:
    """Repeat every cell of a mask (B, h, w) `factor` times along both sides."""
    return repeat(removed, "B h w -> B (h p) (w q)", p=factor, q=factor)


def draw_noise(batch_size: int, num_places: int, device: torch.device) -> Tensor:
    """(B, L) uniform noise from the global generator of the device."""
    return torch.rand(batch_size, num_places, device=device)
