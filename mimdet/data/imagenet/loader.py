"""From records to endless batches, which are lists of samples and the same on any machine."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

from detectron2.data import DatasetFromList, build_batch_data_loader
from detectron2.utils import comm
from mimdet.data.repeatable import Place, RepeatableSamples, mixed_seed


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
        first = self._start * self._total_batch_size
        return iter(
            build_batch_data_loader(
                RepeatableSamples(self._dataset, self._mapper, self.seed),
                _ShuffledEpochs(self.dataset_size, self.seed, first),
                self._total_batch_size,
                num_workers=self._num_workers,
                collate_fn=self._collate_fn,
                seed=self.seed,  # or starting it would draw from the generator of the model
            )
        )


class _ShuffledEpochs(Sampler):
    """The places of an endless stream of epochs that are this process's.

    Each epoch has an order of its own seed, so that any position is found without the ones before.
    """

    def __init__(self, size: int, seed: int, start: int):
        self._size, self._seed = size, seed
        self._start = start + comm.get_rank()
        self._step = comm.get_world_size()

    def __iter__(self) -> Iterator[Place]:
        shuffled = -1
        for position in itertools.count(self._start, self._step):
            epoch, offset = divmod(position, self._size)
            if epoch != shuffled:
                generator = torch.Generator().manual_seed(mixed_seed(self._seed, epoch))
                order, shuffled = torch.randperm(self._size, generator=generator), epoch
            yield position, int(order[offset])
