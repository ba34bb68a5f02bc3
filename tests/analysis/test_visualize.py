"""Pictures of detections next to the ground truth."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from detectron2.structures import Boxes, BoxMode, Instances, ROIMasks
from mimdet.analysis import visualize
from mimdet.analysis.pictures import GAP
from mimdet.analysis.visualize import draw_comparison

HEIGHT, WIDTH = 40, 60
SCALE, TITLE = 8, 3 * 13  # enlarged to 320 pixels; two lines of 13 pixels
NAMES = ["disk", "box"]


class Detector(nn.Module):
    """Detects a square of class 1 in the lower right part of every image."""

    def __init__(self, scores=(0.9,), masks=True):
        super().__init__()
        self.scores, self.masks = scores, masks
        self.inputs = []

    def forward(self, batched_inputs):
        assert not self.training
        self.inputs += batched_inputs
        n = len(self.scores)
        masks = torch.zeros(n, HEIGHT, WIDTH, dtype=torch.bool)
        masks[:, 20:36, 40:56] = True
        found = Instances((HEIGHT, WIDTH))
        found.pred_boxes = Boxes(torch.tensor([[40.0, 20.0, 56.0, 36.0]]).repeat(n, 1))
        if self.masks:
            found.pred_masks = masks
        found.pred_classes = torch.ones(n, dtype=torch.int64)
        found.scores = torch.tensor(self.scores)
        return [{"instances": found}]


def annotation(x: int, y: int, size: int, **changes) -> dict:
    corners = [x, y, x + size, y, x + size, y + size, x, y + size]
    box = dict(bbox=[x, y, size, size], bbox_mode=BoxMode.XYWH_ABS)
    return {**box, "segmentation": [corners], "category_id": 0, "iscrowd": 0, **changes}


@pytest.fixture
def image(tmp_path):
    """A grey image that has an object in its upper left part, as a dataset dict."""
    path = tmp_path / "grey.png"
    Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(path)
    return dict(file_name=str(path), image_id=7, annotations=[annotation(4, 4, 12)])


def sides(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Left and right side by pixel of the image: (height, width, scale * scale, 3) each."""
    pixels = np.asarray(picture)
    side = WIDTH * SCALE
    assert pixels.shape == (TITLE + HEIGHT * SCALE, 2 * side + GAP, 3)
    assert (pixels[:, side : side + GAP] == 255).all()
    halves = pixels[TITLE:, :side], pixels[TITLE:, side + GAP :]
    blocks = [half.reshape(HEIGHT, SCALE, WIDTH, SCALE, 3).swapaxes(1, 2) for half in halves]
    return tuple(block.reshape(HEIGHT, WIDTH, SCALE * SCALE, 3) for block in blocks)


def drawn(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Where something is drawn on the left and on the right side, (height, width) bool each."""
    left, right = ((side != 90).any(axis=(2, 3)) for side in sides(picture))
    return left, right


def test_truth_is_drawn_on_the_left_and_detections_on_the_right(image):
    left, right = drawn(draw_comparison(Detector(), image, {"a": 1}, NAMES))
    assert left[5:15, 5:15].all()
    assert not left[20:, 20:].any()
    assert right[21:35, 41:55].all()
    assert not right[:18, :36].any()


def test_the_model_gets_the_input_in_evaluation_mode(image):
    model, model_input = Detector().train(), {"image": "pixels"}
    draw_comparison(model, image, model_input, NAMES)
    assert model.inputs == [model_input]
    assert not model.training


@pytest.mark.parametrize("scores, threshold", [((0.49,), 0.5), ((), 0.5), ((0.9, 0.8), 0.95)])
def test_detections_below_the_threshold_are_left_out(image, scores, threshold):
    picture = draw_comparison(Detector(scores), image, {}, NAMES, score_threshold=threshold)
    left, right = drawn(picture)
    assert left.any()
    assert not right.any()


def test_a_detection_at_the_threshold_is_drawn(image):
    assert drawn(draw_comparison(Detector((0.5,)), image, {}, NAMES))[1].any()


def test_classes_have_colors_and_the_same_one_on_both_sides(image):
    image["annotations"] = [annotation(40, 20, 16, category_id=1)]
    inside = (34, 50)  # away from the label
    left, right = sides(draw_comparison(Detector(), image, {}, NAMES))
    assert (left[inside] != 90).any()
    assert (left[inside] == right[inside]).all()
    image["annotations"][0]["category_id"] = 0
    other, _ = sides(draw_comparison(Detector(), image, {}, NAMES))
    assert (other[inside] != left[inside]).any()


def test_detections_are_labelled_with_class_and_score(image):
    surely = drawn_label(draw_comparison(Detector((0.99,)), image, {}, NAMES))
    hardly = drawn_label(draw_comparison(Detector((0.51,)), image, {}, NAMES))
    other_name = drawn_label(draw_comparison(Detector((0.99,)), image, {}, ["disk", "bag"]))
    assert (surely != hardly).any()
    assert (surely != other_name).any()


def drawn_label(picture: Image.Image) -> np.ndarray:
    return sides(picture)[1][17:20, 40:]  # above the box


def test_crowds_are_not_drawn(image):
    image["annotations"].append(annotation(30, 20, 15, iscrowd=1))
    left, _ = drawn(draw_comparison(Detector(), image, {}, NAMES))
    assert not left[20:, 28:].any()


@pytest.mark.parametrize("annotations", [[], [annotation(4, 4, 12, iscrowd=1)], None])
def test_an_image_without_objects_shows_what_is_detected(image, annotations):
    image["annotations"] = annotations
    if annotations is None:
        del image["annotations"]
    left, right = drawn(draw_comparison(Detector(), image, {}, NAMES))
    assert not left.any()
    assert right[21:35, 41:55].all()


@pytest.mark.parametrize("missing", [None, "segmentation"])
def test_boxes_without_masks_are_drawn_as_outlines(image, missing):
    second = annotation(30, 4, 12)
    del second["segmentation"]
    image["annotations"].append(second)
    if missing:
        del image["annotations"][0][missing]
    left, right = drawn(draw_comparison(Detector(masks=False), image, {}, NAMES))
    assert left[4, 4:16].all() and left[4, 30:42].all() and right[20, 40:56].all()
    assert left[6:14, 6:14].all() == (missing is None)
    assert not left[6:14, 32:40].any() and not right[22:34, 42:54].any()


def test_masks_in_the_frames_of_their_boxes_are_drawn_as_pasted_ones(image):
    class Regions(Detector):
        def forward(self, batched_inputs):
            found = super().forward(batched_inputs)[0]["instances"]
            found.pred_masks = ROIMasks(torch.ones(len(found), 8, 8))
            return [{"instances": found}]

    pictures = [draw_comparison(kind(), image, {}, NAMES) for kind in (Detector, Regions)]
    assert np.array_equal(*map(np.asarray, pictures))


def test_masks_are_of_the_types_that_upstream_draws(image, monkeypatch):
    given = []
    overlay = visualize.Visualizer.overlay_instances

    def note(self, **instances):
        given.extend(instances["masks"])
        return overlay(self, **instances)

    monkeypatch.setattr(visualize.Visualizer, "overlay_instances", note)
    draw_comparison(Detector(), image, {}, NAMES)
    assert [type(mask) for mask in given] == [list, np.ndarray]


@pytest.fixture
def titles(monkeypatch):
    """The titles and details of the panels that are drawn."""
    found = []

    def note(panels):
        found.extend((panel.title, panel.detail) for panel in panels)
        return panels[0].picture

    monkeypatch.setattr(visualize, "side_by_side", note)
    return found


@pytest.mark.parametrize(
    "scores, threshold, ratio, expected",
    [
        ((0.9, 0.8), 0.5, None, "2 of score 50% or more"),
        ((0.9, 0.8), 0.85, 0.25, "1 of score 85% or more, sample ratio 0.25"),
        ((0.4,), 0.5, 1.0, "none of score 50% or more, best 40%, sample ratio 1"),
        ((), 0.5, None, "none of score 50% or more"),
    ],
)
def test_titles_tell_objects_threshold_and_sample_ratio(
    image, titles, scores, threshold, ratio, expected
):
    model = Detector(scores)
    if ratio is not None:
        model.backbone = nn.Identity()
        model.backbone.sample_ratio = ratio
    draw_comparison(model, image, {}, NAMES, threshold)
    assert titles == [("Ground truth", "1 object"), ("Predictions", expected)]


def test_a_class_without_a_name_is_called_by_its_number(image, monkeypatch):
    texts = []
    monkeypatch.setattr(visualize, "draw_labels", lambda *args: texts.append(args[2]))
    draw_comparison(Detector(), image, {}, NAMES[:1])
    assert texts == [["disk"], ["class 1 90%"]]


def test_drawing_leaves_the_annotations_as_they_are(image):
    draw_comparison(Detector(), image, {}, NAMES)
    assert image["annotations"] == [annotation(4, 4, 12)]


def test_a_large_image_keeps_its_size(tmp_path):
    path = tmp_path / "large.png"
    Image.new("RGB", (700, 600)).save(path)
    entry = dict(file_name=str(path), image_id=1, annotations=[annotation(4, 4, 12)])
    picture = draw_comparison(Detector(()), entry, {}, NAMES)
    assert picture.size == (2 * 700 + GAP, 600 + 3 * (600 // 28))
