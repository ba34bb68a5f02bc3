"""Batches for detectors in the order of Detectron2's samplers, from any iteration on."""

import itertools
import logging
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch.utils.data import Dataset, IterableDataset, Sampler

from detectron2.data import (
    DatasetFromList,
    build_batch_data_loader,
    build_detection_train_loader,
)
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from mimdet.data.repeatable import Place, RepeatableSamples, seeded

logger = logging.getLogger(__name__)

Mapper = Callable[[dict[str, Any]], Any]


def build_repeatable_train_loader(
    dataset: list[dict[str, Any]] | Dataset,
    *,
    mapper: Mapper | None,
    aspect_ratio_grouping: bool = True,
    **options: Any,
) -> Iterable[Any]:
    """`build_detection_train_loader`, in a way that a run can resume exactly.

    Args:
        dataset: standard dataset dicts, or a dataset of them.
        mapper: dataset dict -> what the model takes; None keeps the dicts.
        aspect_ratio_grouping: batch wide images with wide ones.
        **options: other arguments of `build_detection_train_loader`.

    Returns:
        A `DetectionTrainLoader`, or Detectron2's own loader, with a warning, for data whose order
        is not known in advance: an iterable dataset, or images to be grouped by sizes that only
        the mapped ones have.
    """
    groups = _is_wide(dataset, mapper) if aspect_ratio_grouping else None
    if isinstance(dataset, IterableDataset) or (aspect_ratio_grouping and groups is None):
        logger.warning(
            "A resumed run will see other images than the uninterrupted one: dataloader.train."
            "dataset must not be iterable only, and for aspect_ratio_grouping its records must "
            "have `width` and `height` before they are mapped"
        )
        return build_detection_train_loader(
            dataset, mapper=mapper, aspect_ratio_grouping=aspect_ratio_grouping, **options
        )
    return DetectionTrainLoader(dataset, groups, mapper=mapper, **options)


def _is_wide(dataset: Iterable[Any], mapper: Mapper | None) -> list[bool] | None:
    """Whether the images are wider than high; None if that is only known of mapped ones."""
    if isinstance(dataset, IterableDataset):
        return None
    if mapper is None and not isinstance(dataset, list):
        return None  # a record is the image itself: all of them would have to be read
    try:
        with seeded(0):  # a dataset may draw random numbers, the model's must not depend on it
            records = (dataset[index] for index in range(len(dataset)))
            return [record["width"] > record["height"] for record in records]
    except (KeyError, TypeError):
        return None


class DetectionTrainLoader:
    """Endless batches of a detector that are a function of seeds, the rank and the iteration.

    They depend neither on the number of workers nor on what a run did before: one that resumes in
    iteration i sees what it would have seen without the interruption. The images of a rank come in
    the order of its sampler, and with groups a batch as soon as its last image does, as in
    Detectron2's loader without workers.

    Finding the batch of iteration i takes arithmetic with the indices before it, below a
    microsecond for each.

    Args:
        dataset: standard dataset dicts, or a map-style dataset of them.
        groups: the group of each record, if batches are to be of one group.
        mapper: dataset dict -> sample, or None to have another record of the group take its place.
        sampler: order of the indices on this rank, the same whenever it is iterated anew; None for
            Detectron2's TrainingSampler.
        total_batch_size: images per iteration over all processes, whose number divides it.
        single_gpu_batch_size: images per iteration and process, instead of `total_batch_size`.
        num_workers: worker processes of each process; 0 loads in the process itself.
        collate_fn: list of samples -> batch; None gives the list.
        **options: other arguments of `build_batch_data_loader`.

    Attributes:
        dataset_size: number of records.
        seed: of the augmentation; at first that of the order, or 0 with another sampler.

    Raises:
        ValueError: if the batch size is not positive or cannot be shared by the processes.
    """

    def __init__(
        self,
        dataset: list[dict[str, Any]] | Dataset,
        groups: Sequence[Any] | None = None,
        *,
        mapper: Mapper | None,
        sampler: Iterable[int] | None = None,
        total_batch_size: int | None = None,
        single_gpu_batch_size: int | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        **options: Any,
    ):
        if isinstance(dataset, list):
            dataset = DatasetFromList(dataset, copy=False)
        self._dataset = dataset
        self._groups = groups
        self._mapper = mapper
        self._batch_size = single_gpu_batch_size or _share(total_batch_size)
        self._collate_fn = collate_fn
        self._options = {"num_workers": num_workers, **options}
        self._start = 0
        self.dataset_size = len(self._dataset)
        self.seed = 0
        if sampler is None:
            # Drawn where TrainingSampler would do it: a run keeps the order of Detectron2.
            self.seed = comm.shared_random_seed()
            sampler = TrainingSampler(self.dataset_size, seed=self.seed)
        self._sampler = sampler

    def set_start(self, iteration: int) -> None:
        """Let iterators made from now on begin with the batch of `iteration`."""
        self._start = iteration

    def __iter__(self) -> Iterator[Any]:
        samples = RepeatableSamples(self._dataset, self._mapper, self.seed, self._groups)
        places = _Places(self._sampler, self._batch_size, self._start, self._groups)
        # Without a seed, starting the loader would draw from the generator of the model.
        options = {"seed": self.seed, **self._options}
        if self._groups is None:
            options |= {"single_gpu_batch_size": self._batch_size, "collate_fn": self._collate_fn}
            yield from build_batch_data_loader(samples, places, None, **options)
            return
        # Workers hand over single images, as in Detectron2's grouping: whole batches, of which
        # each worker prepares two, take a multiple of the memory.
        options |= {"single_gpu_batch_size": 1, "collate_fn": operator.itemgetter(0)}
        images = iter(build_batch_data_loader(samples, places, None, **options))
        while batch := list(itertools.islice(images, self._batch_size)):
            yield self._collate_fn(batch) if self._collate_fn else batch


class _Places(Sampler):
    """The places of this process in the order of its batches, from those of one iteration on."""

    def __init__(
        self,
        sampler: Iterable[int],
        batch_size: int,
        start: int,
        groups: Sequence[Any] | None,
    ):
        self._sampler, self._batch_size, self._start = sampler, batch_size, start
        self._groups = groups
        # Here, because the processes of workers do not know them.
        self._rank, self._world_size = comm.get_rank(), comm.get_world_size()

    def __iter__(self) -> Iterator[Place]:
        # The sampler of rank r of W gives elements r, r + W, ... of the stream of all ranks.
        places = zip(itertools.count(self._rank, self._world_size), self._sampler)
        if self._groups is None:
            return itertools.islice(places, self._start * self._batch_size, None)
        batches = self._grouped(places)
        return itertools.chain.from_iterable(itertools.islice(batches, self._start, None))

    def _grouped(self, places: Iterable[Place]) -> Iterator[list[Place]]:
        waiting: dict[Any, list[Place]] = defaultdict(list)
        for place in places:
            batch = waiting[self._groups[place[1]]]
            batch.append(place)
            if len(batch) == self._batch_size:
                yield batch[:]
                batch.clear()


def _share(total_batch_size: int | None) -> int:
    world_size = comm.get_world_size()
    if not total_batch_size or total_batch_size < 1 or total_batch_size % world_size:
        raise ValueError(
            "dataloader.train.total_batch_size must be a positive multiple of the number of "
            f"processes ({world_size}), got {total_batch_size}"
        )
    return total_batch_size // world_size
