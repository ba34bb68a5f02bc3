"""The bootstrap against cases whose answer is known."""

import numpy as np
import pytest
from detection_files import random_case, results_of, truth_of

from mimdet.report.bootstrap import SHOWN_NOTHING, paired_bootstrap
from mimdet.report.detections import read_detections
from mimdet.report.matching import match
from mimdet.report.precision import Ranking

BOX = (10, 10, 100, 100)


def ranking_of(truth, results):
    evaluated = read_detections(truth, results)
    return Ranking(evaluated, match(evaluated))


def found_in(is_found):
    """One cat in each image, found exactly where `is_found` says; its AP is the share found."""
    truth = truth_of([[(0, BOX)] for _ in is_found])
    return ranking_of(truth, results_of([[(0, BOX, 0.9)] if hit else [] for hit in is_found]))


def test_a_run_against_itself_differs_by_0_whatever_is_drawn():
    run = ranking_of(*random_case(0))
    compared = paired_bootstrap([run], [run], resamples=50)
    for difference in (compared.ap, compared.ap50, *compared.classes):
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)
        assert difference.verdict == SHOWN_NOTHING


def test_a_run_that_is_better_in_every_image_is_higher_and_the_other_one_lower():
    truth, results = random_case(1, images=30)
    better = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 1}
        for a in truth["annotations"]
    ]
    first, second = ranking_of(truth, results), ranking_of(truth, better)
    up, down = (
        paired_bootstrap(*pair, resamples=100)
        for pair in ([[first], [second]], [[second], [first]])
    )
    assert (up.ap.verdict, down.ap.verdict) == ("higher", "lower")
    assert 0 < up.ap.low < up.ap.value < up.ap.high
    assert up.ap.low == pytest.approx(-down.ap.high)
    assert up.ap.value == pytest.approx(100 - 100 * np.nanmean(first.average_precision()))


def test_the_interval_is_that_of_a_mean_where_ap_is_a_mean():
    """Of 400 images A finds 240 and B 280, both 200: d is 1 in 80 images, -1 in 40, 0 in 280.

    The mean of d is 0.1 and its variance 0.3 - 0.01, so that the interval of the mean is
    0.1 ± 1.96 * sqrt(0.29 / 400) = 0.1 ± 0.0528, in points 4.7 to 15.3.
    """
    k = np.arange(400)
    first, second = found_in(k < 240), found_in((k < 200) | (k >= 320))
    ap = paired_bootstrap([first], [second]).ap
    assert ap.value == pytest.approx(10, abs=1.2)  # AP knows recalls to a 101st
    # The ends of 1,000 draws are known to about 0.2 points.
    assert ap.high - ap.low == pytest.approx(2 * 5.28, abs=1)
    assert ap.verdict == "higher"


def test_the_same_difference_on_fewer_images_is_not_shown():
    k = np.arange(20)
    ap = paired_bootstrap([found_in(k < 12)], [found_in((k < 10) | (k >= 16))], resamples=200).ap
    assert ap.value == pytest.approx(10, abs=1.2)
    assert ap.low < 0 < ap.high
    assert ap.verdict == SHOWN_NOTHING


def test_pairing_cancels_what_the_images_have_in_common():
    """B finds what A finds and 5 more of 100: alone, each is known to about 10 points."""
    k = np.arange(100)
    ap = paired_bootstrap([found_in(k < 50)], [found_in(k < 55)], resamples=300).ap
    assert 0 < ap.low and ap.high < 11


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """60 experiments of 60 images with a true difference of 10 points."""
    rng, hits = np.random.default_rng(0), 0
    for seed in range(60):
        hard = rng.random(60) < 0.3  # in which both fail more often
        first = rng.random(60) < np.where(hard, 0.2, 0.7)
        second = rng.random(60) < np.where(hard, 0.3, 0.8)
        ap = paired_bootstrap([found_in(first)], [found_in(second)], resamples=60, seed=seed).ap
        hits += ap.low <= 10 <= ap.high
    # Of 95 %, 60 experiments show 57 ± 1.7; so few draws make an interval a little too short.
    assert 52 <= hits <= 59


def test_a_model_of_several_seeds_is_the_mean_of_them():
    k = np.arange(40)
    seeds = [found_in(k < 10), found_in(k < 30)]
    ap = paired_bootstrap([found_in(k < 20)], seeds, resamples=50).ap
    assert ap.value == pytest.approx(0, abs=1)


def test_classes_without_objects_have_no_difference():
    run = found_in([True, False])
    compared = paired_bootstrap([run], [run], resamples=10)
    assert compared.classes[1].as_dict() == {
        "value": None,
        "low": None,
        "high": None,
        "verdict": SHOWN_NOTHING,
    }
    empty = ranking_of(truth_of([[]]), results_of([[(0, BOX, 0.5)]]))
    assert paired_bootstrap([empty], [empty], resamples=10).ap.value is None


def test_the_same_seed_draws_the_same_images():
    first, second = ranking_of(*random_case(2)), ranking_of(*random_case(2, crowded=False))
    pair = [first], [second]
    assert paired_bootstrap(*pair, resamples=20) == paired_bootstrap(*pair, resamples=20)
    assert paired_bootstrap(*pair, resamples=20, seed=1) != paired_bootstrap(*pair, resamples=20)


def test_runs_on_unlike_images_are_refused():
    with pytest.raises(ValueError, match="the same number of images, of classes"):
        paired_bootstrap([found_in([True])], [found_in([True, True])])
