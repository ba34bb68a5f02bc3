import logging

import pytest
import torch
from golden_data import assert_array, load

from detectron2.modeling.matcher import Matcher
from detectron2.modeling.sampling import subsample_labels
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage

ARRAYS, META = load("boxes")
SAMPLE_ARRAYS, SAMPLE_META = load("misc")
MATCHERS = [name for name in META if name.startswith("matcher.")]
QUALITY = torch.from_numpy(ARRAYS["matcher.q"])
INPUTS = {"q": QUALITY, "q4rows": QUALITY[:4], "empty": torch.zeros(0, 9)}


@pytest.mark.parametrize("quality", INPUTS)
@pytest.mark.parametrize("name", MATCHERS)
def test_matches_and_labels_equal_upstream(name, quality):
    matches, labels = Matcher(**META[name])(INPUTS[quality])
    assert (matches.dtype, labels.dtype) == (torch.int64, torch.int8)
    assert_array(ARRAYS, f"{name}.{quality}.matches", matches)
    assert_array(ARRAYS, f"{name}.{quality}.labels", labels)


def rpn_matcher(low_quality=True):
    return Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=low_quality)


def test_the_best_prediction_of_each_ground_truth_is_positive_and_keeps_its_match():
    quality = torch.tensor([[0.1, 0.3, 0.7, 0.0, 0.2], [0.1, 0.2, 0.05, 0.0, 0.25]])
    matches, labels = rpn_matcher()(quality)
    assert matches.tolist() == [0, 0, 0, 0, 1]
    assert labels.tolist() == [0, -1, 1, 0, 1]
    assert rpn_matcher(low_quality=False)(quality)[1].tolist() == [0, -1, 1, 0, 0]


def test_a_ground_truth_without_overlap_makes_all_that_miss_it_positive():
    assert rpn_matcher()(torch.tensor([[0.0, 0.1], [0.0, 0.0]]))[1].tolist() == [1, 1]


def test_without_ground_truth_everything_is_background():
    matches, labels = rpn_matcher()(torch.zeros(0, 3))
    assert matches.tolist() == [0, 0, 0]
    assert labels.tolist() == [0, 0, 0]


def test_without_predictions_nothing_is_matched():
    matches, labels = rpn_matcher()(torch.zeros(2, 0))
    assert matches.shape == labels.shape == (0,)


@pytest.mark.parametrize(
    "thresholds, labels",
    [
        ([0.0, 0.7], [0, -1, 1]),
        ([0.7, 0.3], [0, -1, 1]),
        ([0.3, 0.7], [0, 2, 1]),
        ([0.3, 0.7], [0, 1]),
    ],
    ids=["not positive", "not ascending", "unknown label", "label missing"],
)
def test_wrong_intervals_are_an_error(thresholds, labels):
    with pytest.raises(AssertionError):
        Matcher(thresholds, labels)


@pytest.mark.lite
@pytest.mark.parametrize(
    "thresholds, labels, message",
    [
        ([], [0], r"positive and ascending, got \[\]"),
        ([0.7, 0.3], [0, -1, 1], r"positive and ascending, got \[0.7, 0.3\]"),
        ([0.3, 0.7], [0, 2, 1], r"foreground\), got \[0, 2, 1\]"),
        ([0.3, 0.7], [0, 1], r"got \[0, 1\] for \[0.3, 0.7\]"),
    ],
)
def test_errors_about_intervals_name_what_was_given(thresholds, labels, message):
    with pytest.raises(AssertionError, match=message):
        Matcher(thresholds, labels)


@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_negative_quality_and_nan_are_errors(value):
    with pytest.raises(AssertionError):
        rpn_matcher()(torch.tensor([[0.5, value]]))


@pytest.mark.lite
def test_errors_about_the_quality_say_what_was_received():
    with pytest.raises(AssertionError, match="must be >= 0, got -0.5"):
        rpn_matcher()(torch.tensor([[0.5, -0.5]]))
    with pytest.raises(AssertionError, match=r"matrix, got shape \(3,\)"):
        rpn_matcher()(torch.zeros(3))


@pytest.fixture
def warnings():
    """Messages that the matcher logs, whatever handlers other tests have set up."""
    messages = []

    class Recorder(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    logger, recorder = logging.getLogger("detectron2.modeling.matcher"), Recorder()
    logger.addHandler(recorder)
    yield messages
    logger.removeHandler(recorder)


@pytest.mark.lite
def test_a_ground_truth_without_overlap_is_reported_five_times(warnings):
    matcher = rpn_matcher()
    for _ in range(7):
        matcher(torch.tensor([[0.0, 0.1], [0.0, 0.0]]))
    assert len(warnings) == 5
    assert warnings[0].startswith("1 of 2 ground truths (rows [1]) overlap none of the 2 anchors")


@pytest.mark.lite
def test_nothing_is_reported_where_every_ground_truth_overlaps_or_low_quality_is_off(warnings):
    rpn_matcher()(torch.tensor([[0.0, 0.1], [0.2, 0.0]]))
    rpn_matcher(low_quality=False)(torch.zeros(2, 2))
    assert warnings == []


@pytest.mark.lite
@pytest.mark.parametrize("pairs_at_once", [2**25, 0], ids=["together", "one_by_one"])
def test_matches_are_on_the_gpu_where_the_iou_had_no_memory_there(monkeypatch, pairs_at_once):
    """Tensors without values, which mind their device, stand for those of a GPU."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from detectron2.modeling import matcher
    from detectron2.structures import boxes

    attempts, pairwise_iou = [], boxes.pairwise_iou

    def first_on_the_cpu(boxes1, boxes2):
        attempts.append(boxes1.device.type)
        if len(attempts) <= 2:
            raise torch.cuda.OutOfMemoryError
        return pairwise_iou(boxes1, boxes2)

    monkeypatch.setattr(boxes, "pairwise_iou", first_on_the_cpu)
    monkeypatch.setattr(boxes, "_MAX_PAIRS_OF_IMAGES", pairs_at_once)
    with FakeTensorMode(), EventStorage() as storage:
        gt_boxes = [Boxes(torch.zeros(count, 4, device="cuda")) for count in (3, 2, 0)]
        anchors = Boxes(torch.zeros(7, 4, device="cuda"))
        matches, labels = matcher.match_images(rpn_matcher(), gt_boxes, [anchors] * 3)
        classes = [torch.zeros(len(x), dtype=torch.int64, device="cuda") for x in gt_boxes]
        found = [
            *matcher.matched_boxes(matches, gt_boxes),
            matcher.matched_classes(matches, labels, classes, bg_label=5),
            *(values for values, *_ in storage._deferred),
        ]
        assert {x.device.type for x in [*matches, labels, *found]} == {"cuda"}
    assert attempts[:3] == ["cuda", "cuda", "cpu"]


@pytest.mark.parametrize("name", [n for n in SAMPLE_META if n.startswith("subsample.")])
def test_sampled_indices_equal_upstream(name):
    arguments = dict(SAMPLE_META[name])
    torch.manual_seed(arguments.pop("manual_seed"))
    labels = torch.from_numpy(SAMPLE_ARRAYS["subsample.labels"])
    positive, negative = subsample_labels(labels, **arguments)
    assert_array(SAMPLE_ARRAYS, f"{name}.pos", positive)
    assert_array(SAMPLE_ARRAYS, f"{name}.neg", negative)


def test_sampling_draws_positives_before_negatives():
    labels = torch.tensor([0, 1, -1, 80, 80, 2, 80, 80])
    torch.manual_seed(0)
    positive, negative = subsample_labels(labels, 4, 0.5, 80)
    assert (positive.tolist(), negative.tolist()) == ([5, 0], [4, 3])


def test_negatives_fill_up_for_missing_positives_but_not_the_other_way_round():
    positive, negative = subsample_labels(torch.tensor([1, 0, 0, 0, 0]), 4, 0.5, 0)
    assert (len(positive), len(negative)) == (1, 3)
    positive, negative = subsample_labels(torch.tensor([1, 1, 1, 1, 0]), 4, 0.5, 0)
    assert (len(positive), len(negative)) == (2, 1)


@pytest.mark.parametrize(
    ("num_samples", "fraction", "counts"),
    [(7, 0.5, (3, 4)), (15, 0.25, (3, 12)), (9, 0.99, (8, 1))],
)
def test_the_number_of_positives_is_rounded_down(num_samples, fraction, counts):
    labels = torch.tensor([1] * 20 + [0] * 20)
    positive, negative = subsample_labels(labels, num_samples, fraction, 0)
    assert (len(positive), len(negative)) == counts


def test_sampling_from_only_ignored_boxes_is_empty():
    positive, negative = subsample_labels(torch.tensor([-1, -1]), 4, 0.5, 0)
    assert positive.shape == negative.shape == (0,)
