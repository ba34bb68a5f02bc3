"""Labels: readable, and never over each other."""

import numpy as np
import pytest
from PIL import Image

from mimdet.analysis.labels import Rectangle, draw_labels

RED, GREEN, BLUE = "#ff0000", "#00ff00", "#0000ff"


def labelled(boxes, colors, size=(200, 100), text="box") -> np.ndarray:
    """Pixels of a grey picture with labels."""
    picture = Image.new("RGB", size, "grey")
    boxes = [Rectangle(*box) for box in boxes]
    draw_labels(picture, boxes, [text] * len(boxes), colors, 13)
    return np.asarray(picture)


def extent(pixels: np.ndarray, color: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 of what has a colour."""
    y, x = np.nonzero((pixels == color).all(axis=2))
    return (x.min(), y.min(), x.max() + 1, y.max() + 1) if len(x) else None


def test_a_label_stands_above_its_box():
    x0, _, x1, y1 = extent(labelled([(50, 40, 90, 80)], [RED]), (255, 0, 0))
    assert (x0, y1) == (50, 40)
    assert x1 < 90


@pytest.mark.parametrize(
    "box",
    [(50, 2, 90, 80), (-9, 40, 30, 80), (190, 40, 199, 80), (0, 0, 200, 100), (150, 99, 900, 999)],
)
def test_a_label_of_a_box_at_the_border_is_whole(box):
    x0, y0, x1, y1 = extent(labelled([box], [RED]), (255, 0, 0))
    whole = extent(labelled([(50, 40, 90, 80)], [RED]), (255, 0, 0))
    assert (x1 - x0, y1 - y0) == (whole[2] - whole[0], whole[3] - whole[1])


def test_labels_of_one_place_stand_apart():
    pixels = labelled([(50, 40, 90, 80)] * 3, [RED, GREEN, BLUE])
    places = [extent(pixels, c) for c in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    assert None not in places
    whole = places[0][2] - places[0][0], places[0][3] - places[0][1]
    assert all((p[2] - p[0], p[3] - p[1]) == whole for p in places)  # none covers another


def test_a_label_without_a_free_place_is_left_out_and_the_first_ones_stay():
    pixels = labelled([(50, 40, 52, 42)] * 50 + [(60, 50, 62, 52)], [RED] * 50 + [BLUE])
    assert extent(pixels, (255, 0, 0)) is not None
    assert extent(pixels, (0, 0, 255)) is None


@pytest.mark.parametrize("color, text", [("#ffff00", 0), ("#000080", 255)])
def test_text_is_dark_on_light_grounds_and_light_on_dark_ones(color, text):
    pixels = labelled([(50, 40, 90, 80)], [color], text="III")
    assert extent(pixels, (text, text, text)) is not None
    assert extent(pixels, (255 - text,) * 3) is None
