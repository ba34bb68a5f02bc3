"""Photometric distortion against OpenCV's and mmsegmentation's numbers."""

from pathlib import Path

import numpy as np
import pytest

from detectron2.data.transforms import AugInput
from mimdet.data.photometric import (
    PhotometricDistortion,
    change_levels,
    change_saturation,
    from_hsv,
    to_hsv,
    turn_hue,
)

GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden/segmentation/photometric.npz"))
RGB = GOLDEN["input_bgr"][:, :, ::-1]
STEPS = {
    "brightness": lambda value: change_levels(RGB, shift=value),
    "contrast": lambda value: change_levels(RGB, factor=value),
    "saturation": lambda value: change_saturation(RGB, value),
    "hue": lambda value: turn_hue(RGB, int(value)),
}


def levels_between(ours: np.ndarray, bgr: np.ndarray) -> np.ndarray:
    assert ours.dtype == np.uint8
    return np.abs(ours[:, :, ::-1].astype(int) - bgr)


def test_hsv_is_that_of_opencv():
    assert np.array_equal(np.stack(to_hsv(RGB), axis=2), GOLDEN["hsv"])


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.partition("_")[0] in STEPS])
def test_each_step_is_that_of_mmsegmentation(name):
    step, value = name.split("_")
    difference = levels_between(STEPS[step](float(value)), GOLDEN[name])
    # Integers come out alike; back from HSV both round floats.
    assert difference.max() <= (1 if step in ("saturation", "hue") else 0)


@pytest.mark.parametrize("seed", range(6))
def test_the_whole_draws_and_does_what_mmsegmentation_does(seed):
    np.random.seed(seed)
    image = PhotometricDistortion().get_transform(RGB).apply_image(RGB)
    assert levels_between(image, GOLDEN[f"mmseg_numpy_seed_{seed}"]).max() <= 1


def test_all_colours_come_back_from_hsv():
    side = np.arange(0, 256, 5, dtype=np.uint8)
    colours = np.stack(np.meshgrid(side, side, side), axis=-1).reshape(-1, 52, 3)
    back = from_hsv(*to_hsv(colours)).astype(int)
    # A step of the hue is 2 of 60 degrees, so a channel is off by up to a 60th of 255.
    assert np.abs(back - colours).max() <= 5
    assert np.array_equal(back.max(axis=2), colours.max(axis=2))  # the value is exact


@pytest.mark.parametrize("grey", [0, 1, 128, 255])
def test_grey_has_no_colour_to_change(grey):
    image = np.full((2, 3, 3), grey, dtype=np.uint8)
    assert np.array_equal(turn_hue(image, 17), image)
    assert np.array_equal(change_saturation(image, 1.5), image)


def test_a_whole_turn_of_the_hue_is_none():
    assert np.array_equal(turn_hue(RGB, 180), turn_hue(RGB, 0))


def test_red_turns_to_green_by_60_steps():
    red = np.array([[[200, 0, 0]]], dtype=np.uint8)
    assert turn_hue(red, 60).tolist() == [[[0, 200, 0]]]


def test_labels_and_boxes_stay_as_they_are():
    labels = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
    boxes = np.array([[1.0, 2.0, 5.0, 6.0]])
    given = AugInput(RGB, boxes=boxes, sem_seg=labels)
    np.random.seed(0)
    PhotometricDistortion()(given)
    assert not np.array_equal(given.image, RGB)
    assert np.array_equal(given.sem_seg, labels) and np.array_equal(given.boxes, boxes)


def test_a_flipped_view_is_distorted_like_a_copy_of_it():
    flipped = RGB[:, ::-1]
    assert np.array_equal(turn_hue(flipped, 9), turn_hue(flipped.copy(), 9))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(contrast=(1.5, 0.5)), "contrast must be two factors"),
        (dict(saturation=(-0.5, 0.5)), "saturation must be two factors"),
        (dict(brightness=-1), "brightness must be at least 0"),
        (dict(hue=0), "hue at least 1"),
    ],
)
def test_ranges_without_numbers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PhotometricDistortion(**arguments)


@pytest.mark.parametrize(
    "image", [RGB.astype(np.float32), RGB[:, :, 0], np.zeros((4, 4, 4), np.uint8)]
)
def test_images_that_are_not_rgb_of_8_bits_are_refused(image):
    with pytest.raises(ValueError, match="needs RGB images .* of 8 bits"):
        PhotometricDistortion().get_transform(image)
