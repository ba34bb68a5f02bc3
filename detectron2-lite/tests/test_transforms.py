"""`detectron2.data.transforms` against stored upstream numbers, hand-made cases and its errors."""

import numpy as np
import pytest
from fvcore.transforms import transform as fvcore
from golden_data import assert_array, load
from PIL import Image

from detectron2.data import transforms as T

ARRAYS, META = load("data")
TRANSFORMS = {
    "resize_up": T.ResizeTransform(37, 53, 60, 71, Image.BILINEAR),
    "resize_down": T.ResizeTransform(37, 53, 20, 31, Image.BILINEAR),
    "hflip": T.HFlipTransform(53),
    "vflip": T.VFlipTransform(37),
    "crop": T.CropTransform(5, 7, 30, 21),
    "crop_over": T.CropTransform(10, 6, 64, 64, 53, 37),
    "pad": T.PadTransform(0, 0, 9, 4, 53, 37, 128.0, 255),
    "noop": T.NoOpTransform(),
}


def first_channel(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Channel 0 of a stored image, and where it is known: big images hold every n-th value only."""
    if name in ARRAYS:
        channel = ARRAYS[name][:, :, 0]
        return channel, np.ones(channel.shape, dtype=bool)
    flat = np.full(ARRAYS[f"{name}#shape"].prod(), -1)
    flat[:: int(ARRAYS[f"{name}#step"])] = ARRAYS[f"{name}#flat"]
    channel = flat.reshape(ARRAYS[f"{name}#shape"])[:, :, 0]
    return channel, channel >= 0


def input_image() -> np.ndarray:
    """An image with the channel 0 of `tfm.image`, which only the padded image holds completely."""
    channel, known = first_channel("tfm.pad.image")
    assert known.all()
    return np.repeat(channel[:37, :53, None], 3, axis=2).astype(np.uint8)


def blank(height: int, width: int) -> np.ndarray:
    return np.zeros((height, width, 3), dtype=np.uint8)


def random_image(height: int, width: int, channels: int = 3) -> np.ndarray:
    rng = np.random.RandomState(0)
    return rng.randint(0, 256, (height, width, channels)).astype(np.uint8)


def sorted_points(polygons: list) -> np.ndarray:
    return np.array(sorted(tuple(point) for polygon in polygons for point in polygon))


# --- transforms -----------------------------------------------------------------------------------


def test_the_partly_stored_input_image_agrees_with_the_one_the_tests_use():
    channel, known = first_channel("tfm.image")
    np.testing.assert_array_equal(input_image()[:, :, 0][known], channel[known])


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transformed_image_equals_upstream(name):
    expected, known = first_channel(f"tfm.{name}.image")
    actual = TRANSFORMS[name].apply_image(input_image())
    assert actual.dtype == np.uint8
    np.testing.assert_array_equal(actual[:, :, 0][known], expected[known])


def test_resized_float_image_equals_upstream():
    expected, _ = first_channel("tfm.resize_down_float.image")
    actual = TRANSFORMS["resize_down"].apply_image(input_image().astype(np.float32))
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual[:, :, 0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transformed_points_boxes_and_segmentation_equal_upstream(name):
    tfm = TRANSFORMS[name]
    assert_array(ARRAYS, f"tfm.{name}.coords", tfm.apply_coords(ARRAYS["tfm.points"].copy()))
    assert_array(ARRAYS, f"tfm.{name}.box", tfm.apply_box(ARRAYS["tfm.boxes"].copy()), atol=1e-2)
    segmentation = tfm.apply_segmentation(ARRAYS["tfm.segmentation"])
    assert_array(ARRAYS, f"tfm.{name}.segm", segmentation)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transformed_polygons_equal_upstream(name):
    polygons = [np.array(polygon) for polygon in META["polygons_in"]]
    actual = TRANSFORMS[name].apply_polygons(polygons)
    expected = META["polygons_out"][name]
    assert [len(polygon) for polygon in actual] == [len(polygon) for polygon in expected]
    # Which vertex comes first after cropping depends on the version of shapely.
    np.testing.assert_allclose(sorted_points(actual), sorted_points(expected), atol=1e-4)


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_resize_keeps_dtype_and_channel_axis(channels, dtype):
    image = np.full((6, 8, *channels), 7, dtype=dtype)
    resized = T.ResizeTransform(6, 8, 3, 5).apply_image(image)
    assert resized.shape == (3, 5, *channels) and resized.dtype == dtype
    np.testing.assert_allclose(resized, 7, rtol=1e-6)


@pytest.mark.lite
@pytest.mark.parametrize("size", [(37, 53), (20, 31), (60, 71), (80, 20), (1, 1), (9, 300)])
@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_fast_bilinear_is_within_one_grey_level_of_pillow(size, channels):
    rng = np.random.RandomState(0)
    image = rng.randint(0, 256, (37, 53, *channels)).astype(np.uint8)
    image[:9] = 255  # saturated, where overshooting would show
    expected = T.ResizeTransform(37, 53, *size).apply_image(image)
    actual = T.ResizeTransform(37, 53, *size, "fast_bilinear").apply_image(image)
    assert actual.shape == expected.shape and actual.dtype == np.uint8
    assert np.abs(actual.astype(int) - expected).max() <= 1


@pytest.mark.lite
@pytest.mark.parametrize(
    "view",
    [lambda a: a[:, ::-1], lambda a: a[::-1], lambda a: a[:, :, ::-1], lambda a: a[5:30, 3:40]],
    ids=["mirrored", "upside down", "BGR", "cropped"],
)
def test_fast_bilinear_takes_any_view_even_read_only(view):
    image = random_image(37, 53)
    image.setflags(write=False)
    seen = view(image)
    tfm = T.ResizeTransform(*seen.shape[:2], 60, 71, "fast_bilinear")
    np.testing.assert_array_equal(tfm.apply_image(seen), tfm.apply_image(seen.copy()))


@pytest.mark.lite
def test_fast_bilinear_changes_neither_labels_nor_floats_nor_points():
    usual, fast = (T.ResizeTransform(37, 53, 20, 31, i) for i in (None, "fast_bilinear"))
    labels = random_image(37, 53)[:, :, 0]
    np.testing.assert_array_equal(fast.apply_segmentation(labels), usual.apply_segmentation(labels))
    image = labels.astype(np.float32)
    np.testing.assert_array_equal(fast.apply_image(image), usual.apply_image(image))
    points = np.array([[3.0, 4.0]])
    np.testing.assert_array_equal(fast.apply_coords(points.copy()), usual.apply_coords(points))
    assert fast.inverse().interp == "fast_bilinear"


@pytest.mark.lite
@pytest.mark.parametrize(
    "make",
    [
        lambda interp: T.Resize((60, 71), interp),
        lambda interp: T.RandomResize([(60, 71)], interp),
        lambda interp: T.ResizeShortestEdge(60, interp=interp),
        lambda interp: T.ResizeScale(1.0, 1.0, 60, 71, interp),
    ],
)
def test_every_resizing_augmentation_can_be_fast(make):
    image = random_image(37, 53)
    tfm = make("fast_bilinear").get_transform(image)
    assert tfm.interp == "fast_bilinear"
    usual = make(Image.BILINEAR).get_transform(image)
    difference = tfm.apply_image(image).astype(int) - usual.apply_image(image)
    assert np.abs(difference).max() <= 1


@pytest.mark.lite
def test_an_unknown_name_of_a_filter_is_an_error():
    with pytest.raises(ValueError, match="'fast_bilinear', got 'bilinear'"):
        T.ResizeTransform(6, 8, 3, 5, "bilinear")


@pytest.mark.lite  # torch warns upstream that the image cannot be written to
def test_resize_accepts_mirrored_and_read_only_images():
    image = random_image(6, 8).astype(np.float32)
    image.setflags(write=False)
    tfm = T.ResizeTransform(6, 8, 12, 16)
    mirrored = tfm.apply_image(image[:, ::-1])
    np.testing.assert_allclose(mirrored, tfm.apply_image(image)[:, ::-1], atol=1e-4)


@pytest.mark.lite  # upstream hands these dtypes to torch, which refuses them
@pytest.mark.parametrize("dtype", [bool, np.int64])
def test_segmentation_of_any_integer_type_is_resized_by_repeating_labels(dtype):
    segmentation = np.array([[0, 1], [1, 0]], dtype=dtype)
    resized = T.ResizeTransform(2, 2, 4, 4).apply_segmentation(segmentation)
    assert resized.dtype == dtype
    np.testing.assert_array_equal(resized, segmentation.repeat(2, axis=0).repeat(2, axis=1))


def test_inverse_of_resize_restores_points():
    tfm = T.ResizeTransform(37, 53, 20, 31)
    points = np.array([[1.5, 2.5], [53.0, 37.0]])
    back = tfm.inverse().apply_coords(tfm.apply_coords(points.copy()))
    np.testing.assert_allclose(back, points)


def test_resize_of_an_image_of_another_size_is_an_error():
    with pytest.raises(AssertionError):
        T.ResizeTransform(4, 4, 8, 8).apply_image(blank(4, 5))


@pytest.mark.lite
def test_resize_error_names_both_sizes():
    with pytest.raises(AssertionError, match=r"\(4, 4\).*\(4, 5, 3\)"):
        T.ResizeTransform(4, 4, 8, 8).apply_image(blank(4, 5))


@pytest.mark.lite
def test_float_image_with_a_filter_of_pillow_only_is_an_error():
    with pytest.raises(ValueError, match="float32.*NEAREST"):
        T.ResizeTransform(4, 4, 8, 8, Image.LANCZOS).apply_image(np.zeros((4, 4), np.float32))


def test_cropping_polygons_drops_what_is_outside_and_degenerate_parts():
    crop = T.CropTransform(10, 10, 10, 10)
    outside = np.array([[0.0, 0], [5, 0], [5, 5]])
    touching = np.array([[0.0, 0], [10, 0], [10, 30], [0, 30]])
    flat = np.array([[12.0, 12], [15, 15], [18, 18]])
    around = np.array([[0.0, 0], [30, 0], [30, 30], [0, 30]])
    assert crop.apply_polygons([outside, touching, flat]) == []
    (window,) = crop.apply_polygons([around])
    np.testing.assert_allclose(
        sorted_points([window]), sorted_points([[(0, 0), (0, 10), (10, 0), (10, 10)]])
    )


def test_cropping_a_u_shape_gives_two_polygons():
    u = np.array([[0.0, 0], [2, 0], [2, 8], [4, 8], [4, 0], [6, 0], [6, 10], [0, 10]])
    assert len(T.CropTransform(0, 0, 6, 5).apply_polygons([u])) == 2


# --- the base of augmentations --------------------------------------------------------------------


class Record(T.Augmentation):
    """Keeps what `get_transform` is called with."""

    def get_transform(self, image, boxes):
        self.seen = image, boxes
        return T.HFlipTransform(image.shape[1])


class OneParameter(T.Augmentation):
    def get_transform(self, picture):
        return T.HFlipTransform(picture.shape[1])


def test_augmentation_gets_the_inputs_that_its_parameters_name():
    boxes = np.array([[1.0, 2, 3, 4]])
    aug, image = Record(), random_image(5, 10)
    aug_input = T.AugInput(image, boxes=boxes.copy())
    aug(aug_input)
    assert aug.seen[0] is image and aug.input_args == ("image", "boxes")
    np.testing.assert_array_equal(aug_input.boxes, [[7, 2, 9, 4]])
    np.testing.assert_array_equal(aug_input.image, image[:, ::-1])


def test_single_parameter_of_any_name_gets_the_image():
    aug_input = T.AugInput(random_image(5, 10))
    assert OneParameter()(aug_input).width == 10


def test_missing_input_is_an_attribute_error():
    class NeedsDepth(T.Augmentation):
        def get_transform(self, image, depth):
            return T.NoOpTransform()

    with pytest.raises(AttributeError, match="depth"):
        NeedsDepth()(T.AugInput(blank(4, 4)))


def test_variable_arguments_are_a_type_error():
    class Vague(T.Augmentation):
        def get_transform(self, image, *others):
            return T.NoOpTransform()

    with pytest.raises(TypeError, match="Vague"):
        Vague()(T.AugInput(blank(4, 4)))


def test_augmentation_without_get_transform_is_not_implemented():
    with pytest.raises(NotImplementedError):
        T.Augmentation()(T.AugInput(blank(4, 4)))


def test_augmentation_that_returns_no_transform_is_an_error():
    class Broken(T.Augmentation):
        def get_transform(self, image):
            return image

    with pytest.raises(AssertionError, match="must return"):
        Broken()(T.AugInput(blank(4, 4)))


@pytest.mark.parametrize(
    "image",
    [
        [[0]],
        np.zeros(4, dtype=np.uint8),
        pytest.param(np.zeros((4, 4), dtype=np.int32), marks=pytest.mark.lite),
    ],
)
def test_aug_input_accepts_uint8_and_float_images_only(image):
    with pytest.raises(AssertionError):
        T.AugInput(image)


def test_aug_input_transforms_segmentation_with_nearest_interpolation():
    aug_input = T.AugInput(blank(2, 2), sem_seg=np.array([[0, 9], [9, 0]], dtype=np.uint8))
    aug_input.apply_augmentations([T.Resize(4)])
    assert aug_input.sem_seg.shape == (4, 4) and set(aug_input.sem_seg.ravel()) == {0, 9}


def test_augmentation_list_mixes_transforms_and_augmentations_and_flattens():
    inner = T.AugmentationList([T.FixedSizeCrop((4, 4)), T.Resize((3, 5))])
    aug_input = T.AugInput(random_image(6, 6))
    transforms = T.AugmentationList([T.HFlipTransform(6), inner])(aug_input)
    names = [type(transform).__name__ for transform in transforms.transforms]
    assert names == ["HFlipTransform", "CropTransform", "PadTransform", "ResizeTransform"]
    np.testing.assert_array_equal(transforms.apply_image(random_image(6, 6)), aug_input.image)


@pytest.mark.lite
def test_augmentation_list_rejects_other_objects():
    with pytest.raises(TypeError, match="'flip'"):
        T.AugmentationList(["flip"])


def test_repr_shows_arguments_that_are_not_default():
    aug = T.ResizeShortestEdge(short_edge_length=(800,), max_size=1333, sample_style="choice")
    assert repr(aug) == (
        "ResizeShortestEdge(short_edge_length=(800,), max_size=1333, sample_style='choice')"
    )
    assert repr(T.RandomFlip()) == "RandomFlip()"
    assert repr(T.FixedSizeCrop((4, 5), pad=False)) == (
        "FixedSizeCrop(crop_size=(4, 5), pad=False)"
    )
    assert repr(T.AugmentationList([T.RandomFlip()])) == "AugmentationList[RandomFlip()]"


@pytest.mark.lite
def test_repr_of_nested_augmentations_shows_the_inner_ones():
    flip = T.RandomApply(T.HFlipTransform(4), prob=0.25)
    assert repr(flip) == "RandomApply(tfm_or_aug=HFlipTransform(width=4), prob=0.25)"
    assert repr(T.AugmentationList([T.HFlipTransform(4)])) == (
        "AugmentationList[HFlipTransform(width=4)]"
    )


def test_repr_of_a_class_that_keeps_no_arguments_is_that_of_any_object():
    class Keyless(T.Augmentation):
        def __init__(self, strength):
            pass

    assert "Keyless object at" in repr(Keyless(1))


# --- single augmentations -------------------------------------------------------------------------


def test_random_apply_applies_inner_augmentation_at_prob_1_and_nothing_at_0():
    always, never = (T.RandomApply(T.Resize((3, 5)), prob=p) for p in (1.0, 0.0))
    aug_input = T.AugInput(blank(6, 6))
    assert isinstance(never(aug_input), T.NoOpTransform) and aug_input.image.shape == (6, 6, 3)
    assert isinstance(always(aug_input), T.ResizeTransform) and aug_input.image.shape == (3, 5, 3)
    assert isinstance(never.get_transform(blank(6, 6)), T.NoOpTransform)
    assert isinstance(always.get_transform(blank(6, 6)), T.ResizeTransform)


def test_random_apply_draws_before_the_inner_augmentation():
    np.random.seed(0)
    draws = np.random.rand(3)
    np.random.seed(0)
    T.RandomApply(T.RandomFlip(prob=1.0), prob=draws[0] + 0.01)(T.AugInput(blank(4, 4)))
    assert np.random.rand() == draws[2]
    np.random.seed(0)
    T.RandomApply(T.RandomFlip(prob=1.0), prob=draws[0] - 0.01)(T.AugInput(blank(4, 4)))
    assert np.random.rand() == draws[1]


def test_random_apply_with_prob_out_of_range_is_an_error():
    with pytest.raises(AssertionError):
        T.RandomApply(T.RandomFlip(), prob=1.5)


def test_random_flip_directions():
    image = random_image(3, 4)
    horizontal = T.RandomFlip(prob=1.0).get_transform(image)
    vertical = T.RandomFlip(prob=1.0, horizontal=False, vertical=True).get_transform(image)
    assert horizontal.width == 4 and vertical.height == 3
    assert isinstance(T.RandomFlip(prob=0.0).get_transform(image), T.NoOpTransform)


@pytest.mark.parametrize("both", [True, False])
def test_random_flip_in_both_or_no_directions_is_an_error(both):
    with pytest.raises(ValueError):
        T.RandomFlip(horizontal=both, vertical=both)


def test_resize_to_a_square_from_one_number():
    assert T.Resize(5).get_transform(blank(3, 4)).apply_image(blank(3, 4)).shape == (5, 5, 3)


def test_random_resize_uses_every_size_of_the_list():
    aug = T.RandomResize([(3, 4), (5, 6)])
    np.random.seed(0)
    sizes = {(t.new_h, t.new_w) for t in (aug.get_transform(blank(7, 7)) for _ in range(20))}
    assert sizes == {(3, 4), (5, 6)}


@pytest.mark.parametrize("case", META["shortest_edge_output_shape"])
def test_shortest_edge_output_shape_equals_upstream(case):
    shape = T.ResizeShortestEdge.get_output_shape(case["h"], case["w"], case["short"], case["max"])
    assert list(shape) == case["out"]


@pytest.mark.parametrize(
    ("size", "short_800", "square_1024"),
    [
        ((480, 640), (800, 1067), (768, 1024)),
        ((427, 640), (800, 1199), (683, 1024)),
        ((333, 1000), (444, 1333), (341, 1024)),
        ((100, 1000), (133, 1333), (102, 1024)),
        ((500, 333), (1201, 800), (1024, 682)),
    ],
)
def test_shortest_edge_output_shape_of_common_recipes(size, short_800, square_1024):
    assert T.ResizeShortestEdge.get_output_shape(*size, 800, 1333) == short_800
    assert T.ResizeShortestEdge.get_output_shape(*size, 1024, 1024) == square_1024


def test_shortest_edge_without_limit_sets_the_shorter_side_exactly():
    tfm = T.ResizeShortestEdge(10).get_transform(blank(3, 7))
    assert (tfm.new_h, tfm.new_w) == (10, 23)


@pytest.mark.parametrize(
    ("size", "short", "longest", "expected"),
    [
        ((2, 3), 3, 100, (3, 5)),
        ((3, 2), 3, 100, (5, 3)),
        ((2, 5), 2, 3, (1, 3)),
        ((3, 4), 3, 2, (2, 2)),
    ],
)
def test_shortest_edge_rounds_halves_up(size, short, longest, expected):
    assert T.ResizeShortestEdge.get_output_shape(*size, short, longest) == expected


def test_a_range_of_lengths_is_drawn_with_both_its_ends():
    np.random.seed(0)
    aug = T.ResizeShortestEdge((4, 7))
    assert {aug.get_transform(blank(9, 9)).new_h for _ in range(50)} == {4, 5, 6, 7}


def test_shortest_edge_of_length_zero_keeps_the_image():
    aug = T.ResizeShortestEdge([0], sample_style="choice")
    assert isinstance(aug.get_transform(blank(3, 7)), T.NoOpTransform)


def test_shortest_edge_draws():
    np.random.seed(0)
    expected = [np.random.randint(4, 9 + 1), np.random.choice([4, 6, 9])]
    np.random.seed(0)
    square = blank(8, 8)
    drawn = [
        T.ResizeShortestEdge((4, 9)).get_transform(square).new_h,
        T.ResizeShortestEdge([4, 6, 9], sample_style="choice").get_transform(square).new_h,
    ]
    assert drawn == expected


def test_shortest_edge_of_a_single_length_leaves_the_random_state_alone():
    np.random.seed(0)
    T.ResizeShortestEdge(800).get_transform(blank(4, 4))
    assert np.random.rand() == np.random.RandomState(0).rand()


@pytest.mark.parametrize("lengths", [(800,), (1, 2, 3)])
def test_shortest_edge_range_needs_two_lengths(lengths):
    with pytest.raises(AssertionError):
        T.ResizeShortestEdge(lengths, sample_style="range")


def test_shortest_edge_with_unknown_style_is_an_error():
    with pytest.raises(AssertionError, match="other"):
        T.ResizeShortestEdge(800, sample_style="other")


def test_resize_scale_sizes_equal_upstream():
    aug = T.ResizeScale(0.1, 2.0, 1024, 1024)
    np.random.seed(0)
    sizes = []
    for height, width in [(480, 640), (427, 640), (33, 25)]:
        tfm = aug.get_transform(blank(height, width))
        sizes.append((tfm.new_h, tfm.new_w))
    assert sizes == [(878, 1170), (997, 1494), (1275, 966)]


@pytest.mark.lite  # upstream asks Pillow for an image without pixels
def test_resizing_keeps_at_least_one_pixel():
    assert T.ResizeShortestEdge.get_output_shape(1, 5000, 800, 1333) == (1, 1333)
    tfm = T.ResizeScale(0.1, 0.1, 64, 64).get_transform(blank(1, 500))
    assert (tfm.new_h, tfm.new_w) == (1, 6)


def test_fixed_size_crop_equals_upstream():
    np.random.seed(0)
    crop, pad = T.FixedSizeCrop((64, 64)).get_transform(blank(100, 50)).transforms
    assert (crop.x0, crop.y0, crop.w, crop.h) == (0, 20, 64, 64)
    assert (crop.orig_w, crop.orig_h) == (50, 100)
    assert (pad.x0, pad.y0, pad.x1, pad.y1, pad.pad_value) == (0, 0, 14, 0, 128.0)


@pytest.mark.parametrize("size", [(100, 50), (20, 30), (64, 64), (200, 300)])
def test_fixed_size_crop_always_gives_that_size(size):
    aug_input = T.AugInput(blank(*size))
    T.FixedSizeCrop((64, 48))(aug_input)
    assert aug_input.image.shape == (64, 48, 3)


def test_fixed_size_crop_pads_right_and_bottom_only():
    aug_input = T.AugInput(np.full((2, 3, 3), 7, np.uint8), sem_seg=np.ones((2, 3), np.uint8))
    T.FixedSizeCrop((4, 5), pad_value=9.0, seg_pad_value=33)(aug_input)
    assert (aug_input.image[:2, :3] == 7).all() and aug_input.image.sum() == 3 * (42 + 14 * 9)
    assert (aug_input.sem_seg[:2, :3] == 1).all() and aug_input.sem_seg.sum() == 6 + 14 * 33


def test_fixed_size_crop_without_padding_keeps_small_sides():
    aug_input = T.AugInput(blank(20, 100))
    T.FixedSizeCrop((64, 64), pad=False)(aug_input)
    assert aug_input.image.shape == (20, 64, 3)


def test_fixed_size_crop_draws_once_even_when_nothing_is_cropped():
    np.random.seed(0)
    T.FixedSizeCrop((64, 64)).get_transform(blank(10, 10))
    assert np.random.rand() == np.random.RandomState(0).rand(2)[1]


@pytest.mark.parametrize(
    ("crop_type", "crop_size", "window"),
    [
        ("relative_range", (0.5, 0.5), (67, 67, 549, 372)),
        ("relative", (0.5, 0.25), (47, 172, 160, 240)),
        ("absolute", (384, 600), (0, 44, 600, 384)),
        ("absolute_range", (384, 600), (67, 0, 431, 428)),
    ],
)
def test_random_crop_windows_equal_upstream(crop_type, crop_size, window):
    np.random.seed(0)
    crop = T.RandomCrop(crop_type, crop_size).get_transform(blank(480, 640))
    assert (crop.x0, crop.y0, crop.w, crop.h) == window


def test_random_crop_reaches_every_place_of_the_window():
    np.random.seed(0)
    crops = [T.RandomCrop("absolute", (3, 2)).get_transform(blank(5, 6)) for _ in range(400)]
    assert {(crop.y0, crop.x0) for crop in crops} == {(y, x) for y in range(3) for x in range(5)}


@pytest.mark.parametrize(
    ("crop_type", "crop_size", "heights", "widths"),
    [
        ("absolute_range", (2, 4), {2, 3, 4}, {2, 3, 4}),
        ("absolute_range", (4, 9), {4, 5}, {4, 5, 6, 7}),  # as far as the image goes
        ("relative_range", (0.6, 0.9), {3, 4, 5}, {6, 7}),
        ("relative", (0.5, 0.5), {3}, {4}),  # 2.5 and 3.5, halves go up
    ],
)
def test_random_crop_draws_every_size_up_to_the_largest(crop_type, crop_size, heights, widths):
    np.random.seed(0)
    crop = T.RandomCrop(crop_type, crop_size)
    sizes = [crop.get_crop_size((5, 7)) for _ in range(400)]
    assert {h for h, _ in sizes} == heights and {w for _, w in sizes} == widths


@pytest.mark.parametrize("crop_type", ["absolute", "absolute_range"])
def test_random_crop_larger_than_the_image_takes_all_of_it(crop_type):
    crop = T.RandomCrop(crop_type, (384, 600)).get_transform(blank(30, 40))
    assert (crop.x0, crop.y0, crop.w, crop.h) == (0, 0, 40, 30)


def test_random_crop_of_unknown_type_is_an_error():
    with pytest.raises(AssertionError):
        T.RandomCrop("round", (1, 1))


@pytest.mark.lite
@pytest.mark.parametrize(
    ("crop_type", "crop_size", "message"),
    [
        ("relative", (0.5, 1.5), "fractions"),
        ("relative_range", (0.0, 0.5), "fractions"),
        ("absolute", (0, 5), "positive"),
        ("absolute_range", (600, 384), "smallest, largest"),
    ],
)
def test_random_crop_of_impossible_size_is_an_error(crop_type, crop_size, message):
    with pytest.raises(AssertionError, match=message):
        T.RandomCrop(crop_type, crop_size)


def test_brightness_contrast_and_saturation_by_hand():
    image = np.array([[[10, 20, 30], [50, 60, 70]]], dtype=np.float64)
    brightness = T.RandomBrightness(0.5, 0.5).get_transform(image)
    np.testing.assert_allclose(brightness.apply_image(image), image / 2)
    contrast = T.RandomContrast(0.0, 0.0).get_transform(image)
    np.testing.assert_allclose(contrast.apply_image(image), np.full_like(image, 40))
    saturation = T.RandomSaturation(0.0, 0.0).get_transform(image)
    grey = 0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]
    np.testing.assert_allclose(saturation.apply_image(image), np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize("aug", [T.RandomBrightness, T.RandomContrast, T.RandomSaturation])
def test_colour_augmentations_keep_the_image_at_intensity_1(aug):
    image = random_image(4, 5)
    tfm = aug(1.0, 1.0).get_transform(image)
    np.testing.assert_array_equal(tfm.apply_image(image), image)


def test_saturation_needs_three_channels():
    with pytest.raises(AssertionError):
        T.RandomSaturation(0.5, 1.5).get_transform(random_image(4, 5, channels=1))


def test_all_transforms_of_fvcore_are_exported():
    own = {"CropTransform"}
    assert all(getattr(T, n) is getattr(fvcore, n) for n in fvcore.__all__ if n not in own)
    assert all(issubclass(getattr(T, name), getattr(fvcore, name)) for name in own)


def test_augmentations_apply_to_an_image_or_to_an_input_in_place():
    image = random_image(4, 6)
    flipped, transforms = T.apply_augmentations([T.RandomFlip(prob=1.0)], image)
    np.testing.assert_array_equal(flipped, image[:, ::-1])
    assert isinstance(transforms[0], T.HFlipTransform)

    aug_input = T.AugInput(image, boxes=np.array([[0.0, 0, 2, 4]]))
    same, _ = T.apply_transform_gens([T.HFlipTransform(6)], aug_input)
    assert same is aug_input
    np.testing.assert_array_equal(aug_input.boxes, [[4.0, 0, 6, 4]])


def test_names_of_the_first_releases_stand_for_the_same_classes():
    assert T.TransformGen is T.Augmentation
    assert issubclass(T.StandardAugInput, T.AugInput)


@pytest.mark.lite
def test_crop_gives_fvcores_polygons_and_asks_shapely_only_for_those_that_reach_the_window(
    monkeypatch,
):
    asked = []
    original = fvcore.CropTransform.apply_polygons

    def note(self, polygons):
        asked.extend(polygons)
        return original(self, polygons)

    random = np.random.RandomState(0)
    x0, y0, width, height = 60, 40, 90, 70
    crop = T.RandomCrop("absolute", (height, width))
    assert isinstance(crop.get_transform(np.zeros((200, 200, 3), np.uint8)), T.CropTransform)
    # inside, outside, across, touching the border, crossing themselves
    polygons = [random.randint(0, 20, (random.randint(3, 9), 2)) * 10.0 for _ in range(300)]
    polygons += [random.uniform(0, 40, (5, 2)) + random.uniform(0, 160, 2) for _ in range(300)]
    wanted = fvcore.CropTransform(x0, y0, width, height).apply_polygons(polygons)
    monkeypatch.setattr(fvcore.CropTransform, "apply_polygons", note)
    found = T.CropTransform(x0, y0, width, height).apply_polygons(polygons)
    assert len(found) == len(wanted) > 100
    assert all(map(np.array_equal, found, wanted))
    assert 100 < len(asked) < 450
