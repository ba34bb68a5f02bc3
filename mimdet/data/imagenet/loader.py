"""From records to endless batches, which are lists of samples and the same on any machine."""

import contextlib
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from detectron2.data import DatasetFromList, build_batch_data_loader
from detectron2.utils import comm

_MAX_ATTEMPTS = 100  # images tried for one place in a batch


class ImageTrainLoader:
    """Endless batches of augmented images that are a function of a seed and the iteration alone.

    They depend neither on the number of processes and workers nor on what a run did before: one
    that resumes in iteration i sees what it would have seen without the interruption.

    Args:
        dataset: records.
        mapper: record -> sample, or None to have another record take its place.
        total_batch_size: images per iteration over all processes, whose number divides it.
        num_workers: worker processes of each process; 0 loads in the process itself.
        collate_fn: list of samples -> batch; None gives the list.

    Attributes:
        dataset_size: number of records.
        seed: of everything random; drawn, the same on all processes.
    """

    def __init__(
        self,
        dataset: Sequence[dict[str, Any]],
        *,
        mapper: Callable[[dict[str, Any]], Any],
        total_batch_size: int,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ):
        # One buffer, which workers share: a list of 1.3 million dicts would be copied into each.
        self._dataset = DatasetFromList(list(dataset), serialize=True)
        self._mapper = mapper
        self._num_workers = num_workers
        self._collate_fn = collate_fn
        self._total_batch_size = total_batch_size
        self._start = 0
        self.dataset_size = len(self._dataset)
        self.seed = comm.shared_random_seed()

    def set_start(self, iteration: int) -> None:
        """Let iterators made from now on begin with the batch of `iteration`."""
        self._start = iteration

    def __iter__(self) -> Iterator[Any]:
        return iter(
            build_batch_data_loader(
                _Stream(self._dataset, self._mapper, self.seed),
                _Positions(self._start * self._total_batch_size),
                self._total_batch_size,
                num_workers=self._num_workers,
                collate_fn=self._collate_fn,
                seed=self.seed,  # or starting it would draw from the generator of the model
            )
        )


class _Positions(Sampler):
    """The places of the endless stream that are this process's: start + rank, + world size, ..."""

    def __init__(self, start: int):
        self._start = start + comm.get_rank()
        self._step = comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self._start, self._step)


class _Stream(Dataset):
    """Samples by their place in an endless stream of shuffled epochs."""

    def __init__(self, dataset: Dataset, mapper: Callable[[Any], Any], seed: int):
        self._dataset, self._mapper, self._seed = dataset, mapper, seed
        self._epoch, self._order = -1, torch.empty(0)

    def __getitem__(self, position: int) -> Any:
        epoch, place = divmod(position, len(self._dataset))
        candidates = itertools.chain([self._index(epoch, place)], self._replacements(position))
        for index in itertools.islice(candidates, _MAX_ATTEMPTS):
            with seeded(self._seed, position):
                sample = self._mapper(self._dataset[index])
            if sample is not None:
                return sample
        raise RuntimeError(
            f"none of {_MAX_ATTEMPTS} images in a row could be read; the last one was "
            f"{self._dataset[index]['file_name']} (dataloader.train.dataset)"
        )

    def _index(self, epoch: int, place: int) -> int:
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(_mixed(self._seed, epoch))
            self._order = torch.randperm(len(self._dataset), generator=generator)
            self._epoch = epoch
        return int(self._order[place])

    def _replacements(self, position: int) -> Iterable[int]:
        rng = random.Random(_mixed(self._seed, position))
        return (rng.randrange(len(self._dataset)) for _ in itertools.count())


def _mixed(*seeds: int) -> int:
    """One seed from several, such that neighbours have nothing in common."""
    return int(np.random.SeedSequence(seeds).generate_state(1)[0])


@contextlib.contextmanager
def seeded(*seeds: int) -> Iterator[None]:
    """Seed `random`, numpy and torch on the CPU for a block; then all are as they were before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = _mixed(*seeds)
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
