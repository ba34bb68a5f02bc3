"""Wrappers around datasets: compact storage, mapping, sampling, grouping by aspect ratio."""

import copy
import itertools
import logging
import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from detectron2.utils import comm

__all__ = ["AspectRatioGroupedDataset", "DatasetFromList", "MapDataset", "ToIterableDataset"]

logger = logging.getLogger(__name__)


class DatasetFromList(Dataset):
    """A list as a dataset.

    Args:
        lst: the elements; with `serialize`, each must be picklable.
        copy: without `serialize`, give a deep copy of an element, so that callers may change it.
        serialize: store all elements in one buffer. Worker processes then share its memory, while
            Python objects would be copied as soon as their reference counts change. Every access
            gives a fresh copy.
    """

    def __init__(self, lst: list[Any], copy: bool = True, serialize: bool = True):
        self._copy = copy
        self._elements = _SerializedList(lst) if serialize else lst
        self._serialized = serialize

    def __len__(self) -> int:
        return len(self._elements)

    def __getitem__(self, index: int) -> Any:
        element = self._elements[index]
        return copy.deepcopy(element) if self._copy and not self._serialized else element


class _SerializedList:
    def __init__(self, lst: list[Any]):
        logger.info("Packing %d elements into one buffer, which all workers can share", len(lst))
        data, ends = bytearray(), []
        for element in lst:
            data += pickle.dumps(element, protocol=pickle.HIGHEST_PROTOCOL)
            ends.append(len(data))
        # Tensors, because those alone are shared with workers that are spawned instead of forked.
        self._bytes = torch.from_numpy(np.frombuffer(data, dtype=np.uint8))
        self._ends = torch.tensor([0, *ends], dtype=torch.int64)
        logger.info("Serialized dataset takes %.2f MiB", len(data) / 2**20)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Any:
        position = range(len(self))[index]  # IndexError beyond the end, as iteration needs it
        start, end = self._ends[position : position + 2].tolist()
        return pickle.loads(memoryview(self._bytes[start:end].numpy()))


class _Picklable:
    """A function that reaches spawned workers even if it is, or holds, a lambda."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __reduce__(self) -> tuple:
        return _unpickle, (cloudpickle.dumps(self.function),)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


def _unpickle(data: bytes) -> _Picklable:
    return _Picklable(cloudpickle.loads(data))


class MapDataset(Dataset):
    """A dataset whose elements go through a function, such as a DatasetMapper.

    The function may return None to refuse an element: another index, drawn at random from those
    that were not refused, takes its place (in an iterable dataset the element is left out).
    Exceptions of the function are not caught.

    Args:
        dataset: map-style dataset, or an iterable one; the result is of the same kind.
        map_func: element -> result or None.

    Raises:
        RuntimeError: on access, when the function refused every element.
    """

    def __new__(cls, dataset: Dataset, map_func: Callable[[Any], Any]) -> Dataset:
        """A MapDataset, or its iterable counterpart for an iterable dataset."""
        if isinstance(dataset, IterableDataset):
            return _MapIterableDataset(dataset, map_func)
        return super().__new__(cls)

    # pickle calls `__new__`, which needs both arguments.
    def __getnewargs__(self) -> tuple:
        return self._dataset, self._map_func

    def __init__(self, dataset: Dataset, map_func: Callable[[Any], Any]):
        self._dataset = dataset
        self._map_func = _Picklable(map_func)
        # Upstream's seed; of its own, so that a bad sample does not shift what others draw.
        self._random = random.Random(42)
        self._refused: set[int] = set()
        self._replaced = 0

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        current = int(index)
        for attempt in itertools.count(1):
            result = self._map_func(self._dataset[current])
            if result is not None:
                self._refused.discard(current)
                return result
            self._refused.add(current)
            if attempt >= 3:
                logger.warning(
                    "Failed to apply the mapper for index %s: None after %d attempts with other "
                    "indices.",
                    index,
                    attempt,
                )
            current = self._draw_replacement()

    def _draw_replacement(self) -> int:
        candidates = [i for i in range(len(self)) if i not in self._refused]
        if not candidates:
            raise RuntimeError(
                f"mapper returned None for all {len(self)} samples; it must accept at least one "
                f"(mapper: {self._map_func.function!r})"
            )
        self._replaced += 1
        if self._replaced in (1, 10, 100) or self._replaced % 1000 == 0:
            logger.info(
                "The mapper returned None %d times so far in this process; other samples took the "
                "places. %d of %d samples are refused.",
                self._replaced,
                len(self._refused),
                len(self),
            )
        return self._random.choice(candidates)


class _MapIterableDataset(IterableDataset):
    def __init__(self, dataset: Iterable[Any], map_func: Callable[[Any], Any]):
        self._dataset = dataset
        self._map_func = _Picklable(map_func)

    def __len__(self) -> int:
        return len(self._dataset)

    def set_start(self, iteration: int) -> None:
        _start_later(self._dataset, iteration)

    def __iter__(self) -> Iterator[Any]:
        return (result for result in map(self._map_func, self._dataset) if result is not None)


class ToIterableDataset(IterableDataset):
    """A map-style dataset in the order of a sampler, which runs inside each worker process.

    Args:
        dataset: map-style dataset.
        sampler: gives indices; must give the same ones in every worker.
        shard_sampler: share the indices among the workers: of W workers, worker w takes chunks
            w, w+W, ... False is for a sampler that does so itself.
        shard_chunk_size: indices per chunk. With the batch size of a DataLoader that makes batches
            in the workers, the batches do not depend on the number of workers.

    Raises:
        AssertionError: `dataset` is iterable, or `sampler` is not a Sampler.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: Sampler,
        shard_sampler: bool = True,
        shard_chunk_size: int = 1,
    ):
        assert not isinstance(dataset, IterableDataset), "dataset is iterable already"
        assert isinstance(sampler, Sampler), (
            f"sampler must be a torch.utils.data.Sampler, got {type(sampler).__name__}"
        )
        self._dataset = dataset
        self._sampler = sampler
        self._shard_sampler = shard_sampler
        self._chunk_size = shard_chunk_size

    def __len__(self) -> int:
        return len(self._sampler)

    def set_start(self, chunk: int) -> None:
        """Let iterators made from now on begin at a later chunk of every rank.

        Args:
            chunk: how many chunks of `shard_chunk_size` each rank leaves out.
        """
        _start_later(self._sampler, chunk * self._chunk_size * comm.get_world_size())

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info() if self._shard_sampler else None
        # Every worker goes through the whole order: so none has to know how far the others are.
        for position, index in enumerate(self._sampler):
            if worker is None or position // self._chunk_size % worker.num_workers == worker.id:
                yield self._dataset[index]


class TrainingLoader(DataLoader):
    """A `DataLoader` that can go on where an earlier run was stopped.

    The samples are the same only if the sampler has the same seed.
    """

    def set_start(self, iteration: int) -> None:
        """Let iterators made from now on begin at a later iteration.

        What has no `set_start` itself (a sampler of another package, a dataset that is iterable)
        begins anew, with a warning.

        Args:
            iteration: how many batches of every rank are left out.
        """
        _start_later(self.dataset, iteration)


class AspectRatioGroupedDataset(IterableDataset):
    """Batches of images that are all wider than high, or all not; this saves padding.

    Images wait in one of two buckets until it is full. Buckets outlive an iterator, and what
    never fills a bucket never appears.

    Args:
        dataset: iterable over dicts with `width` and `height`.
        batch_size: elements per batch.
    """

    def __init__(self, dataset: Iterable[dict[str, Any]], batch_size: int):
        self.dataset = dataset
        self.batch_size = batch_size
        self._buckets: tuple[list, list] = ([], [])

    def set_start(self, iteration: int) -> None:
        """See `TrainingLoader`; images that waited for their batch before are left out."""
        _start_later(self.dataset, iteration)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for element in self.dataset:
            bucket = self._buckets[element["width"] > element["height"]]
            bucket.append(element)
            if len(bucket) == self.batch_size:
                batch = bucket[:]
                bucket.clear()  # before yielding: the consumer may never come back
                yield batch


def _start_later(data: Any, start: int) -> None:
    if hasattr(data, "set_start"):
        data.set_start(start)
    elif start > 0:
        logger.warning(
            "%s cannot begin later: its samples come again from the first one", type(data).__name__
        )
