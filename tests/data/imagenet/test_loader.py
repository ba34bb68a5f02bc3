"""Endless batches that are the same again, on any number of processes."""

import itertools
import random

import numpy as np
import pytest
import torch
from image_files import bad_files, names
from timm.data import create_transform

from detectron2.utils import comm
from mimdet.data.imagenet import ImageMapper, ImageTrainLoader, load_images
from mimdet.data.repeatable import seeded

AUGMENT = create_transform(32, is_training=True, color_jitter=0.4, interpolation="bicubic")


def loader(records=None, **options) -> ImageTrainLoader:
    records = records or load_images("synthetic:10")
    mapper = ImageMapper(AUGMENT, skip_unreadable=True)
    made = ImageTrainLoader(records, mapper=mapper, **{"total_batch_size": 4, **options})
    made.seed = 5
    return made


def take(batches, number: int) -> list[list[dict]]:
    return list(itertools.islice(iter(batches), number))


def assert_equal(actual: list[list[dict]], expected: list[list[dict]]) -> None:
    for a, e in zip(itertools.chain(*actual), itertools.chain(*expected), strict=True):
        assert a["file_name"] == e["file_name"]
        assert torch.equal(a["image"], e["image"])


def test_every_epoch_has_every_image_once_in_another_order():
    found = list(itertools.chain.from_iterable(map(names, take(loader(), 5))))  # 2 epochs of 10
    assert sorted(found[:10]) == sorted(found[10:]) == sorted(names(load_images("synthetic:10")))
    assert found[:10] != found[10:]


def test_an_image_is_augmented_anew_in_every_epoch():
    samples = list(itertools.chain.from_iterable(take(loader(), 5)))
    by_name = {s["file_name"]: s["image"] for s in samples[:10]}
    assert not any(torch.equal(by_name[s["file_name"]], s["image"]) for s in samples[10:])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_that_resumes_sees_the_batches_it_would_have_seen(num_workers):
    expected = take(loader(), 5)
    resumed = loader(num_workers=num_workers)
    resumed.set_start(3)
    assert_equal(take(resumed, 2), expected[3:])


def test_another_seed_gives_other_batches():
    other = loader()
    other.seed = 6
    assert names(take(other, 1)[0]) != names(take(loader(), 1)[0])


def test_two_processes_share_the_batches_of_one(monkeypatch, as_rank):
    expected = take(loader(), 3)
    shares = []
    monkeypatch.setattr(comm, "shared_random_seed", lambda: 0)
    for rank in range(2):
        as_rank(rank, 2)
        shares.append(take(loader(), 3))
    joined = [
        [s for pair in zip(*ranks, strict=True) for s in pair]
        for ranks in zip(*shares, strict=True)
    ]
    assert_equal(joined, expected)


def test_loading_leaves_the_random_numbers_of_the_model_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    take(loader(), 2)
    assert torch.equal(torch.rand(3), expected)


def test_an_unreadable_image_is_replaced_in_the_same_way_every_time(tmp_path):
    records = [*bad_files(tmp_path), *load_images("synthetic:3")]
    first = take(loader(records), 4)
    assert {len(batch) for batch in first} == {4}
    assert not {r["file_name"] for r in records[:3]} & set(names(itertools.chain(*first)))
    assert_equal(take(loader(records), 4), first)


def test_images_that_are_all_unreadable_end_the_run(tmp_path):
    with pytest.raises(RuntimeError, match="none of 100 images in a row could be read; .*dataset"):
        take(loader(bad_files(tmp_path)[:3]), 1)


def test_a_collate_function_makes_the_batch():
    assert take(loader(collate_fn=len), 2) == [4, 4]


def test_seeding_a_block_covers_all_generators_and_ends_with_it():
    def draw() -> list[float]:
        return [random.random(), np.random.rand(), torch.rand(1).item()]

    with seeded(1, 2):
        first = draw()
    outside = draw()
    with seeded(1, 2):
        assert draw() == first
    with seeded(1, 3):
        assert not set(draw()) & set(first)
    assert draw() != outside
