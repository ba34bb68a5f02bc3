"""From names of datasets to data loaders."""

import itertools
import logging
import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Sampler

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.common import (
    AspectRatioGroupedDataset,
    DatasetFromList,
    MapDataset,
    ToIterableDataset,
    TrainingLoader,
)
from detectron2.data.detection_utils import describe_image
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import create_wide_table, log_first_n

__all__ = [
    "build_batch_data_loader",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "get_detection_dataset_dicts",
    "print_instances_class_histogram",
]

logger = logging.getLogger(__name__)

Mapper = Callable[[dict[str, Any]], Any]


def get_detection_dataset_dicts(
    names: str | list[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: list[str] | None = None,
    check_consistency: bool = True,
) -> list[dict[str, Any]] | Dataset:
    """Load registered datasets and put them one after the other.

    Args:
        names: one or several registered names.
        filter_empty: leave out images that have no annotation, or only crowd regions.
        min_keypoints: only 0 is supported.
        proposal_files: only None is supported.
        check_consistency: check that all datasets have the same classes, and log how often each
            occurs.

    Returns:
        Standard dataset dicts; a torch Dataset where the registered functions return Datasets.

    Raises:
        KeyError: a name is not registered.
        AssertionError: no name is given, a dataset is empty, or no image is left.
        ValueError: the classes differ, or an unsupported argument is given.
    """
    if min_keypoints != 0 or proposal_files is not None:
        raise ValueError(
            "keypoints and precomputed proposals are not supported: min_keypoints must be 0 and "
            f"proposal_files None, got {min_keypoints} and {proposal_files}"
        )
    names = [names] if isinstance(names, str) else list(names)
    assert names, "get_detection_dataset_dicts needs the name of at least one dataset"
    unknown = [name for name in names if name not in DatasetCatalog]
    if unknown:
        logger.warning("Datasets that are not registered: %s", ", ".join(map(str, unknown)))
    loaded = [DatasetCatalog.get(name) for name in names]
    if isinstance(loaded[0], Dataset):
        return loaded[0] if len(loaded) == 1 else ConcatDataset(loaded)
    for name, dicts in zip(names, loaded, strict=True):
        source = MetadataCatalog.get(name).get("json_file", "no json_file")
        assert len(dicts), f"dataset {name!r} is empty: there is no image in it ({source})"

    dataset_dicts = list(itertools.chain.from_iterable(loaded))
    has_annotations = "annotations" in dataset_dicts[0]
    if filter_empty and has_annotations:
        dataset_dicts = filter_images_with_only_crowd_annotations(dataset_dicts)
        assert dataset_dicts, f"no image of {names} has an annotation that is not a crowd region"
    if check_consistency and has_annotations:
        class_names = _common_class_names(names)
        if class_names is not None:
            print_instances_class_histogram(dataset_dicts, class_names)
    return dataset_dicts


def filter_images_with_only_crowd_annotations(
    dataset_dicts: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Leave out images without any annotation that is not a crowd region; log how many.

    Args:
        dataset_dicts: standard dataset dicts.
    """
    usable = [
        record
        for record in dataset_dicts
        if any(annotation.get("iscrowd", 0) == 0 for annotation in record.get("annotations", []))
    ]
    logger.info(
        "Removed %d images with no usable annotations. %d images left.",
        len(dataset_dicts) - len(usable),
        len(usable),
    )
    return usable


def _common_class_names(names: list[str]) -> list[str] | None:
    """The `thing_classes` that all datasets share; None where a dataset does not know them."""
    classes = {name: MetadataCatalog.get(name).get("thing_classes") for name in names}
    if None in classes.values():
        return None
    for name in names[1:]:
        if classes[name] != classes[names[0]]:
            raise ValueError(
                f"datasets that are used together must have the same thing_classes, but {name!r} "
                f"has {classes[name]} and {names[0]!r} has {classes[names[0]]}"
            )
    return classes[names[0]]


def print_instances_class_histogram(
    dataset_dicts: list[dict[str, Any]], class_names: list[str]
) -> None:
    """Log how many instances each class has (crowd regions not counted), once per content.

    Args:
        dataset_dicts: standard dataset dicts.
        class_names: names by class id.

    Raises:
        AssertionError: the category id of such an instance is outside 0..K-1.
    """
    counts = np.zeros(len(class_names), dtype=np.int64)
    for record in dataset_dicts:
        for position, annotation in enumerate(record.get("annotations", [])):
            if annotation.get("iscrowd", 0):
                continue
            category = annotation["category_id"]
            assert 0 <= category < len(class_names), (
                f"category_id must be in [0, {len(class_names)}), got {category} in annotation "
                f"{position} of {describe_image(record)}"
            )
            counts[category] += 1
    numbers = [*zip(class_names, counts.tolist(), strict=True), ("total", int(counts.sum()))]
    table = create_wide_table(numbers, ("category", "#instances"), stralign="center")
    log_first_n(
        logging.INFO,
        f"Distribution of instances among all {len(class_names)} categories:\n{table}",
        # Once per content, however often the data set is loaded.
        key="message",
    )


def build_detection_train_loader(
    dataset: list[dict[str, Any]] | Dataset,
    *,
    mapper: Mapper | None,
    sampler: Sampler | None = None,
    total_batch_size: int | None,
    aspect_ratio_grouping: bool = True,
    **kwargs: Any,
) -> Iterable[list[Any]]:
    """An endless loader of training batches.

    Args:
        dataset: standard dataset dicts, or a torch Dataset (map-style or iterable).
        mapper: turns a dataset dict into what the model takes; runs in the workers. None keeps
            the elements as they are.
        sampler: order of the indices, None for `TrainingSampler`; must be None for an iterable
            dataset, which has to share itself among ranks and workers.
        total_batch_size: images per iteration over all ranks.
        aspect_ratio_grouping: batch wide images with wide ones. The order then depends on
            `num_workers`; without, it does not.
        **kwargs: further arguments of `build_batch_data_loader`, such as `num_workers` and
            `collate_fn`.

    Returns:
        An iterable over batches of total_batch_size / world size elements. Its method
        `set_start(iteration)` lets a resumed run go on where it was stopped.

    Raises:
        AssertionError: `sampler` has the wrong type or comes with an iterable dataset, or the
            batch size cannot be shared evenly.
        ValueError: see `build_batch_data_loader`.
    """
    dataset = _mapped_dataset(dataset, mapper)
    sampler = _sampler_for(dataset, sampler, default=TrainingSampler)
    return build_batch_data_loader(
        dataset, sampler, total_batch_size, aspect_ratio_grouping=aspect_ratio_grouping, **kwargs
    )


def build_batch_data_loader(
    dataset: Dataset,
    sampler: Sampler | None,
    total_batch_size: int | None,
    *,
    aspect_ratio_grouping: bool = False,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    drop_last: bool = True,
    single_gpu_batch_size: int | None = None,
    prefetch_factor: int | None = 2,
    persistent_workers: bool = False,
    pin_memory: bool | None = None,
    seed: int | None = None,
    **kwargs: Any,
) -> Iterable[list[Any]]:
    """Batch a dataset of mapped elements; the sampler and the mapping run in the workers.

    Args:
        dataset: map-style dataset, or an iterable one (then `sampler` is None).
        sampler: order of the indices.
        total_batch_size: elements per iteration over all ranks.
        aspect_ratio_grouping: batch wide images with wide ones; an incomplete batch never appears.
        num_workers: worker processes per rank; 0 loads in this process.
        collate_fn: list of elements -> batch; None gives the list.
        drop_last: leave out an incomplete last batch (of a finite iterable dataset).
        single_gpu_batch_size: elements per iteration and rank, instead of `total_batch_size`.
        prefetch_factor: batches that each worker prepares in advance.
        persistent_workers: keep the workers between two iterations over the loader.
        pin_memory: copy tensors to page-locked memory; None does so where CUDA is available.
        seed: of the random numbers in the workers; None takes torch's. It does not concern the
            sampler.
        **kwargs: further arguments of `torch.utils.data.DataLoader`. A `worker_init_fn` takes the
            place of the one that seeds `random` and numpy in the workers.

    Raises:
        AssertionError: the batch size is not positive or not a multiple of the world size,
            `sampler` has the wrong type or comes with an iterable dataset.
        ValueError: both batch sizes are given.
    """
    batch_size = _batch_size_per_rank(total_batch_size, single_gpu_batch_size)
    logger.info("Every process loads batches of batch_size=%d", batch_size)
    if isinstance(dataset, IterableDataset):
        assert sampler is None, "sampler must be None for an iterable dataset"
    else:
        dataset = ToIterableDataset(dataset, sampler, shard_chunk_size=batch_size)
    if seed is not None:
        kwargs["generator"] = torch.Generator().manual_seed(seed)
    kwargs["num_workers"] = num_workers
    kwargs["pin_memory"] = torch.cuda.is_available() if pin_memory is None else pin_memory
    kwargs.setdefault("worker_init_fn", worker_init_reset_seed)
    if num_workers > 0:  # DataLoader refuses these two without workers
        kwargs |= {"prefetch_factor": prefetch_factor, "persistent_workers": persistent_workers}
    if not aspect_ratio_grouping:
        collate_fn = collate_fn or trivial_batch_collator
        return TrainingLoader(
            dataset, batch_size=batch_size, drop_last=drop_last, collate_fn=collate_fn, **kwargs
        )
    # Workers give single elements: only here, where all of them arrive, are there enough of both
    # shapes to fill batches soon.
    single_elements = TrainingLoader(dataset, collate_fn=operator.itemgetter(0), **kwargs)
    batches = AspectRatioGroupedDataset(single_elements, batch_size)
    return batches if collate_fn is None else MapDataset(batches, collate_fn)


def build_detection_test_loader(
    dataset: list[dict[str, Any]] | Dataset,
    *,
    mapper: Mapper | None,
    sampler: Sampler | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    pin_memory: bool | None = None,
    persistent_workers: bool = True,
) -> DataLoader:
    """A loader that gives every element once, over all ranks together.

    Args:
        dataset: standard dataset dicts, or a torch Dataset (map-style or iterable).
        mapper: turns a dataset dict into what the model takes; None keeps the elements.
        sampler: order of the indices, None for `InferenceSampler`; must be None for an iterable
            dataset.
        batch_size: images per iteration and rank; the last batch may be smaller.
        num_workers: worker processes per rank; 0 loads in this process.
        collate_fn: list of mapped elements -> batch; None gives the list.
        pin_memory: copy tensors to page-locked memory; None does so where CUDA is available.
        persistent_workers: keep the workers for the next evaluation with the same loader, which
            would have to start them again.

    Returns:
        A DataLoader; its length is the number of batches of this rank.

    Raises:
        AssertionError: `sampler` comes with an iterable dataset.
    """
    dataset = _mapped_dataset(dataset, mapper)
    sampler = _sampler_for(dataset, sampler, default=InferenceSampler)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=False,
        num_workers=num_workers,
        collate_fn=collate_fn or trivial_batch_collator,
        pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
        # DataLoader refuses it without workers.
        persistent_workers=persistent_workers and num_workers > 0,
    )


def _mapped_dataset(dataset: list[dict[str, Any]] | Dataset, mapper: Mapper | None) -> Dataset:
    if isinstance(dataset, list):
        dataset = DatasetFromList(dataset, copy=False)
    return dataset if mapper is None else MapDataset(dataset, mapper)


def _sampler_for(
    dataset: Dataset, sampler: Sampler | None, default: Callable[[int], Sampler]
) -> Sampler | None:
    if isinstance(dataset, IterableDataset):
        assert sampler is None, "sampler must be None for an iterable dataset"
        return None
    return default(len(dataset)) if sampler is None else sampler


def _batch_size_per_rank(total: int | None, single: int | None) -> int:
    if single:
        if total:
            raise ValueError(
                "give total_batch_size or single_gpu_batch_size, not both; got "
                f"{total} and {single}"
            )
        return single
    world_size = comm.get_world_size()
    assert total and total > 0 and total % world_size == 0, (
        f"total_batch_size must be a positive multiple of the number of processes ({world_size}), "
        f"got {total}"
    )
    return total // world_size


def trivial_batch_collator(batch: list[Any]) -> list[Any]:
    """Keep a batch as the list of its elements."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Seed `random`, numpy and torch of a worker from the base seed of its loader."""
    # numpy and random would otherwise give the same numbers in every forked worker.
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)
