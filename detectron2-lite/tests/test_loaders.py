import itertools
import logging
import os
import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset, Sampler

from detectron2.data import (
    DatasetFromList,
    MapDataset,
    ToIterableDataset,
    build_batch_data_loader,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.samplers import InferenceSampler, TrainingSampler

pytestmark = [
    # torch advises against more workers than cores, Python against forking with threads
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
]


@pytest.fixture
def log(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
    caplog.set_level(logging.INFO, "detectron2")
    return caplog


def records(n: int) -> list[dict]:
    """Odd images are wide, even ones high."""
    return [{"image_id": i, "width": 5 + i % 2 * 10, "height": 10} for i in range(n)]


def image_ids(batches, n: int | None = None) -> list[list[int]]:
    return [[record["image_id"] for record in batch] for batch in itertools.islice(batches, n)]


class Counting(IterableDataset):
    def __iter__(self):
        yield from range(7)


# Wrappers


def test_list_is_serialized_and_every_access_gives_a_new_object(log):
    elements = [{"a": [1]}, "text", None, {"b": np.arange(3)}]
    dataset = DatasetFromList(elements)
    assert len(dataset) == 4 and dataset[1] == "text" and dataset[2] is None
    assert dataset[0] == elements[0] and dataset[0] is not dataset[0]
    dataset[0]["a"].append(2)
    assert dataset[0] == {"a": [1]}
    np.testing.assert_array_equal(dataset[3]["b"], np.arange(3))
    assert " 4 elements " in log.text
    assert "Serialized dataset takes" in log.text and "MiB" in log.text


def test_list_without_serialization_is_copied_or_shared():
    elements = [[1], [2]]
    copied = DatasetFromList(elements, serialize=False)
    assert copied[0] == [1] and copied[0] is not elements[0]
    assert DatasetFromList(elements, copy=False, serialize=False)[0] is elements[0]


@pytest.mark.lite
def test_serialized_list_knows_its_ends():
    dataset = DatasetFromList([1, 2, 3])
    assert list(dataset) == [1, 2, 3] and dataset[-1] == 3
    with pytest.raises(IndexError):
        dataset[3]
    assert list(DatasetFromList([])) == []


def test_dataset_with_a_lambda_reaches_other_processes():
    dataset = MapDataset(DatasetFromList([1, 2]), lambda x: x + 1)
    again = pickle.loads(pickle.dumps(dataset))
    assert (len(again), again[0], again[1]) == (2, 2, 3)
    iterable = pickle.loads(pickle.dumps(MapDataset(Counting(), lambda x: x + 1)))
    assert list(iterable) == [1, 2, 3, 4, 5, 6, 7]


def test_refused_elements_are_replaced_by_others(log):
    dataset = MapDataset(DatasetFromList(list(range(6))), lambda x: x if x >= 4 else None)
    results = [dataset[i] for i in range(6)]
    assert set(results[:4]) <= {4, 5} and results[4:] == [4, 5]


def test_replacement_is_drawn_from_the_rest_with_a_fixed_seed():
    dataset = MapDataset(DatasetFromList(list(range(10))), lambda x: None if x == 3 else x)
    rest = [i for i in range(10) if i != 3]
    rng = random.Random(42)
    assert [dataset[3] for _ in range(5)] == [rng.choice(rest) for _ in range(5)]


def test_many_refusals_in_one_call_are_a_warning(log):
    dataset = MapDataset(DatasetFromList(list(range(5))), lambda x: x if x == 4 else None)
    for index in range(4):  # whatever is drawn, the first calls meet at least three refusals
        assert dataset[index] == 4
    warnings = [r.getMessage() for r in log.records if r.levelname == "WARNING"]
    assert warnings and all("Failed to apply" in message for message in warnings)


@pytest.mark.lite
def test_number_of_replaced_elements_is_logged(log):
    dataset = MapDataset(DatasetFromList(list(range(3))), lambda x: x or None)
    for _ in range(12):
        dataset[0]
    messages = [r.getMessage() for r in log.records if "returned None" in r.getMessage()]
    assert len(messages) == 2
    assert "10 times" in messages[1] and "1 of 3 samples are refused" in messages[1]


@pytest.mark.lite
def test_mapper_that_refuses_everything_is_an_error():
    dataset = MapDataset(DatasetFromList(list(range(3))), lambda x: None)
    with pytest.raises(RuntimeError, match="mapper returned None for all 3 samples"):
        dataset[1]


def test_exceptions_of_the_mapper_are_not_caught():
    dataset = MapDataset(DatasetFromList([1, 0]), lambda x: 1 / x)
    assert dataset[0] == 1
    with pytest.raises(ZeroDivisionError):
        dataset[1]


def test_iterable_dataset_stays_iterable_and_skips_refused_elements():
    dataset = MapDataset(Counting(), lambda x: x * 2 if x % 2 else None)
    assert isinstance(dataset, IterableDataset) and list(dataset) == [2, 6, 10]


def test_sampler_makes_a_dataset_iterable():
    dataset = ToIterableDataset(DatasetFromList([5, 6, 7]), InferenceSampler(3))
    assert list(dataset) == [5, 6, 7] and len(dataset) == 3
    with pytest.raises(AssertionError):
        ToIterableDataset(Counting(), InferenceSampler(3))
    with pytest.raises(AssertionError):
        ToIterableDataset(DatasetFromList([5]), [0])


@pytest.mark.parametrize(
    "chunk, shares",
    [(1, {0: [0, 2, 4, 6], 1: [1, 3, 5]}), (2, {0: [0, 1, 4, 5], 1: [2, 3, 6]})],
)
def test_workers_take_chunks_in_turn(chunk, shares):
    dataset = ToIterableDataset(
        DatasetFromList(list(range(7))), InferenceSampler(7), shard_chunk_size=chunk
    )
    loader = torch.utils.data.DataLoader(
        MapDataset(dataset, lambda x: (torch.utils.data.get_worker_info().id, x)),
        num_workers=2,
        batch_size=None,
    )
    pairs = list(loader)
    assert {w: [x for worker, x in pairs if worker == w] for w in (0, 1)} == shares


def test_unsharded_sampler_runs_whole_in_every_worker():
    dataset = ToIterableDataset(DatasetFromList([0, 1]), InferenceSampler(2), shard_sampler=False)
    loader = torch.utils.data.DataLoader(dataset, num_workers=2, batch_size=None)
    assert sorted(loader) == [0, 0, 1, 1]


def test_images_are_grouped_by_orientation():
    sizes = [(2, 1), (1, 2), (3, 1), (1, 1), (1, 3), (4, 1)]
    images = [{"image_id": i, "width": w, "height": h} for i, (w, h) in enumerate(sizes)]
    dataset = AspectRatioGroupedDataset(images, 2)
    assert image_ids(dataset) == [[0, 2], [1, 3]]
    # images 4 (high) and 5 (wide) wait in the buckets for the second pass
    assert image_ids(dataset) == [[5, 0], [4, 1], [3, 4], [2, 5]]


# Training loader


def test_training_batches_follow_the_sampler():
    loader = build_detection_train_loader(
        records(7),
        mapper=lambda record: record | {"mapped": True},
        sampler=TrainingSampler(7, seed=42),
        total_batch_size=3,
        aspect_ratio_grouping=False,
    )
    order = list(itertools.islice(TrainingSampler(7, seed=42), 12))
    batches = list(itertools.islice(loader, 4))
    assert image_ids(batches) == [order[i : i + 3] for i in range(0, 12, 3)]
    assert all(record["mapped"] for batch in batches for record in batch)


def test_training_batches_are_grouped_by_default():
    loader = build_detection_train_loader(
        records(9), mapper=None, sampler=TrainingSampler(9, seed=0), total_batch_size=2
    )
    for batch in itertools.islice(loader, 10):
        assert len({record["width"] for record in batch}) == 1


def test_order_without_grouping_does_not_depend_on_workers():
    def first_batches(num_workers):
        loader = build_detection_train_loader(
            records(7),
            mapper=None,
            sampler=TrainingSampler(7, seed=1),
            total_batch_size=2,
            aspect_ratio_grouping=False,
            num_workers=num_workers,
        )
        return image_ids(loader, 7)

    assert first_batches(0) == first_batches(2)


def test_default_sampler_is_endless_and_shuffled():
    loader = build_detection_train_loader(
        records(5), mapper=None, total_batch_size=5, aspect_ratio_grouping=False
    )
    for batch in image_ids(loader, 4):
        assert sorted(batch) == [0, 1, 2, 3, 4]


def test_batch_is_shared_among_ranks(as_rank, log):
    as_rank(1, 2)
    make = lambda total: build_detection_train_loader(  # noqa: E731
        records(6),
        mapper=None,
        sampler=TrainingSampler(6, shuffle=False, seed=0),
        total_batch_size=total,
        aspect_ratio_grouping=False,
    )
    assert image_ids(make(4), 3) == [[1, 3], [5, 1], [3, 5]]
    assert "batch_size=2" in log.text
    for total in (3, 0):
        with pytest.raises(AssertionError):
            make(total)


def test_batch_size_may_be_given_per_rank(as_rank):
    as_rank(0, 2)
    arguments = {"mapper": None, "aspect_ratio_grouping": False, "single_gpu_batch_size": 3}
    arguments["sampler"] = TrainingSampler(6, seed=0)
    loader = build_detection_train_loader(records(6), total_batch_size=None, **arguments)
    assert len(next(iter(loader))) == 3
    with pytest.raises(ValueError, match="total_batch_size"):
        build_detection_train_loader(records(6), total_batch_size=6, **arguments)


@pytest.mark.lite
@pytest.mark.parametrize("num_workers, world_size", [(0, 1), (0, 2), (2, 1)])
def test_resumed_loader_goes_on_with_the_batches_of_the_uninterrupted_one(
    as_rank, num_workers, world_size
):
    as_rank(world_size - 1, world_size)

    def make():
        return build_detection_train_loader(
            records(7),
            mapper=None,
            sampler=TrainingSampler(7, seed=1),
            total_batch_size=2 * world_size,
            aspect_ratio_grouping=False,
            num_workers=num_workers,
        )

    whole, resumed = image_ids(make(), 9), make()
    resumed.set_start(5)
    assert image_ids(resumed, 4) == whole[5:]


@pytest.mark.lite
@pytest.mark.parametrize("collate_fn", [None, list])
def test_resumed_loader_that_groups_leaves_out_the_images_of_the_batches_before(collate_fn):
    loader = build_detection_train_loader(
        records(8),
        mapper=None,
        sampler=TrainingSampler(8, shuffle=False, seed=0),
        total_batch_size=2,
        collate_fn=collate_fn,
    )
    loader.set_start(3)  # after 6 images
    assert image_ids(loader, 3) == [[6, 0], [7, 1], [2, 4]]


@pytest.mark.lite
def test_data_that_cannot_begin_later_begin_anew_with_a_warning(log):
    class OwnSampler(Sampler):
        def __iter__(self):
            yield from range(4)

    arguments = {"mapper": None, "total_batch_size": 2, "aspect_ratio_grouping": False}
    for data, name in ((records(4), "OwnSampler"), (Counting(), "Counting")):
        sampler = OwnSampler() if name == "OwnSampler" else None
        loader = build_detection_train_loader(data, sampler=sampler, **arguments)
        before = list(loader)
        loader.set_start(0)
        assert f"{name} cannot begin later" not in log.text
        loader.set_start(1)
        assert f"{name} cannot begin later: its samples come again from the first" in log.text
        assert list(loader) == before


@pytest.mark.parametrize("grouping", [False, True])
def test_own_collate_function_makes_the_batch(grouping):
    loader = build_detection_train_loader(
        records(6),
        mapper=None,
        total_batch_size=2,
        aspect_ratio_grouping=grouping,
        collate_fn=lambda batch: ("batch", len(batch)),
    )
    assert next(iter(loader)) == ("batch", 2)


def test_iterable_dataset_takes_no_sampler():
    arguments = {"mapper": lambda x: -x, "total_batch_size": 2, "aspect_ratio_grouping": False}
    loader = build_detection_train_loader(Counting(), **arguments)
    assert list(loader) == [[0, -1], [-2, -3], [-4, -5]]
    kept = build_detection_train_loader(Counting(), drop_last=False, **arguments)
    assert list(kept)[-1] == [-6]
    with pytest.raises(AssertionError):
        build_detection_train_loader(Counting(), sampler=InferenceSampler(7), **arguments)
    with pytest.raises(AssertionError):
        build_batch_data_loader(Counting(), InferenceSampler(7), 2)


def test_sampler_must_be_a_sampler():
    with pytest.raises(AssertionError):
        build_detection_train_loader(records(3), mapper=None, sampler=[0, 1], total_batch_size=1)


def test_workers_draw_different_numbers_that_the_seed_fixes():
    def draws(seed):
        loader = build_detection_train_loader(
            records(4),
            mapper=lambda record: (np.random.rand(), random.random(), float(torch.rand(()))),
            total_batch_size=1,
            aspect_ratio_grouping=False,
            num_workers=2,
            seed=seed,
        )
        return [batch[0] for batch in itertools.islice(loader, 4)]

    numbers = draws(3)
    assert all(len(set(column)) == 4 for column in zip(*numbers, strict=True))
    assert draws(3) == numbers and draws(4) != numbers


@pytest.mark.parametrize("seed", [0, 3, 2**33 + 5])
def test_numbers_of_a_worker_follow_from_the_seed_and_the_number_of_the_worker(seed):
    def draw(record):
        info = torch.utils.data.get_worker_info()
        return info.id, info.seed, np.random.rand(), random.random()

    loader = build_detection_train_loader(
        records(6),
        mapper=draw,
        total_batch_size=1,
        aspect_ratio_grouping=False,
        num_workers=3,
        seed=seed,
    )
    for number, (batch,) in zip(range(3), loader, strict=False):
        worker, worker_seed, of_numpy, of_random = batch
        assert worker == number
        expected = worker_seed % 2**31 + worker
        assert of_numpy == np.random.RandomState(expected).rand()
        assert of_random == random.Random(expected).random()


@pytest.mark.lite  # upstream's loader fails with its own function given twice
def test_own_worker_init_function_is_called():
    def init(worker_id):
        os.environ["TEST_WORKER"] = str(worker_id)

    loader = build_detection_train_loader(
        records(4),
        mapper=lambda record: os.environ["TEST_WORKER"],
        total_batch_size=1,
        aspect_ratio_grouping=False,
        num_workers=2,
        worker_init_fn=init,
    )
    assert list(itertools.islice(loader, 4)) == [["0"], ["1"]] * 2


@pytest.mark.lite
def test_mapper_that_refuses_everything_stops_training():
    loader = build_detection_train_loader(
        records(4), mapper=lambda record: None, total_batch_size=2
    )
    with pytest.raises(RuntimeError, match="None for all 4 samples"):
        next(iter(loader))


# Test loader


def test_test_loader_gives_every_image_once():
    loader = build_detection_test_loader(
        records(5), mapper=lambda record: record | {"mapped": True}, batch_size=2
    )
    batches = list(loader)
    assert len(loader) == 3 and image_ids(batches) == [[0, 1], [2, 3], [4]]
    assert all(record["mapped"] for batch in batches for record in batch)


def test_test_loader_has_the_length_of_its_rank(as_rank):
    for rank, expected in enumerate([[[0], [1]], [[2], [3]], [[4]]]):
        as_rank(rank, 3)
        loader = build_detection_test_loader(records(5), mapper=None)
        assert len(loader) == len(expected) and image_ids(loader) == expected


def test_test_loader_takes_a_sampler_a_collate_function_or_an_iterable():
    loader = build_detection_test_loader(
        records(5), mapper=None, sampler=InferenceSampler(2), collate_fn=len
    )
    assert list(loader) == [1, 1]
    assert image_ids(build_detection_test_loader(records(5), mapper=None, sampler=[3, 1])) == [
        [3],
        [1],
    ]
    iterable = build_detection_test_loader(Counting(), mapper=None, batch_size=4)
    assert list(iterable) == [[0, 1, 2, 3], [4, 5, 6]]
    with pytest.raises(AssertionError):
        build_detection_test_loader(Counting(), mapper=None, sampler=InferenceSampler(2))


def test_rank_without_images_gets_no_batch(as_rank):
    as_rank(2, 3)
    loader = build_detection_test_loader(records(2), mapper=lambda record: record, num_workers=1)
    assert len(loader) == 0 and [list(loader), list(loader)] == [[], []]


@pytest.mark.lite
def test_test_loader_keeps_its_workers_between_evaluations():
    def worker_pids(loader):
        return {pid for (pid,) in loader}

    loader = build_detection_test_loader(
        records(4), mapper=lambda record: os.getpid(), num_workers=1
    )
    pids = worker_pids(loader)
    assert os.getpid() not in pids and worker_pids(loader) == pids


@pytest.mark.lite
@pytest.mark.parametrize("cuda", [False, True])
def test_memory_is_pinned_where_cuda_is_available(monkeypatch, cuda):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    train = {"mapper": None, "total_batch_size": 1, "aspect_ratio_grouping": False}
    assert build_detection_train_loader(records(2), **train).pin_memory is cuda
    assert build_detection_test_loader(records(2), mapper=None).pin_memory is cuda
    assert build_detection_train_loader(records(2), pin_memory=False, **train).pin_memory is False
