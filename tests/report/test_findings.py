"""What a report says of detections, beyond errors: by class, size, crowdedness, calibration."""

import json

import numpy as np
import pytest
from detection_files import pycocotools_stats, random_case, results_of, truth_of

from mimdet.report.accuracy import by_class, by_crowdedness, calibration
from mimdet.report.detections import read_detections
from mimdet.report.errors import find_mistakes
from mimdet.report.findings import findings
from mimdet.report.matching import match
from mimdet.report.precision import Ranking
from mimdet.report.worst_images import operating_score, worst_images

BOX, OTHER, FAR = (0, 0, 50, 50), (60, 60, 50, 50), (150, 150, 20, 20)


def prepared(truth, results):
    evaluated = read_detections(truth, results)
    matches = match(evaluated)
    return evaluated, matches, Ranking(evaluated, matches)


def test_findings_are_json_and_agree_with_pycocotools():
    truth, results = random_case(6)
    found = json.loads(json.dumps(findings(read_detections(truth, results)), allow_nan=False))
    stats, precision = pycocotools_stats(truth, results)
    assert list(found["summary"].values()) == pytest.approx(100 * stats[:3])
    assert [row["AP"] for row in found["by_size"]] == pytest.approx(100 * stats[3:])
    assert [r["AP50"] for r in found["by_class"]] == pytest.approx(100 * precision[0].mean(axis=1))
    assert found["errors"]["AP50"] == pytest.approx(found["summary"]["AP50"])
    curves = found["precision_recall"]
    assert curves["mean"]["0.50"] == pytest.approx(precision[0].mean(axis=0), abs=1e-4)
    assert curves["classes"]["class 2"] == pytest.approx(precision[0, 2], abs=1e-4)
    assert (found["images"], found["objects"], found["detections"]) == (
        12,
        sum(not a["iscrowd"] for a in truth["annotations"]),
        len(results),
    )


def test_findings_of_nothing_found_and_of_nothing_to_be_found():
    truth, results = random_case(6)
    nothing = findings(read_detections(truth, []))
    assert nothing["summary"]["AP"] == 0
    assert nothing["calibration"] == {"bins": [], "expected_calibration_error": None}
    empty = findings(read_detections({**truth, "annotations": []}, results))
    assert empty["summary"] == {"AP": None, "AP50": None, "AP75": None}
    assert empty["precision_recall"]["mean"] == {}
    json.dumps([nothing, empty], allow_nan=False)


def test_classes_have_their_counts():
    truth = truth_of([[(0, BOX), (0, OTHER)], [(0, BOX), (0, FAR, {"iscrowd": 1})]])
    evaluated, _, ranking = prepared(truth, results_of([[(0, BOX, 0.9), (1, FAR, 0.5)], []]))
    cat, dog = by_class(evaluated, ranking)
    counts = {k: cat[k] for k in ("class", "objects", "images", "detections")}
    assert counts == {"class": "cat", "objects": 3, "images": 2, "detections": 1}
    assert cat["AP"] == pytest.approx(100 * 34 / 101)  # recall 1/3 reaches 34 of the recalls
    assert (dog["AP"], dog["objects"], dog["detections"]) == (None, 0, 1)


def test_images_are_grouped_by_their_number_of_objects():
    truth = truth_of([[(0, BOX)], [(0, BOX), (0, OTHER)]])
    evaluated, _, ranking = prepared(truth, results_of([[(0, BOX, 0.9)], [(0, BOX, 0.9)]]))
    rows = {row["objects_per_image"]: row for row in by_crowdedness(evaluated, ranking)}
    assert (rows["1"]["images"], rows["1"]["AP"]) == (1, pytest.approx(100))
    assert (rows["2-4"]["objects"], rows["2-4"]["AP"]) == (2, pytest.approx(100 * 51 / 101))
    assert (rows["5-9"]["images"], rows["5-9"]["AP"]) == (0, None)


def test_calibration_by_hand():
    """Four detections at 0.75, three of them right; one at 1.0, wrong: (4 * 0 + 1 * 1) / 5."""
    truth = truth_of([[(0, BOX)], [(0, BOX)], [(0, BOX)], []])
    hit = [(0, BOX, 0.75)]
    evaluated, matches, _ = prepared(truth, results_of([hit, hit, hit, [*hit, (1, FAR, 1.0)]]))
    result = calibration(evaluated, matches)
    assert result["expected_calibration_error"] == pytest.approx(0.2)
    assert result["bins"] == [
        {"low": 0.7, "high": 0.8, "count": 4, "score": 0.75, "precision": 0.75},
        {"low": 0.9, "high": 1.0, "count": 1, "score": 1.0, "precision": 0.0},
    ]


def test_worst_images_mark_false_alarms_and_misses():
    truth = truth_of([[(0, BOX)], [(0, BOX), (0, OTHER)], [(0, BOX)]])
    results = results_of(
        [[(0, BOX, 0.9)], [(0, BOX, 0.8), (1, BOX, 0.7), (0, OTHER, 0.2)], [(0, BOX, 0.6)]]
    )
    evaluated = read_detections(truth, results)
    mistakes = find_mistakes(evaluated)
    # Down to 0.6 three of four are right, of four objects; down to 0.2 it is four of five.
    assert operating_score(evaluated, mistakes) == pytest.approx(0.2)
    worst = worst_images(evaluated, mistakes)
    assert [image["image_id"] for image in worst["images"]] == [2]
    image = worst["images"][0]
    assert (image["false_alarms"], image["misses"]) == (1, 0)
    assert [d["kind"] for d in image["detections"]] == ["right", "classification", "right"]
    assert image["detections"][1]["box"] == [0, 0, 50, 50]


def test_objects_found_below_the_operating_score_are_missed():
    truth = truth_of([[(0, BOX), (0, OTHER)]])
    alarms = [(0, (120 + 4 * k, 120, 9, 9), 0.5) for k in range(9)]
    results = results_of([[(0, BOX, 0.9), *alarms, (0, OTHER, 0.1)]])
    evaluated = read_detections(truth, results)
    worst = worst_images(evaluated, find_mistakes(evaluated))
    assert worst["score"] == 0.9
    assert [entry["is_missed"] for entry in worst["images"][0]["truth"]] == [False, True]
    assert len(worst["images"][0]["detections"]) == 1


def test_nothing_is_shown_where_nothing_is_right():
    evaluated = read_detections(truth_of([[(0, BOX)]]), results_of([[(1, FAR, 0.5)]]))
    worst = worst_images(evaluated, find_mistakes(evaluated))
    assert worst["score"] == 1.0
    assert (worst["images"][0]["false_alarms"], worst["images"][0]["misses"]) == (0, 1)
    assert np.isscalar(worst["images"][0]["misses"])
