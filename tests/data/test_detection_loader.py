"""Batches of detectors that depend on seed, rank and iteration, and on nothing before."""

import itertools
import logging
import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from mimdet.data.copy_paste import RandomPairs
from mimdet.data.detection_loader import DetectionTrainLoader, build_repeatable_train_loader

RECORDS = [
    {"file_name": f"{i}.png", "image_id": i, "width": 60 if i % 3 else 40, "height": 50}
    for i in range(11)
]
FACTORS = torch.linspace(0.5, 3.2, len(RECORDS))


def with_numbers(record: dict) -> dict:
    """A record with what the three generators draw for it."""
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())
    return {**record, "drawn": drawn}


def loader(dataset=RECORDS, sampler=None, **options) -> DetectionTrainLoader:
    options = {"mapper": with_numbers, "total_batch_size": 4, **options}
    made = build_repeatable_train_loader(
        dataset, sampler=sampler or TrainingSampler(len(dataset), seed=1), **options
    )
    made.seed = 5
    return made


def take(batches, number: int) -> list[list[dict]]:
    return list(itertools.islice(iter(batches), number))


def ids(batches) -> list[list[int]]:
    return [[sample["image_id"] for sample in batch] for batch in batches]


# --- The stream -----------------------------------------------------------------------------------


@pytest.mark.parametrize("grouping", [True, False])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_batches_are_those_of_detectron2s_loader_without_workers(grouping, batch_size):
    """For the same state of the generator from which both draw the seed of the order."""
    options = dict(mapper=None, total_batch_size=batch_size, aspect_ratio_grouping=grouping)
    np.random.seed(7)
    expected = take(build_detection_train_loader(RECORDS, **options), 30)
    after = np.random.rand()
    np.random.seed(7)
    assert take(build_repeatable_train_loader(RECORDS, **options), 30) == expected
    assert np.random.rand() == after


def test_a_batch_has_images_of_one_group():
    for batch in take(loader(), 20):
        assert len({sample["width"] > sample["height"] for sample in batch}) == 1


@pytest.mark.parametrize("grouping", [True, False])
@pytest.mark.parametrize("start", [1, 2, 3, 10, 29])
def test_a_resumed_loader_goes_on_with_the_batches_and_numbers_of_the_whole_one(grouping, start):
    expected = take(loader(aspect_ratio_grouping=grouping), 32)
    resumed = loader(aspect_ratio_grouping=grouping)
    resumed.set_start(start)
    assert take(resumed, 32 - start) == expected[start:]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on machines of two cores
@pytest.mark.parametrize("grouping", [True, False])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_number_of_workers_does_not_matter(grouping, num_workers):
    expected = take(loader(aspect_ratio_grouping=grouping), 9)
    other = loader(aspect_ratio_grouping=grouping, num_workers=num_workers)
    other.set_start(3)
    assert take(other, 6) == expected[3:]


@pytest.mark.parametrize("grouping", [True, False])
def test_images_that_come_more_often_are_augmented_anew_and_resume_as_well(grouping):
    def made():
        sampler = RepeatFactorTrainingSampler(FACTORS, seed=2)
        return loader(sampler=sampler, aspect_ratio_grouping=grouping)

    whole = take(made(), 20)
    drawn = [sample["drawn"] for batch in whole for sample in batch]
    assert len(set(drawn)) == len(drawn)
    resumed = made()
    resumed.set_start(13)
    assert take(resumed, 7) == whole[13:]


def test_each_rank_resumes_its_own_batches(as_rank):
    of_rank = []
    for rank in range(2):
        as_rank(rank, 2)
        of_rank.append(take(loader(), 10))
        resumed = loader()
        resumed.set_start(6)
        assert take(resumed, 4) == of_rank[-1][6:]
    drawn = [{s["drawn"] for batch in batches for s in batch} for batches in of_rank]
    assert drawn[0].isdisjoint(drawn[1])


def test_on_other_processes_the_same_images_come_in_an_iteration_without_groups(as_rank):
    expected = take(loader(aspect_ratio_grouping=False), 8)[5:]
    shares = []
    for rank in range(2):
        as_rank(rank, 2)
        share = loader(aspect_ratio_grouping=False)
        share.set_start(5)
        shares.append(take(share, 3))
    joined = [a + b for a, b in zip(*shares, strict=True)]
    for found, batch in zip(joined, expected, strict=True):
        assert sorted(s["drawn"] for s in found) == sorted(s["drawn"] for s in batch)


def test_resuming_late_maps_no_image_of_the_iterations_before():
    mapped = []
    late = loader(mapper=lambda record: mapped.append(record) or record)
    late.set_start(90_000)
    take(late, 1)
    assert len(mapped) == 4


def test_the_second_image_of_a_pair_follows_from_the_position_too():
    def made():
        return loader(RandomPairs(RECORDS), mapper=lambda pair: pair)

    state = np.random.get_state()[1].tolist()
    whole = take(made(), 12)
    assert np.random.get_state()[1].tolist() == state
    resumed = made()
    resumed.set_start(7)
    assert take(resumed, 5) == whole[7:]


def test_loading_leaves_the_random_numbers_of_the_model_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    for num_workers in (0, 1):
        torch.manual_seed(0)
        take(loader(num_workers=num_workers), 2)
        assert torch.equal(torch.rand(3), expected)


# --- Records that are refused ---------------------------------------------------------------------


def test_a_refused_image_is_replaced_by_one_of_its_group_in_the_same_way_every_time():
    def mapper(record: dict) -> dict | None:
        return None if record["image_id"] in (3, 4, 5) else with_numbers(record)

    whole = take(loader(mapper=mapper), 20)
    assert not {3, 4, 5} & set(itertools.chain.from_iterable(ids(whole)))
    assert all(len({s["width"] for s in batch}) == 1 for batch in whole)
    resumed = loader(mapper=mapper)
    resumed.set_start(9)
    assert take(resumed, 11) == whole[9:]


def test_images_that_are_all_refused_end_the_run():
    with pytest.raises(RuntimeError, match=r"none of 100 images .* last one was \d+.png \(data"):
        take(loader(mapper=lambda record: None), 1)


# --- Options and other data -----------------------------------------------------------------------


@pytest.mark.parametrize("grouping", [True, False])
def test_a_collate_function_makes_the_batch(grouping):
    assert take(loader(aspect_ratio_grouping=grouping, collate_fn=len), 2) == [4, 4]


def test_the_batch_size_of_a_process_can_be_given(as_rank):
    as_rank(0, 3)
    made = loader(total_batch_size=None, single_gpu_batch_size=2)
    assert [len(batch) for batch in take(made, 2)] == [2, 2]


@pytest.mark.parametrize("size", [None, 0, -2, 3])
def test_a_batch_size_that_cannot_be_shared_is_refused(size, as_rank):
    as_rank(0, 2)
    with pytest.raises(ValueError, match=rf"positive multiple .* processes \(2\), got {size}"):
        loader(total_batch_size=size)


class Records(Dataset):
    """Records one after the other, without a method that tells their sizes."""

    def __init__(self, records):
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        return self.records[index]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(RECORDS)


def add_size(record: dict) -> dict:
    return {**record, "width": 3, "height": 2}


def test_records_of_a_dataset_are_grouped_as_those_of_a_list():
    assert take(loader(Records(RECORDS)), 10) == take(loader(), 10)


@pytest.mark.parametrize(
    "dataset, mapper, sampler",
    [
        (Stream(), add_size, None),
        ([{"image_id": i} for i in range(9)], add_size, TrainingSampler(9, seed=0)),
        (Records(RECORDS), None, TrainingSampler(11, seed=0)),
    ],
)
def test_data_of_unknown_order_are_loaded_by_detectron2_with_a_warning(
    dataset, mapper, sampler, caplog
):
    with caplog.at_level(logging.WARNING):
        made = build_repeatable_train_loader(
            dataset, mapper=mapper, sampler=sampler, total_batch_size=2
        )
    assert "A resumed run will see other images than the uninterrupted one" in caplog.text
    assert not isinstance(made, DetectionTrainLoader)
    assert len(take(made, 1)[0]) == 2
