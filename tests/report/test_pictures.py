"""Pictures of a page: what they show, and which files they may show."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from mimdet.report.pictures import kept_tokens, thumbnail, truth_and_detections, two_models


def opened(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.fixture
def root(tmp_path):
    """A folder of images beside files that are none of its own."""
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (1000, 500), "red").save(folder / "a.png")
    Image.new("RGB", (10, 10), "red").save(tmp_path / "private.png")
    (folder / "text.png").write_text("no image")
    return folder


def test_a_thumbnail_is_small_and_has_the_shape_of_its_image(root):
    assert opened(thumbnail(str(root), "a.png")).shape == (240, 480, 3)


@pytest.mark.parametrize("name", ["../private.png", "text.png", "lost.png", "/etc/passwd", ""])
def test_what_is_no_image_of_the_folder_is_not_shown(name, root):
    assert thumbnail(str(root), name) is None
    assert thumbnail(None, name) is None


def test_missed_objects_and_false_alarms_are_marked_and_told(root):
    truth = [
        {"box": [0, 0, 10, 10], "class": "<b>", "is_crowd": False, "is_missed": True},
        {"box": [50, 0, 100, 50], "class": "cat", "is_crowd": False, "is_missed": False},
        {"box": [50, 0, 100, 50], "class": "cats", "is_crowd": True, "is_missed": False},
    ]
    detections = [
        {"box": [50, 0, 100, 50], "class": "cat", "score": 0.9, "kind": "right"},
        {"box": [50, 0, 100, 50], "class": "cat", "score": 0.8, "kind": "duplicate"},
    ]
    entry = {"width": 100, "height": 50, "truth": truth, "detections": detections}
    entry |= {"misses": 1, "false_alarms": 1}
    drawing = truth_and_detections(entry, None, "w0")
    left, right = (
        re.findall(r'<rect class="(right|wrong|ignored)"', half) for half in drawing.split("Truth:")
    )
    assert sorted(left) == ["ignored", "right", "wrong"] and sorted(right) == ["right", "wrong"]
    assert "<b>" not in drawing and "3 objects, 1 missed" in drawing
    assert "1 false alarm (1 duplicate)" in drawing
    assert 'viewBox="0 0 320 160.0"' in drawing and 'width="32.0" height="32.0"' in drawing


def test_two_models_show_their_detections_and_what_each_missed():
    box = {"box": [0, 0, 50, 50], "class": "cat"}
    size = {"width": 100, "height": 50}
    found = {**size, "truth": [{**box, "is_crowd": False, "is_missed": False}], "misses": 0}
    found |= {"detections": [{**box, "score": 0.9, "kind": "right"}], "false_alarms": 0}
    lost = {**size, "truth": [{**box, "is_crowd": False, "is_missed": True}], "misses": 1}
    lost |= {"detections": [{**box, "score": 0.8, "kind": "background"}], "false_alarms": 1}
    drawing = two_models([found, lost], ["<i>", "second"], "data:,", "p")
    left, right = drawing.split("second: ")[0].split("&lt;i&gt;: ")
    assert left.count('<rect class="right"') == 1 and '<rect class="wrong"' not in left
    assert "1, 0 false alarms, 0 missed" in right
    assert right.count('<rect class="wrong"') == 2 and "missed: cat" in right
    assert "second: 1, 1 false alarm (1 nothing there), 1 missed" in drawing
    assert drawing.count("data:,") == 1 and '<use href="#p"/>' in right  # the image once


def test_tokens_that_were_not_kept_are_grey_and_padding_does_not_count(tmp_path):
    image = np.full((32, 16, 3), 255, np.uint8)
    kept = np.array([[True, True], [False, False]])  # the right column is padding
    path = tmp_path / "kept_tokens_training.npz"
    np.savez(path, image_0=image, kept_0=kept, tokens_0=np.array([2.0, 1.0]))
    (drawn,) = kept_tokens(path)
    picture = opened(drawn["picture"])
    assert drawn["share"] == 0.5
    assert picture.shape == (320, 160, 3)
    assert picture[:150].min() > 245 and picture[170:].max() < 160
