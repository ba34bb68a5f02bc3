"""What ROIAlign in mixed precision loses by the type of its boxes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import Row
from detectron2.layers import ROIAlign

_SIDES = (16, 512)  # pixels of the boxes, as many small ones as large ones
_IMAGE = (800, 1333)
_STRIDE = 4


def measure(repeats: int) -> list[Row]:
    """Error of the features of a bfloat16 map: boxes in its type / boxes in float32.

    Computed, not timed, so that nothing is repeated.
    """
    generator = torch.Generator().manual_seed(0)
    regions = _regions(2000, generator)
    # Smooth, as features are: values at every eighth place, and between them their mixtures.
    coarse = torch.randn(1, 16, *(side // _STRIDE // 8 for side in _IMAGE), generator=generator)
    features = F.interpolate(coarse, scale_factor=8, mode="bilinear")
    pool = ROIAlign(7, 1 / _STRIDE, 0)
    exact = pool(features, regions)
    features = features.bfloat16()
    # On a CPU no kernel pools in bfloat16: the map is one of float32 with the values of bfloat16.
    rounded = pool(features.float(), regions.bfloat16().float())
    plain, ours = (_error(found, exact) for found in (rounded, pool(features, regions)))
    what = "ROIAlign of a bfloat16 map, error of its features: boxes in bfloat16 / in float32"
    return [Row(what, 100 * plain, 100 * ours, "%")]


def _regions(number: int, generator: torch.Generator) -> Tensor:
    """(number, 5) rows of ROIAlign: 0 and a box inside the image."""
    low, high = map(math.log, _SIDES)
    sides = torch.exp(low + (high - low) * torch.rand(number, 2, generator=generator))
    room = torch.tensor([_IMAGE[1], _IMAGE[0]]) - sides
    corners = torch.rand(number, 2, generator=generator) * room
    return torch.cat([torch.zeros(number, 1), corners, corners + sides], dim=1)


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.float() - exact).norm() / exact.norm())
