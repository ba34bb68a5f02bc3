"""Which images a process sees, in which order."""

import itertools
import logging
import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from detectron2.utils import comm

__all__ = [
    "InferenceSampler",
    "RandomSubsetTrainingSampler",
    "RepeatFactorTrainingSampler",
    "TrainingSampler",
]

logger = logging.getLogger(__name__)


class _InfiniteSampler(Sampler):
    """One endless stream of epochs, the same on all ranks; rank r of W takes elements r, r+W, ...

    Rank and world size are read when the sampler is made.
    """

    def __init__(self, shuffle: bool, seed: int | None):
        self._shuffle = shuffle
        self._seed = int(comm.shared_random_seed() if seed is None else seed)
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()
        self._start = 0

    def set_start(self, start: int) -> None:
        """Let iterators made from now on begin at element `start` of the stream of all ranks.

        A run that resumes at iteration i calls `set_start(i * total_batch_size)` and so goes on
        with the images that it has not seen yet.

        Args:
            start: number of elements, over all ranks, to leave out.

        Raises:
            ValueError: `start` is negative.
        """
        if start < 0:
            raise ValueError(f"start must be at least 0, got {start}")
        self._start = start

    def __iter__(self) -> Iterator[int]:
        first = self._start + self._rank
        yield from itertools.islice(self._stream(), first, None, self._world_size)

    def _stream(self) -> Iterator[int]:
        # Of its own: what else is drawn in the process must not change the order on one rank only.
        generator = torch.Generator().manual_seed(self._seed)
        while True:
            indices = self._epoch(generator)
            if self._shuffle:
                # Upstream draws the same, so a seed gives the same images.
                indices = indices[torch.randperm(len(indices), generator=generator)]
            yield from indices.tolist()

    @abstractmethod
    def _epoch(self, generator: torch.Generator) -> Tensor:
        """The int64 indices of the next epoch, before they are shuffled."""


class TrainingSampler(_InfiniteSampler):
    """An endless stream of all indices, in a new random order in each epoch.

    Epochs follow each other without a gap, so a batch may hold images of two epochs.

    Args:
        size: number of elements of the dataset.
        shuffle: False gives 0, 1, ..., size - 1 in every epoch.
        seed: of the order; must be equal on all ranks. None draws one that all ranks share.

    Raises:
        TypeError: `size` is not an int.
        ValueError: `size` is not positive.
    """

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None):
        if not isinstance(size, int):
            raise TypeError(f"size of TrainingSampler must be an int, got {size!r}")
        if size <= 0:
            raise ValueError(f"size of TrainingSampler must be positive, got {size}")
        super().__init__(shuffle, seed)
        self._indices = torch.arange(size)

    def _epoch(self, generator: torch.Generator) -> Tensor:
        return self._indices


class RandomSubsetTrainingSampler(TrainingSampler):
    """TrainingSampler over a random part of the dataset, drawn once.

    Args:
        size: number of elements of the dataset.
        subset_ratio: share that is used, in (0, 1]; int(size * subset_ratio) elements.
        shuffle: False gives the part in the order in which it was drawn, in every epoch.
        seed_shuffle: of the order; None draws one that all ranks share.
        seed_subset: of the choice; None draws one that all ranks share.

    Raises:
        AssertionError: `subset_ratio` is out of range.
        ValueError: the part is empty.
    """

    def __init__(
        self,
        size: int,
        subset_ratio: float,
        shuffle: bool = True,
        seed_shuffle: int | None = None,
        seed_subset: int | None = None,
    ):
        super().__init__(size, shuffle, seed_shuffle)
        assert 0 < subset_ratio <= 1, f"subset_ratio must be in (0, 1], got {subset_ratio}"
        subset_size = int(size * subset_ratio)
        if subset_size == 0:
            raise ValueError(f"subset_ratio {subset_ratio} leaves none of {size} elements")
        seed = int(comm.shared_random_seed() if seed_subset is None else seed_subset)
        order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
        self._indices = order[:subset_size]


class RepeatFactorTrainingSampler(_InfiniteSampler):
    """An endless stream in which images of rare categories come more often.

    In each epoch an element with factor 2.3 comes two times, or three times with probability 0.3.

    Args:
        repeat_factors: (N,) float tensor, one factor >= 0 per element of the dataset.
        shuffle: False gives the elements in ascending order.
        seed: of fractions and order; None draws one that all ranks share.

    Raises:
        ValueError: the factors are not a one-dimensional tensor of numbers >= 0, or all are 0.

    Reference:
        Gupta et al. 2019, arXiv 1908.03195 (LVIS), appendix on repeat factor sampling.
    """

    def __init__(self, repeat_factors: Tensor, *, shuffle: bool = True, seed: int | None = None):
        if repeat_factors.ndim != 1 or not (repeat_factors >= 0).all():
            raise ValueError(
                "repeat_factors must be a one-dimensional tensor of numbers >= 0, got shape "
                f"{tuple(repeat_factors.shape)}"
            )
        if not repeat_factors.any():
            raise ValueError(f"none of the {len(repeat_factors)} repeat_factors is above 0")
        super().__init__(shuffle, seed)
        self._whole = repeat_factors.trunc()
        self._fraction = repeat_factors - self._whole

    def _epoch(self, generator: torch.Generator) -> Tensor:
        # Drawn anew in each epoch, so that over many of them the factor is met on average.
        one_more = torch.rand(len(self._fraction), generator=generator) < self._fraction
        repeats = self._whole.long() + one_more.long()
        return torch.arange(len(repeats)).repeat_interleave(repeats)

    @staticmethod
    def repeat_factors_from_category_frequency(
        dataset_dicts: list[dict[str, Any]], repeat_thresh: float, sqrt: bool = True
    ) -> Tensor:
        """Repeat factors of images from the share of images f in which each category occurs.

        A category has the factor max(1, sqrt(repeat_thresh / f)); an image has the largest factor
        of its categories, or 1 without annotations.

        Args:
            dataset_dicts: standard dataset dicts with `annotations`.
            repeat_thresh: share of images, in (0, 1], below which a category is repeated.
            sqrt: False leaves the root out.

        Returns:
            (N,) float32 tensor.
        """
        categories = [
            {annotation["category_id"] for annotation in record["annotations"]}
            for record in dataset_dicts
        ]
        factors = {}
        for category, images in sorted(Counter(itertools.chain(*categories)).items()):
            frequency = images / len(dataset_dicts)
            ratio = repeat_thresh / frequency
            factors[category] = max(1.0, math.sqrt(ratio) if sqrt else ratio)
            logger.info(
                "Category %s: in %.4f of the images, repeat factor %.2f",
                category,
                frequency,
                factors[category],
            )
        per_image = [max((factors[c] for c in present), default=1.0) for present in categories]
        return torch.tensor(per_image, dtype=torch.float32)


class InferenceSampler(Sampler):
    """Every index once, over all ranks together, each rank a contiguous block.

    The first `size % W` of W ranks get one index more than the others; with fewer indices than
    ranks the last ranks get none.

    Args:
        size: number of elements of the dataset.

    Raises:
        AssertionError: `size` is not positive.
    """

    def __init__(self, size: int):
        assert size > 0, f"size of InferenceSampler must be positive, got {size}"
        rank, world_size = comm.get_rank(), comm.get_world_size()
        share, longer = divmod(size, world_size)
        begin = rank * share + min(rank, longer)
        self._indices = range(begin, begin + share + (rank < longer))

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)
