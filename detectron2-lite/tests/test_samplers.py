import itertools

import golden_data
import pytest
import torch

from detectron2.data.samplers import (
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils import comm

EXPECTED = golden_data.load("samplers")[1]


def first(sampler, n: int) -> list[int]:
    return [int(i) for i in itertools.islice(sampler, n)]


def records(category_ids: list[list[int]]) -> list[dict]:
    return [{"annotations": [{"category_id": c} for c in ids]} for ids in category_ids]


def name_of(case: dict) -> str:
    keys = ("size", "seed", "shuffle", "world_size", "repeat_thresh", "sqrt", "subset_ratio")
    return "-".join(f"{key}={case[key]}" for key in keys if key in case)


@pytest.mark.parametrize("case", EXPECTED["training"], ids=name_of)
def test_training_order_equals_the_reference(case, as_rank):
    for rank, expected in enumerate(case["first_24_per_rank"]):
        as_rank(rank, case["world_size"])
        sampler = TrainingSampler(case["size"], case["shuffle"], case["seed"])
        assert first(sampler, 24) == expected


@pytest.mark.parametrize("case", EXPECTED["repeat_factor"], ids=name_of)
def test_repeat_factors_and_order_equal_the_reference(case, as_rank):
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        records(case["category_ids_per_image"]), case["repeat_thresh"], case["sqrt"]
    )
    assert factors.dtype == torch.float32
    assert factors.tolist() == pytest.approx(case["repeat_factors"], rel=1e-6)
    for rank, expected in enumerate(case["first_40_per_rank"]):
        as_rank(rank, case["world_size"])
        sampler = RepeatFactorTrainingSampler(factors, seed=case["seed"])
        assert first(sampler, 40) == expected


@pytest.mark.parametrize("case", EXPECTED["inference"], ids=name_of)
def test_inference_blocks_equal_the_reference(case, as_rank):
    for rank, expected in enumerate(case["per_rank"]):
        as_rank(rank, case["world_size"])
        sampler = InferenceSampler(case["size"])
        assert list(sampler) == expected and len(sampler) == len(expected)


@pytest.mark.parametrize("case", EXPECTED["random_subset"], ids=name_of)
def test_random_subset_order_equals_the_reference(case):
    sampler = RandomSubsetTrainingSampler(
        case["size"],
        case["subset_ratio"],
        seed_shuffle=case["seed_shuffle"],
        seed_subset=case["seed_subset"],
    )
    assert first(sampler, 24) == case["first_24"]


def test_errors_equal_the_reference():
    types = {"ValueError": ValueError, "TypeError": TypeError}
    with pytest.raises(types[EXPECTED["errors"]["TrainingSampler(0)"]]):
        TrainingSampler(0)
    with pytest.raises(types[EXPECTED["errors"]["TrainingSampler(3.0)"]]):
        TrainingSampler(3.0)


def test_known_orders():
    assert first(TrainingSampler(5, seed=42), 12) == [2, 4, 3, 0, 1, 1, 4, 3, 2, 0, 0, 2]
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        records([[0], [0, 1], [], [0]]), 0.9
    )
    assert factors.tolist() == pytest.approx([1.0954, 1.8974, 1.0, 1.0954], abs=1e-4)
    order = [2, 3, 1, 1, 0, 2, 1, 3, 0, 1, 1, 0]
    assert first(RepeatFactorTrainingSampler(factors, seed=7), 12) == order


def test_iterating_twice_gives_the_same_order():
    sampler = TrainingSampler(7, seed=3)
    assert first(sampler, 20) == first(sampler, 20)


def test_ranks_without_a_seed_agree_on_one(monkeypatch):
    monkeypatch.setattr(comm, "shared_random_seed", lambda: 42)
    assert first(TrainingSampler(5), 5) == [2, 4, 3, 0, 1]


def test_unshuffled_subset_repeats_in_the_order_of_the_draw():
    sampler = RandomSubsetTrainingSampler(10, 0.35, shuffle=False, seed_subset=1)
    indices = first(sampler, 6)
    assert indices[:3] == indices[3:] and len(set(indices)) == 3


def test_whole_repeat_factors_without_shuffling():
    sampler = RepeatFactorTrainingSampler(torch.tensor([2.0, 0.0, 1.0]), shuffle=False, seed=0)
    assert first(sampler, 6) == [0, 0, 2, 0, 0, 2]


def test_fraction_of_a_repeat_factor_is_a_probability():
    sampler = RepeatFactorTrainingSampler(torch.tensor([1.0, 1.25]), shuffle=False, seed=0)
    indices = first(sampler, 9000)
    assert indices.count(1) / indices.count(0) == pytest.approx(1.25, abs=0.03)  # 3 sigma


@pytest.mark.lite
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_set_start_skips_what_all_ranks_have_seen(as_rank, world_size):
    for rank in range(world_size):
        as_rank(rank, world_size)
        for make in (
            lambda: TrainingSampler(7, seed=5),
            lambda: RandomSubsetTrainingSampler(9, 0.7, seed_shuffle=5, seed_subset=1),
            lambda: RepeatFactorTrainingSampler(torch.rand(7) * 0 + 1.5, seed=5),
        ):
            whole, resumed = first(make(), 40), make()
            resumed.set_start(10 * world_size)
            assert first(resumed, 30) == whole[10:]
            resumed.set_start(0)
            assert first(resumed, 40) == whole


@pytest.mark.lite
def test_negative_start_is_an_error():
    with pytest.raises(ValueError, match="at least 0, got -1"):
        TrainingSampler(3, seed=0).set_start(-1)


@pytest.mark.parametrize("ratio", [0, 1.1])
def test_subset_ratio_out_of_range_is_an_error(ratio):
    with pytest.raises(AssertionError):
        RandomSubsetTrainingSampler(10, ratio, seed_shuffle=0, seed_subset=0)


@pytest.mark.lite
def test_empty_subset_is_an_error():
    with pytest.raises(ValueError, match="leaves none of 10"):
        RandomSubsetTrainingSampler(10, 0.05, seed_shuffle=0, seed_subset=0)


@pytest.mark.lite
@pytest.mark.parametrize(
    "factors, message",
    [
        (torch.ones(2, 2), "one-dimensional"),
        (torch.tensor([1.0, -1.0]), "numbers >= 0"),
        (torch.tensor([1.0, float("nan")]), "numbers >= 0"),
        (torch.zeros(3), "none of the 3 repeat_factors"),
    ],
)
def test_unusable_repeat_factors_are_errors(factors, message):
    with pytest.raises(ValueError, match=message):
        RepeatFactorTrainingSampler(factors, seed=0)


def test_inference_on_nothing_is_an_error():
    with pytest.raises(AssertionError):
        InferenceSampler(0)
