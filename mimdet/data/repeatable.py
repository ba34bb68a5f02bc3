"""Samples that are a function of a seed and their place, and not of what a process did before."""

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from mimdet.shown import shown

_MAX_ATTEMPTS = 100  # records tried for one place in a batch

Place = tuple[int, int]
"""Of a sample: its position in the endless stream of all ranks, and the index of its record."""


class RepeatableSamples(Dataset):
    """Mapped records by their `Place`, each with random numbers of its own.

    The numbers depend on the seed and the position alone: neither on the worker process nor on
    what it has loaded before. They also decide which record takes the place of one that the mapper
    refuses.

    Args:
        dataset: records, may draw random numbers too.
        mapper: record -> sample, or None to refuse the record; None keeps records as they are.
        seed: of everything random.
        groups: the group of each record; another one of its group takes the place of a refused
            one. By default all are one group.
    """

    def __init__(
        self,
        dataset: Dataset,
        mapper: Callable[[Any], Any] | None,
        seed: int,
        groups: Sequence[Any] | None = None,
    ):
        self._dataset, self._mapper, self._seed, self._groups = dataset, mapper, seed, groups

    def __getitem__(self, place: Place) -> Any:
        """The sample at a place.

        Raises:
            RuntimeError: if the mapper refused this record and 99 others.
        """
        position, index = place
        candidates = itertools.chain([index], self._replacements(position, index))
        for candidate in itertools.islice(candidates, _MAX_ATTEMPTS):
            with seeded(self._seed, position):
                record = self._dataset[candidate]
                sample = self._mapper(record) if self._mapper else record
            if sample is not None:
                return sample
        raise RuntimeError(
            f"none of {_MAX_ATTEMPTS} images in a row could be read; the last one was "
            f"{_name(self._dataset[candidate], candidate)} (dataloader.train.dataset)"
        )

    def _replacements(self, position: int, index: int) -> Iterator[int]:
        # A generator of its own: `seeded` starts the global ones anew for every record tried.
        rng = random.Random(mixed_seed(self._seed, position))
        drawn = (rng.randrange(len(self._dataset)) for _ in itertools.count())
        if self._groups is None:
            return drawn
        return (k for k in drawn if self._groups[k] == self._groups[index])


def _name(record: Any, index: int) -> str:
    named = isinstance(record, dict) and "file_name" in record
    return shown(record["file_name"], 300) if named else f"record {index}"


def mixed_seed(*seeds: int) -> int:
    """One seed from several, such that neighbours have nothing in common."""
    return int(np.random.SeedSequence(seeds).generate_state(1)[0])


@contextlib.contextmanager
def seeded(*seeds: int) -> Iterator[None]:
    """Seed `random`, numpy and torch on the CPU for a block; then all are as they were before.

    Not so in the worker of a loader, where nothing else draws: keeping three states takes longer
    than the seeding.
    """
    states = None if get_worker_info() else _states()
    seed = mixed_seed(*seeds)
    random.seed(seed)
    np.random.seed(seed)
    # Not torch.manual_seed, which would seed the GPUs too.
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        if states:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])


def _states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()
