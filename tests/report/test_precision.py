"""Matching and AP: by hand, and equal to pycocotools on files with everything that COCO has."""

import numpy as np
import pytest
from detection_files import pycocotools_stats, random_case, results_of, truth_of

from mimdet.report.detections import read_detections
from mimdet.report.matching import AREAS, THRESHOLDS, match
from mimdet.report.precision import Ranking

BOX = (10, 10, 40, 40)


def ranking_of(truth, results, task="bbox", **options):
    evaluated = read_detections(truth, results, task)
    return Ranking(evaluated, match(evaluated, **options))


def test_ap_by_hand():
    """Right at 0.9, wrong at 0.8, right at 0.7: precision 1 to recall 1/2, then 2/3."""
    truth = truth_of([[(0, BOX)], [(0, BOX)]])
    results = results_of([[(0, BOX, 0.9), (0, (150, 150, 9, 9), 0.8)], [(0, BOX, 0.7)]])
    ap = ranking_of(truth, results).average_precision()
    # 51 of the 101 recalls are at most 1/2
    np.testing.assert_allclose(ap[:, 0], (51 + 50 * 2 / 3) / 101)
    assert np.isnan(ap[:, 1]).all()  # no dogs


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ap_is_that_of_pycocotools(seed, task):
    truth, results = random_case(seed)
    stats, precision = pycocotools_stats(truth, results, task)
    ranking = ranking_of(truth, results, task)
    ap = ranking.average_precision()
    assert 0.05 < ap.mean() < 0.95
    np.testing.assert_allclose([ap.mean(), ap[0].mean(), ap[5].mean()], stats[:3], atol=1e-12)
    np.testing.assert_allclose(ranking.curves(), precision, atol=1e-12)
    for area, expected in zip(AREAS.values(), stats[3:], strict=True):
        ap = ranking_of(truth, results, task, area=area).average_precision()
        np.testing.assert_allclose(np.nanmean(ap), expected, atol=1e-12)


def test_weights_of_0_and_1_choose_images():
    truth, results = random_case(3)
    chosen = [2, 3, 7, 8, 9]
    weights = np.isin(np.arange(1, 13), chosen).astype(float)
    stats, _ = pycocotools_stats(truth, results, image_ids=chosen)
    ap = ranking_of(truth, results).average_precision(weights)
    np.testing.assert_allclose(np.nanmean(ap), stats[0], atol=1e-12)


def test_a_weight_counts_an_image_so_many_times():
    truth, results = random_case(4)
    # No ties, whose order among copies is anyone's.
    results = [{**r, "score": 1 - k / len(results)} for k, r in enumerate(results)]
    weights = np.array([0, 3, 1, 1, 2, 0, 0, 1, 5, 1, 1, 0], float)
    copies = {**truth, "images": [], "annotations": []}
    copied = []
    for image in truth["images"]:
        for _ in range(int(weights[image["id"] - 1])):
            number = len(copies["images"]) + 1
            copies["images"].append({**image, "id": number})
            copies["annotations"] += [
                {**a, "image_id": number}
                for a in truth["annotations"]
                if a["image_id"] == image["id"]
            ]
            copied += [{**r, "image_id": number} for r in results if r["image_id"] == image["id"]]
    np.testing.assert_allclose(
        ranking_of(truth, results).average_precision(weights),
        ranking_of(copies, copied).average_precision(),
        atol=1e-12,
    )


def test_a_detection_takes_the_free_object_of_the_largest_overlap():
    truth = truth_of([[(0, (0, 0, 100, 100)), (0, (0, 0, 80, 100))]])
    # Both overlap most with the first object; the second detection has to take the other one.
    results = results_of([[(0, (0, 0, 98, 100), 0.9), (0, (0, 0, 95, 100), 0.8)]])
    matches = match(read_detections(truth, results), [0.5, 0.9])
    assert matches.matched.tolist() == [[0, 1], [0, -1]]
    assert matches.is_false.tolist() == [[False, False], [False, True]]


def test_detections_in_a_crowd_are_ignored_however_many():
    truth = truth_of([[(0, (0, 0, 100, 100), {"iscrowd": 1})]])
    results = results_of([[(0, (0, 0, 9, 9), 0.9), (0, (20, 20, 9, 9), 0.8), (1, BOX, 0.7)]])
    matches = match(read_detections(truth, results), [0.5])
    assert matches.is_ignored.tolist() == [[True, True, False]]
    assert not matches.counts.any()


def test_only_so_many_detections_of_a_class_count_in_an_image():
    truth = truth_of([[(0, BOX)]])
    results = results_of([[(0, (100, 100, 9, 9), 0.9), (1, BOX, 0.8), (0, BOX, 0.7)]])
    evaluated = read_detections(truth, results)
    assert match(evaluated, [0.5], max_detections=1).is_ignored.tolist() == [[False, False, True]]
    assert match(evaluated, [0.5], max_detections=2).is_true.tolist() == [[False, False, True]]


def test_without_detections_ap_is_0_where_there_are_objects():
    ap = ranking_of(truth_of([[(0, BOX)]]), []).average_precision()
    assert ap.shape == (len(THRESHOLDS), 2)
    assert (ap[:, 0] == 0).all() and np.isnan(ap[:, 1]).all()
