"""Segmentations of all tools become polygons or compressed RLE, or are named as what is wrong."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
from coco_files import VALUES, rectangle

from mimdet.data.coco import problems as p
from mimdet.data.coco.segmentation import MAX_PARTS, read_segmentation

HEIGHT, WIDTH, FAR = 20, 30, 300.0
SQUARE = rectangle(2.0, 3.0, 10.0, 10.0)
POINTS = [[2.0, 3.0], [12.0, 3.0], [12.0, 13.0], [2.0, 13.0]]


def read(value):
    return read_segmentation(value, HEIGHT, WIDTH, FAR)


def rle(polygon=SQUARE) -> dict:
    encoded = mask_util.frPyObjects([polygon], HEIGHT, WIDTH)[0]
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def run_lengths(encoded) -> list[int]:
    """Uncompressed, by hand: lengths of equal pixels down the columns, the first of 0."""
    pixels = mask_util.decode(encoded).T.ravel()
    ends = np.flatnonzero(np.diff(pixels)) + 1
    runs = np.diff(np.concatenate([[0], ends, [pixels.size]])).tolist()
    return runs if pixels[0] == 0 else [0, *runs]


def test_polygons_are_kept_as_they_are():
    read_value = read([SQUARE])
    assert read_value.value == [SQUARE]
    assert read_value.bounds == (2.0, 3.0, 12.0, 13.0)
    assert read_value.kinds == ()


@pytest.mark.parametrize("nothing", [None, [], {}])
def test_no_segmentation_is_no_problem(nothing):
    assert read(nothing) == (None, None, ())


@pytest.mark.parametrize(
    "written, kind",
    [
        (SQUARE, p.SEGMENTATION_FLAT),
        (POINTS, p.SEGMENTATION_POINTS),
        ([POINTS], p.SEGMENTATION_POINTS),
        ([[str(v) for v in SQUARE]], p.NUMBERS_TEXT),
        ([SQUARE, [1.0, 1.0, 2.0, 2.0]], p.POLYGON_PARTS),
        ([SQUARE, [*SQUARE, 1.0]], p.POLYGON_PARTS),
    ],
)
def test_polygons_in_another_form_are_repaired(written, kind):
    assert read(written) == ([SQUARE], (2.0, 3.0, 12.0, 13.0), (kind,))


def test_compressed_and_uncompressed_run_lengths_are_one_mask():
    text, lengths = read(rle()), read({"size": [HEIGHT, WIDTH], "counts": run_lengths(rle())})
    assert text.kinds == lengths.kinds == ()
    assert text.bounds == lengths.bounds == (2.0, 3.0, 12.0, 13.0)
    assert (mask_util.decode(text.value) == mask_util.decode(lengths.value)).all()
    assert mask_util.area(text.value) == 100


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_of_any_mask_are_understood(seed):
    random = np.random.RandomState(seed)
    pixels = np.asfortranarray(random.rand(HEIGHT, WIDTH) < random.rand(), dtype=np.uint8)
    encoded = mask_util.encode(pixels)
    value = read({"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()}).value
    assert (mask_util.decode(value) == pixels).all()


def test_a_list_of_rle_is_one_mask_of_all_parts():
    merged = read([rle(), rle(rectangle(15.0, 3.0, 5.0, 5.0))])
    assert merged.kinds == (p.SEGMENTATION_RLES,)
    assert merged.bounds == (2.0, 3.0, 20.0, 13.0)
    assert mask_util.area(merged.value) == 125


@pytest.mark.parametrize(
    "written, kind",
    [
        ("polygon", p.SEGMENTATION),
        ([["a", 2, 3, 4, 5, 6]], p.SEGMENTATION),
        ([SQUARE, "x"], p.SEGMENTATION),
        ([[POINTS]], p.SEGMENTATION),
        ([POINTS, 3], p.SEGMENTATION),
        ([rle(), SQUARE], p.SEGMENTATION),
        ([[1.0, 1.0, 2.0, 2.0]], p.POLYGON_NONE),
        ([[]], p.POLYGON_NONE),
        ([[0.0, 0.0, 1e8, 0.0, 1e8, 1e8]], p.TOO_FAR),
        ([[0.0, 0.0, -1e30, 0.0, 5.0, 5.0]], p.TOO_FAR),
        ([[0, 0, 10**40, 0, 5, 5]], p.TOO_FAR),
        ([SQUARE] * (MAX_PARTS + 1), p.TOO_LARGE),
        ([[1.0, 2.0] * 1_000_000], p.TOO_LARGE),
        ([rle()] * (MAX_PARTS + 1), p.TOO_LARGE),
        ({"size": [HEIGHT, WIDTH]}, p.RLE),
        ({"size": [WIDTH, HEIGHT], "counts": rle()["counts"]}, p.RLE_SIZE),
        ({"size": "x", "counts": rle()["counts"]}, p.RLE),
        ({"size": [HEIGHT, WIDTH], "counts": [5]}, p.RLE),
        ({"size": [HEIGHT, WIDTH], "counts": [-5, 605]}, p.RLE),
        ({"size": [HEIGHT, WIDTH], "counts": [2**40]}, p.RLE),
        ({"size": [HEIGHT, WIDTH], "counts": rle()["counts"][:-1]}, p.RLE),
        ({"size": [HEIGHT, WIDTH], "counts": "oooooooooooooo0"}, p.RLE),
        ({"size": [HEIGHT, WIDTH], "counts": "é"}, p.RLE),
        ({"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}, p.POLYGON_NONE),
    ],
)
def test_what_cannot_be_read_is_named(written, kind):
    assert read(written) == (None, None, (kind,))


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(
    "around", [lambda v: v, lambda v: [v], lambda v: [[v]], lambda v: [[v] * 6]]
)
def test_any_json_value_is_read_or_named(value, around):
    segmentation = read(around(value))
    assert (segmentation.value is None) or segmentation.bounds is not None


@pytest.mark.parametrize(
    "line",
    [
        [8, 8, 8, 8, 8, 8],
        [8, 8, 32, 8, 20, 8],
        [8, 8, 20, 14, 32, 20],
        [8, 8, 9, 9, 10, 10, 11, 11],
    ],
)
def test_a_polygon_without_area_is_none(line):
    triangle = [8, 8, 9, 9, 10, 8]
    assert read_segmentation([line], 48, 64, 640).kinds == (p.POLYGON_NONE,)
    found = read_segmentation([line, triangle], 48, 64, 640)
    assert (found.value, found.kinds) == ([triangle], (p.POLYGON_PARTS,))


def test_a_list_of_points_by_name_is_no_list_of_rle():
    found = read_segmentation([{"x": 1, "y": 2}], 48, 64, 640)
    assert found.kinds == (p.SEGMENTATION,)
