import json

import numpy as np
import pytest
from detection_files import results_of, truth_of

from mimdet.report.detections import read_detections

TRUTH = truth_of([[], [(1, (10, 20, 30, 40)), (0, (0, 0, 10, 10), {"iscrowd": 1})]])
RESULTS = results_of(
    [[(0, (5, 5, 10, 10), 0.2)], [(1, (10, 20, 30, 20), 0.3), (1, (0, 0, 20, 10), 0.9)]]
)


def test_detections_lie_by_image_and_by_falling_score():
    evaluated = read_detections(TRUTH, RESULTS)
    assert [image.file_name for image in evaluated.images] == ["1.jpg", "2.jpg"]
    assert evaluated.categories == ["cat", "dog"]
    assert evaluated.truth.image.tolist() == [1, 1]
    assert evaluated.truth.box[0].tolist() == [10, 20, 40, 60]
    assert evaluated.truth.is_crowd.tolist() == [False, True]
    assert evaluated.found.score.tolist() == [0.2, 0.9, 0.3]
    assert evaluated.found.image.tolist() == [0, 1, 1]


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_overlaps_are_iou_and_with_a_crowd_the_share_inside_it(task):
    overlaps = read_detections(TRUTH, RESULTS, task).overlaps
    assert overlaps[0].shape == (1, 0)
    # The second detection is half of the dog; the first has half of itself in the crowd.
    np.testing.assert_allclose(overlaps[1], [[0, 0.5], [0.5, 0]])


def test_files_are_read_as_their_content_is(tmp_path):
    for name, content in (("truth", TRUTH), ("found", RESULTS)):
        (tmp_path / name).write_text(json.dumps(content))
    of_files = read_detections(tmp_path / "truth", str(tmp_path / "found"))
    np.testing.assert_array_equal(of_files.found.box, read_detections(TRUTH, RESULTS).found.box)


def test_no_detections_and_no_annotations_are_empty_arrays():
    evaluated = read_detections({**TRUTH, "annotations": []}, [], "segm")
    assert evaluated.found.box.shape == evaluated.truth.box.shape == (0, 4)
    assert [overlaps.shape for overlaps in evaluated.overlaps] == [(0, 0), (0, 0)]


def test_mistakes_of_the_caller_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        read_detections(tmp_path / "lost.json", [])
    (tmp_path / "half.json").write_text('{"images": [')
    with pytest.raises(ValueError, match="must be JSON, and .*half.json is not"):
        read_detections(tmp_path / "half.json", [])
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="must be a dict in JSON"):
        read_detections(tmp_path / "list.json", [])
    with pytest.raises(ValueError, match="must list its images"):
        read_detections({"categories": [{"id": 1}]}, [])
    with pytest.raises(ValueError, match="each image_id of the detections .* 7 is none"):
        read_detections(TRUTH, [{**RESULTS[0], "image_id": 7}])
    with pytest.raises(ValueError, match="must have a segmentation, and one of image 1 has none"):
        read_detections(TRUTH, [{**RESULTS[0], "segmentation": None}], "segm")
    with pytest.raises(ValueError, match="got 'keypoints'"):
        read_detections(TRUTH, RESULTS, "keypoints")
