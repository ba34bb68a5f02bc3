"""The curve of the sample ratio: what is measured how often, and which ratio is chosen."""

import contextlib
import math

import pytest
import torch
from torch import nn

from detectron2.evaluation import DatasetEvaluator
from mimdet.analysis.measure_ratios import Measurement
from mimdet.analysis.peak_memory import peak_memory
from mimdet.analysis.ratio_curve import RatioDial, RatioPoint, choose, noise, resized


class Sampling(nn.Module):
    """Tells its ratio and seed, and the first pixel of the image, instead of detecting."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.sample_ratio, self.sample_seed = 1.0, None
        self.calls = []

    def forward(self, batch):
        self.calls.append((self.sample_ratio, self.sample_seed, batch[0]["image"]))
        return [(self.sample_ratio, self.sample_seed)]


class AsToldByTheModel(DatasetEvaluator):
    """AP = 100 * ratio + seed."""

    def reset(self):
        self.last = None

    def process(self, inputs, outputs):
        (self.last,) = outputs

    def evaluate(self):
        print("a page of numbers")
        ratio, seed = self.last
        return {"bbox": {"AP": 100 * ratio + seed}}


class OfNothing(AsToldByTheModel):
    def evaluate(self):
        return {"bbox": {"AP": math.nan}}


@pytest.fixture
def dial():
    return RatioDial(Sampling().eval(), contextlib.nullcontext)


LOADER = [[{"image": "a"}], [{"image": "b"}]]


def test_ap_is_measured_with_each_seed_and_once_with_all_tokens(dial, capsys):
    points = [RatioPoint(0.25), RatioPoint(1.0)]
    dial.measure_ap(points, 3, LOADER, AsToldByTheModel())
    assert [point.ap for point in points] == [{"bbox": [25, 26, 27]}, {"bbox": [100]}]
    assert len(dial.model.calls) == 4 * len(LOADER)
    assert "a page" not in capsys.readouterr().out
    few, all_tokens = (point.ap["bbox"] for point in points)
    for point, mean, deviation in zip(points, (26, 100), (1, None), strict=True):
        point.seconds = [1.0]
        ap = point.as_dict()["AP"]["bbox"]
        assert (ap["mean"], ap["deviation"]) == (mean, deviation)
    assert ap["of_seeds"] == all_tokens and few != all_tokens


def test_an_ap_of_nothing_is_an_error(dial):
    with pytest.raises(ValueError, match="must show objects, and there is none to score bbox by"):
        dial.measure_ap([RatioPoint(1.0)], 1, LOADER, OfNothing())


def test_in_each_round_all_ratios_get_the_same_image_and_the_first_warms_up(dial):
    points = [RatioPoint(0.5), RatioPoint(1.0)]
    dial.measure_cost(points, LOADER, rounds=3)
    timed = [(ratio, image) for ratio, _, image in dial.model.calls[:8]]
    assert timed == [(ratio, image) for image in "abab" for ratio in (0.5, 1.0)]
    assert [len(point.seconds) for point in points] == [3, 3]
    assert all(point.median_seconds == sorted(point.seconds)[1] for point in points)


def test_a_model_that_samples_nothing_has_no_curve():
    with pytest.raises(ValueError, match="one of MIMDet's backbone, and this model has another"):
        RatioDial(nn.Linear(1, 1), contextlib.nullcontext)


def points(**ap_and_seconds):
    """r25=(ap, seconds) and so on, without AP where it is None."""
    made = []
    for name, (ap, seconds) in ap_and_seconds.items():
        point = RatioPoint(int(name[1:]) / 100, {} if ap is None else {"bbox": [ap]}, [seconds])
        made.append(point)
    return made


@pytest.mark.parametrize(
    "measured, budget, expected",
    [
        (points(r25=(10, 1), r50=(12, 2), r100=(15, 4)), 2, 0.5),  # the best that is fast enough
        (points(r25=(10, 1), r50=(9, 2), r100=(15, 4)), 3, 0.25),  # though it sees less
        (points(r25=(10, 1), r50=(10, 2)), 3, 0.5),  # the same AP
        (points(r25=(None, 1), r50=(None, 2), r100=(None, 4)), 3, 0.5),  # no AP
        (points(r25=(10, 1)), 0.5, None),
    ],
)
def test_the_best_ratio_within_a_budget_is_chosen(measured, budget, expected):
    chosen = choose(measured, budget)
    assert (chosen and chosen.ratio) == expected


def test_images_are_timed_at_the_size_that_is_asked_for():
    (image,) = resized(
        [{"image": torch.full((3, 8, 9), 7, dtype=torch.uint8), "height": 8}], (32, 48)
    )
    assert image["image"].shape == (3, 32, 48) and (image["image"] == 7).all()
    assert (image["height"], image["width"]) == (32, 48)
    (first,), (second,) = noise((32, 48)), noise((32, 48))
    assert first["image"].shape == (3, 32, 48) and torch.equal(first["image"], second["image"])


def test_the_peak_is_that_of_the_work_alone():
    cpu = torch.device("cpu")
    before = torch.ones(2**24)  # 64 MiB that are gone when the work begins
    del before
    little = peak_memory(lambda: torch.ones(1), cpu)
    much = peak_memory(lambda: torch.ones(2**25), cpu)
    assert 0.9 * 2**27 < much - little < 1.1 * 2**27


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(ratios=(0.5, 1.5)), r"ratios must be above 0 and at most 1, got \[0.5, 1.5\]"),
        (dict(ratios=()), "ratios must be"),
        (dict(seeds=-1), "seeds must be 0 or more"),
        (dict(rounds=0), "rounds 1 or more"),
        (dict(size=(0, 8)), "a size must be two positive numbers"),
        (dict(max_seconds=0.0), "seconds must be above 0, got 0.0"),
    ],
)
def test_what_cannot_be_measured_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Measurement(**wrong)
