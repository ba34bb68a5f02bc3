"""Kinds of mistakes and their costs, each case small enough to be checked on paper."""

import numpy as np
import pytest
from detection_files import random_case, results_of, truth_of

from mimdet.report.detections import read_detections
from mimdet.report.errors import FALSE_ALARMS, KINDS, RIGHT, error_costs, find_mistakes

CAT, DOG = 0, 1
BOX = (0, 0, 100, 100)
NEAR = (0, 0, 100, 30)  # IoU 0.3 with BOX
FAR = (150, 150, 20, 20)


def costs(objects, found):
    """Of one image, {kind: (count, cost)} without the kinds that do not occur, and AP50."""
    result = error_costs(read_detections(truth_of([objects]), results_of([found])))
    kinds = {k["kind"]: (k["count"], pytest.approx(k["cost"])) for k in result["kinds"]}
    assert list(kinds) == list(KINDS)
    return {name: row for name, row in kinds.items() if row[0]}, result


@pytest.mark.parametrize(
    "found, kind, ap50",
    [
        ((CAT, NEAR, 0.9), "localisation", 0),
        ((DOG, BOX, 0.9), "classification", 0),
        ((DOG, NEAR, 0.9), "both", 0),
        ((CAT, FAR, 0.9), "background", 0),
        ((DOG, FAR, 0.9), "background", 0),
    ],
)
def test_one_object_and_one_false_alarm(found, kind, ap50):
    kinds, result = costs([(CAT, BOX)], [found])
    assert result["AP50"] == ap50
    if kind in ("localisation", "classification"):
        # Mended, the object is found; nothing missed it, for the detection meant it.
        assert kinds == {kind: (1, 100)}
    else:
        # To take the false alarm away finds nothing; to take the missed object away leaves none.
        assert kinds == {kind: (1, 0), "missed": (1, 100)}


def test_a_second_detection_of_an_object_is_a_duplicate_and_costs_where_it_stands_before_others():
    kinds, result = costs(
        [(CAT, BOX), (CAT, FAR)], [(CAT, BOX, 0.9), (CAT, BOX, 0.8), (CAT, FAR, 0.7)]
    )
    ap50 = 100 * (51 + 50 * 2 / 3) / 101  # precision 1 to recall 1/2, then 2/3
    assert result["AP50"] == pytest.approx(ap50)
    assert kinds == {"duplicate": (1, 100 - ap50)}
    assert result["false_positives"] == pytest.approx(100 - ap50)
    assert result["false_negatives"] == pytest.approx(0)


def test_a_mended_detection_takes_its_object_from_one_of_a_lower_score():
    """The dog at 0.9 becomes a cat; the cat at 0.8 that found it was right and goes."""
    kinds, result = costs([(CAT, BOX)], [(DOG, BOX, 0.9), (CAT, BOX, 0.8)])
    assert result["AP50"] == 100
    assert kinds == {"classification": (1, 0)}


def test_an_object_that_nothing_meant_is_missed():
    kinds, result = costs([(CAT, BOX), (CAT, FAR)], [(CAT, BOX, 0.9)])
    assert result["AP50"] == pytest.approx(100 * 51 / 101)
    assert kinds == {"missed": (1, 100 - result["AP50"])}
    assert result["false_negatives"] == pytest.approx(100 - result["AP50"])


def test_the_bounds_of_iou_are_0_1_and_0_5():
    for height, kind in ((9, "background"), (10, "localisation"), (49, "localisation")):
        kinds, _ = costs([(CAT, BOX)], [(CAT, (0, 0, 100, height), 0.9)])
        assert kind in kinds
    assert costs([(CAT, BOX)], [(CAT, (0, 0, 100, 50), 0.9)])[0] == {}


def test_a_wrong_place_goes_before_a_wrong_class():
    objects = [(CAT, BOX), (DOG, (0, 0, 100, 32))]
    kinds, _ = costs(objects, [(CAT, NEAR, 0.9)])
    assert kinds["localisation"][0] == 1 and "classification" not in kinds


def test_detections_in_crowds_are_no_mistakes_and_crowds_are_not_missed():
    kinds, result = costs([(CAT, BOX, {"iscrowd": 1}), (CAT, FAR)], [(CAT, NEAR, 0.9)])
    assert kinds == {"missed": (1, 100)}
    assert result["false_positives"] == 0


def test_every_false_alarm_has_one_kind_and_every_object_is_found_meant_or_missed():
    truth, results = random_case(5)
    evaluated = read_detections(truth, results)
    mistakes = find_mistakes(evaluated)
    np.testing.assert_array_equal(mistakes.kind != RIGHT, mistakes.matches.is_false[0])
    assert set(mistakes.kind) == {RIGHT, *range(len(FALSE_ALARMS))}
    found = mistakes.matches.matched[0][mistakes.matches.is_true[0]]
    meant = mistakes.target[mistakes.target >= 0]
    accounted = np.isin(np.arange(len(mistakes.is_missed)), [*found, *meant]) | mistakes.is_missed
    np.testing.assert_array_equal(accounted, mistakes.matches.counts)
    costs = error_costs(evaluated, mistakes)
    assert all(0 <= row["cost"] <= 100 - costs["AP50"] + 1e-9 for row in costs["kinds"])


def test_without_objects_nothing_has_a_cost():
    _, result = costs([], [(CAT, BOX, 0.9)])
    assert result["AP50"] is None
    assert {row["cost"] for row in result["kinds"]} == {None}
