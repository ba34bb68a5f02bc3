"""Panels with titles, and where pictures are written."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimdet.analysis.pictures import (
    GAP,
    Panel,
    enlargement,
    picture_paths,
    side_by_side,
    title_height,
)


def inside(files, output="out") -> list[str]:
    return [str(path.relative_to(output)) for path in picture_paths(output, files)]


# --- Panels ---------------------------------------------------------------------------------------


def panel(size=(320, 320), title="", detail="") -> Panel:
    return Panel(Image.new("RGB", size, "red"), title, detail)


@pytest.mark.parametrize(
    "size, factor", [((64, 64), 5), ((640, 480), 1), ((2000, 3), 2), ((1, 1), 320), ((70000, 1), 1)]
)
def test_small_images_are_enlarged_and_thin_ones_not_beyond_what_a_jpeg_holds(size, factor):
    assert enlargement(*size) == factor


def test_panels_stand_side_by_side_below_their_titles():
    joined = side_by_side([panel(title="One"), panel(), panel(detail="three")])
    bar = title_height(panel().picture)
    assert joined.size == (3 * 320 + 2 * GAP, 320 + bar)
    pixels = np.asarray(joined)
    for k, has_text in enumerate([True, False, True]):
        x = k * (320 + GAP)
        assert (pixels[bar:, x : x + 320] == (255, 0, 0)).all()
        assert (pixels[:bar, x : x + 320] != 255).any() == has_text


def test_a_long_title_is_made_smaller_and_not_cut():
    text = "a detail that is much too long for the width of a panel, and still it can be read"
    bar = np.asarray(side_by_side([panel(detail=text), panel()]))[: title_height(panel().picture)]
    assert (bar[:, :320] != 255).any()
    assert (bar[:, 320:] == 255).all()


def test_titles_of_large_pictures_are_larger():
    assert title_height(Image.new("L", (1600, 1200))) > 3 * title_height(Image.new("L", (320, 320)))


# --- Paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files, expected",
    [
        ([], []),
        (["/d/a.jpg"], ["a.png"]),
        (["/d/a.jpg", "/d/b.png"], ["a.png", "b.png"]),
        (["/d/cam0/f.png", "/d/cam1/f.png"], ["cam0/f.png", "cam1/f.png"]),
        (["/d/f.png", "/d/x/y/f.png"], ["f.png", "x/y/f.png"]),
        (["/one/f.png", "/two/deep/f.png"], ["one/f.png", "two/deep/f.png"]),
        (["/d/x/../../e/f.png", "/d/f.png"], ["e/f.png", "d/f.png"]),  # out of the image root
        (["/d/a.jpg", "/d/a.png", "/d/b.jpg"], ["a.jpg.png", "a.png.png", "b.jpg.png"]),
        (["/d/a.jpg", "/d/a.png", "/d/a.jpg.png"], ["a.jpg.png", "a.png.png", "a.jpg.png.png"]),
        (["/d/a.JPG", "/d/A.jpg"], ["a.JPG.png", "A.jpg.png"]),
        (["/d/a.jpg", "/d/a.jpg", "/d/a.jpg"], ["a.jpg.png", "a.jpg.2.png", "a.jpg.3.png"]),
        (["/d/a.b.jpg", "/d/a"], ["a.b.png", "a.png"]),
    ],
)
def test_each_picture_has_a_path_of_its_own_in_the_folders_of_its_image(files, expected):
    assert inside(files) == expected


def test_relative_and_absolute_paths_mix():
    assert inside(["x/f.png", os.path.abspath("y/f.png")]) == ["x/f.png", "y/f.png"]


def test_pictures_never_take_the_place_of_images(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    for output in (tmp_path, tmp_path / "link", Path(os.path.relpath(tmp_path))):
        with pytest.raises(ValueError, match=r"not take the place of images, as .*a\.png would"):
            picture_paths(output, [f"{tmp_path}/a.png", f"{tmp_path}/b.png"])
