"""`detectron2.data.detection_utils` against stored upstream numbers and by hand."""

import zlib
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from golden_data import GOLDEN, assert_array, load
from PIL import Image

from detectron2.data import MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks

# pycocotools 2.0.11 converts its decoded masks by an interface that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ARRAYS, META = load("data")
IMAGES = GOLDEN / "tiny_coco" / "images"
SQUARE = [2.0, 2.0, 8.0, 2.0, 8.0, 6.0, 2.0, 6.0]  # 6 wide, 4 high
# SQUARE in an image of 10 x 12, as runs down the columns: 22 off, 4 on, 6 off, 4 on, ...
RUNS = {"size": [10, 12], "counts": [22] + [4, 6] * 5 + [4, 44]}


def annotation(**changes) -> dict:
    return {
        "bbox": [2.0, 2.0, 6.0, 4.0],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 1,
        "segmentation": [list(SQUARE)],
        **changes,
    }


def rle(height: int = 10, width: int = 12) -> dict:
    mask = np.zeros((height, width), dtype=np.uint8, order="F")
    mask[2:6, 2:8] = 1
    return mask_util.encode(mask)


def save(folder: Path, name: str, array: np.ndarray, **options) -> str:
    Image.fromarray(array).save(folder / name, **options)
    return str(folder / name)


# --- read_image, convert_image_to_rgb, check_image_size -------------------------------------------


@pytest.mark.parametrize("case", META["read_image"])
def test_read_image_equals_upstream(case):
    _, stem, suffix, image_format = case.split(".")
    file_name = f"{stem}.{suffix}"
    expected = META["read_image"][case]
    image = utils.read_image(str(IMAGES / file_name), format=image_format)
    assert list(image.shape) == expected["shape"] and str(image.dtype) == expected["dtype"]
    slack = 2 if file_name.endswith("jpg") else 0  # JPEG decoders differ in rounding
    assert abs(image.mean() - expected["mean"]) <= max(slack, 1e-6)
    np.testing.assert_allclose(image[:4, :5], ARRAYS[f"{case}.corner"], rtol=0, atol=slack)
    if not slack:
        assert zlib.crc32(np.ascontiguousarray(image).tobytes()) == expected["crc32"]


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.T),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].T),
        (8, lambda a: np.rot90(a)),
        (9, lambda a: a),
    ],
)
def test_read_image_applies_every_exif_orientation(tmp_path, orientation, upright):
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, "turned.png", stored, exif=exif)
    np.testing.assert_array_equal(utils.read_image(path), upright(stored))


def test_read_image_ignores_exif_that_cannot_be_read(tmp_path, monkeypatch):
    def broken(self):
        raise SyntaxError("not a TIFF file")

    path = save(tmp_path, "image.png", np.full((2, 3), 7, dtype=np.uint8))
    monkeypatch.setattr(Image.Image, "getexif", broken)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.getexif", broken)
    assert (utils.read_image(path) == 7).all()


def test_read_image_without_format_keeps_the_mode_of_the_file():
    assert utils.read_image(str(IMAGES / "gray.png")).ndim == 2
    assert utils.read_image(str(IMAGES / "b_color.png")).ndim == 3


@pytest.mark.parametrize("image_format", ["RGB", "BGR", "YUV-BT.601"])
def test_convert_image_to_rgb_is_the_inverse_of_reading_in_a_format(image_format):
    path = str(IMAGES / "b_color.png")
    image = utils.read_image(path, format=image_format)
    expected = utils.read_image(path, format="RGB")
    for given in (image, torch.from_numpy(image.copy())):
        rgb = utils.convert_image_to_rgb(given, image_format)
        np.testing.assert_allclose(rgb, expected, atol=0.01)  # upstream rounds the YUV matrix


def test_convert_grey_image_to_rgb_repeats_it():
    grey = utils.read_image(str(IMAGES / "gray.png"), format="L")
    rgb = utils.convert_image_to_rgb(grey, "L")
    np.testing.assert_array_equal(rgb, np.repeat(grey, 3, axis=2))


def test_luma_of_white_is_1_and_its_chroma_0(tmp_path):
    path = save(tmp_path, "white.png", np.full((1, 1, 3), 255, dtype=np.uint8))
    yuv = utils.read_image(path, format="YUV-BT.601")
    np.testing.assert_allclose(yuv, [[[1, 0, 0]]], atol=1e-4)


def test_missing_image_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.png"):
        utils.read_image(str(tmp_path / "nowhere.png"))


@pytest.mark.lite
@pytest.mark.parametrize("name", ["cut.jpg", "cut.png"])
def test_truncated_image_file_is_named(tmp_path, name):
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    path = Path(save(tmp_path, name, noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(OSError, match=name):
        utils.read_image(str(path), format="RGB")


@pytest.mark.lite
def test_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    with pytest.raises(OSError, match="page.jpg.*UnidentifiedImageError"):
        utils.read_image(str(tmp_path / "page.jpg"))


def test_unknown_image_format_is_an_error():
    with pytest.raises(ValueError):
        utils.read_image(str(IMAGES / "gray.png"), format="GBR")


@pytest.mark.lite
def test_error_for_an_unknown_image_format_names_file_and_format():
    with pytest.raises(ValueError, match="gray.png.*'GBR'"):
        utils.read_image(str(IMAGES / "gray.png"), format="GBR")


def test_check_image_size_fills_in_a_missing_size():
    entry = {"file_name": "a.png"}
    utils.check_image_size(entry, np.zeros((3, 4, 3)))
    assert (entry["height"], entry["width"]) == (3, 4)


@pytest.mark.lite
@pytest.mark.parametrize("size", [{"height": 4, "width": 3}, {"width": 5}])
def test_image_of_another_size_than_its_entry_is_an_error(size):
    with pytest.raises(utils.SizeMismatchError) as info:
        utils.check_image_size({"file_name": "a.png", "image_id": 42, **size}, np.zeros((3, 4, 3)))
    assert isinstance(info.value, ValueError) and "a.png" in str(info.value)


# --- the box formats of annotations ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "modes"),
    [
        ("xywh_to_xyxy", (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)),
        ("xyxy_to_xywh", (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)),
    ],
)
def test_box_formats_are_converted_as_upstream(name, modes):
    converted = BoxMode.convert(ARRAYS["boxmode.in"].copy(), *modes)
    assert_array(ARRAYS, f"boxmode.{name}", converted)


def test_box_format_numbers_are_those_of_upstream():
    assert {mode.name: int(mode) for mode in BoxMode} == META["BoxMode_values"]


# --- transform_instance_annotations ---------------------------------------------------------------


def test_box_is_transformed_and_clipped_to_the_image():
    transforms = [T.HFlipTransform(12), T.CropTransform(5, 3, 4, 4)]
    moved = utils.transform_instance_annotations(annotation(), transforms, (4, 4))
    np.testing.assert_allclose(moved["bbox"], [0, 0, 4, 3])  # 4..10, 2..6 before the crop
    assert moved["bbox_mode"] == BoxMode.XYXY_ABS


def test_polygons_are_transformed_and_stay_flat():
    moved = utils.transform_instance_annotations(annotation(), T.HFlipTransform(12), (10, 12))
    (polygon,) = moved["segmentation"]
    np.testing.assert_allclose(polygon, [10, 2, 4, 2, 4, 6, 10, 6])


def test_rle_of_many_runs_is_decoded():
    random = np.random.RandomState(0)
    for height, width in random.randint(1, 60, (50, 2)).tolist():
        expected = (random.rand(height, width) < random.rand()).astype(np.uint8)
        segmentation = mask_util.encode(np.asfortranarray(expected))
        transformed = utils.transform_instance_annotations(
            annotation(segmentation=segmentation), T.NoOpTransform(), (height, width)
        )
        np.testing.assert_array_equal(transformed["segmentation"], expected)


@pytest.mark.parametrize("segmentation", [rle(), pytest.param(RUNS, marks=pytest.mark.lite)])
def test_rle_becomes_a_transformed_mask(segmentation):
    moved = utils.transform_instance_annotations(
        annotation(segmentation=segmentation), T.VFlipTransform(10), (10, 12)
    )
    expected = np.zeros((10, 12))
    expected[4:8, 2:8] = 1
    np.testing.assert_array_equal(moved["segmentation"], expected)


@pytest.mark.lite  # upstream writes scaled coordinates back into integer arrays
def test_integer_annotations_are_not_truncated():
    given = annotation(bbox=[11, 21, 20, 20], segmentation=[[11, 21, 31, 21, 31, 41]])
    moved = utils.transform_instance_annotations(given, T.ResizeTransform(50, 50, 25, 25), (25, 25))
    np.testing.assert_allclose(moved["bbox"], [5.5, 10.5, 15.5, 20.5])
    np.testing.assert_allclose(moved["segmentation"][0], [5.5, 10.5, 15.5, 10.5, 15.5, 20.5])


@pytest.mark.lite  # upstream transforms arrays of the caller in place
def test_arrays_of_the_caller_are_not_written_to():
    polygon, box = np.array(SQUARE), np.array([2.0, 2.0, 8.0, 6.0])
    given = annotation(bbox=box, bbox_mode=BoxMode.XYXY_ABS, segmentation=[polygon])
    utils.transform_instance_annotations(given, T.HFlipTransform(12), (10, 12))
    np.testing.assert_array_equal(polygon, SQUARE)
    np.testing.assert_array_equal(box, [2, 2, 8, 6])


def test_mask_of_another_size_than_its_image_is_an_error():
    with pytest.raises(AssertionError):
        utils.transform_instance_annotations(
            annotation(segmentation=rle(10, 13)), T.NoOpTransform(), (10, 12)
        )


@pytest.mark.parametrize("segmentation", [None, "polygon", 3])
def test_segmentation_of_unknown_type_is_an_error(segmentation):
    with pytest.raises(ValueError, match=type(segmentation).__name__):
        utils.transform_instance_annotations(
            annotation(segmentation=segmentation), T.NoOpTransform(), (10, 12)
        )


@pytest.mark.parametrize("polygon", [[1.0, 2, 3, 4, 5], [[1.0, 2], [3, 4], [5, 6]]])
@pytest.mark.lite
def test_polygon_that_is_not_a_flat_list_of_points_is_an_error(polygon):
    with pytest.raises(ValueError, match="flat list.*three points"):
        utils.transform_instance_annotations(
            annotation(segmentation=[polygon]), T.NoOpTransform(), (10, 12)
        )


@pytest.mark.lite
@pytest.mark.parametrize("key", ["bbox", "bbox_mode"])
def test_annotation_without_box_is_an_error_that_names_the_key(key):
    given = annotation()
    del given[key]
    with pytest.raises(ValueError, match=f"has no '{key}'"):
        utils.transform_instance_annotations(given, T.NoOpTransform(), (10, 12))


@pytest.mark.lite
def test_box_of_other_than_four_numbers_is_an_error():
    given = annotation(bbox=[1.0, 2.0, 3.0, 4.0, 5.0], bbox_mode=BoxMode.XYXY_ABS)
    with pytest.raises(ValueError, match="four numbers"):
        utils.transform_instance_annotations(given, T.NoOpTransform(), (10, 12))


@pytest.mark.lite
def test_keypoints_are_removed_and_their_flip_order_refused():
    moved = utils.transform_instance_annotations(
        annotation(keypoints=[1, 2, 2]), T.NoOpTransform(), (10, 12)
    )
    assert "keypoints" not in moved
    with pytest.raises(NotImplementedError, match="keypoint_hflip_indices"):
        utils.transform_instance_annotations(
            annotation(), T.NoOpTransform(), (10, 12), keypoint_hflip_indices=[0]
        )


# --- annotations_to_instances, filter_empty_instances ---------------------------------------------


def test_annotations_become_boxes_classes_and_polygons():
    instances = utils.annotations_to_instances([annotation(), annotation(category_id=3)], (10, 12))
    assert instances.image_size == (10, 12)
    assert instances.gt_boxes.tensor.tolist() == [[2, 2, 8, 6]] * 2
    assert instances.gt_boxes.tensor.dtype == torch.float32
    assert instances.gt_classes.tolist() == [1, 3] and instances.gt_classes.dtype == torch.int64
    assert isinstance(instances.gt_masks, PolygonMasks)
    assert instances.gt_masks.area().tolist() == [24, 24]


def test_polygons_rle_and_arrays_become_equal_bitmasks():
    array = mask_util.decode(rle())
    annos = [annotation(), annotation(segmentation=rle()), annotation(segmentation=array)]
    masks = utils.annotations_to_instances(annos, (10, 12), mask_format="bitmask").gt_masks
    assert isinstance(masks, BitMasks) and masks.tensor.dtype == torch.bool
    for mask in masks.tensor:
        np.testing.assert_array_equal(mask.numpy(), array)


@pytest.mark.lite
def test_uncompressed_rle_is_decoded():
    annos = [annotation(segmentation=RUNS)]
    masks = utils.annotations_to_instances(annos, (10, 12), mask_format="bitmask").gt_masks
    np.testing.assert_array_equal(masks.tensor[0].numpy(), mask_util.decode(rle()))


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_no_annotations_give_empty_boxes_and_no_masks(mask_format):
    instances = utils.annotations_to_instances([], (10, 12), mask_format=mask_format)
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_classes.shape == (0,) and instances.gt_classes.dtype == torch.int64
    assert not instances.has("gt_masks")


def test_annotations_without_segmentation_give_no_masks():
    given = annotation()
    del given["segmentation"]
    assert not utils.annotations_to_instances([given], (10, 12)).has("gt_masks")


@pytest.mark.lite
@pytest.mark.parametrize("bare", [0, 1])
def test_segmentation_in_only_some_annotations_is_an_error(bare):
    annos = [annotation(), annotation()]
    del annos[bare]["segmentation"]
    with pytest.raises(ValueError, match=rf"annotations \[{bare}\] of 2"):
        utils.annotations_to_instances(annos, (10, 12))


@pytest.mark.lite
def test_annotation_without_category_is_an_error_that_names_it():
    given = annotation()
    del given["category_id"]
    with pytest.raises(ValueError, match="annotation 1 has no 'category_id'"):
        utils.annotations_to_instances([annotation(), given], (10, 12))


def test_rle_with_polygon_format_is_an_error():
    with pytest.raises(ValueError):
        utils.annotations_to_instances([annotation(segmentation=rle())], (10, 12))


@pytest.mark.lite
def test_error_for_rle_with_polygon_format_says_what_to_do():
    with pytest.raises(ValueError, match="annotation 0.*instance_mask_format='bitmask'"):
        utils.annotations_to_instances([annotation(segmentation=rle())], (10, 12))


@pytest.mark.parametrize("segmentation", ["mask", np.zeros((1, 10, 12), dtype=np.uint8)])
def test_mask_of_unknown_type_with_bitmask_format_is_an_error(segmentation):
    with pytest.raises((ValueError, AssertionError)):
        utils.annotations_to_instances(
            [annotation(segmentation=segmentation)], (10, 12), mask_format="bitmask"
        )


@pytest.mark.lite
def test_bitmask_of_another_size_than_the_image_is_an_error():
    given = annotation(segmentation=np.zeros((5, 5), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"annotation 0.*\(10, 12\).*\(5, 5\)"):
        utils.annotations_to_instances([given], (10, 12), mask_format="bitmask")


@pytest.mark.lite  # upstream takes everything else for "bitmask"
def test_unknown_mask_format_is_an_error():
    with pytest.raises(ValueError, match="'rle'"):
        utils.annotations_to_instances([annotation()], (10, 12), mask_format="rle")


def three_instances() -> Instances:
    """A good one, one with a flat box, one without polygon."""
    instances = Instances((10, 12))
    instances.gt_boxes = Boxes([[2, 2, 8, 6], [2, 2, 8, 2], [1, 1, 5, 5]])
    instances.gt_masks = PolygonMasks([[np.array(SQUARE)], [np.array(SQUARE)], []])
    return instances


@pytest.mark.parametrize(
    ("criteria", "kept"),
    [
        ({}, [True, False, False]),
        ({"by_mask": False}, [True, False, True]),
        ({"by_box": False}, [True, True, False]),
        ({"by_mask": False, "box_threshold": 4}, [False, False, False]),
    ],
)
def test_filter_empty_instances(criteria, kept):
    left, mask = utils.filter_empty_instances(three_instances(), **criteria, return_mask=True)
    assert mask.tolist() == kept and len(left) == sum(kept)
    assert len(utils.filter_empty_instances(three_instances(), **criteria)) == sum(kept)


def test_filter_without_criterion_is_an_error():
    with pytest.raises(AssertionError):
        utils.filter_empty_instances(three_instances(), by_box=False, by_mask=False)


# --- get_fed_loss_cls_weights ---------------------------------------------------------------------


@pytest.fixture
def counted_dataset():
    name = "fed_loss_test"
    MetadataCatalog.get(name).class_image_count = [
        {"id": 2, "image_count": 9},
        {"id": 1, "image_count": 4},
    ]
    yield name
    MetadataCatalog.remove(name)


def test_federated_loss_weights_are_image_counts_in_the_order_of_ids(counted_dataset):
    assert utils.get_fed_loss_cls_weights(counted_dataset).tolist() == [4, 9]
    assert utils.get_fed_loss_cls_weights([counted_dataset], 0.5).tolist() == [2, 3]


@pytest.mark.lite
def test_federated_loss_weights_without_counts_are_an_error(counted_dataset):
    with pytest.raises(ValueError, match="no_counts"):
        utils.get_fed_loss_cls_weights([counted_dataset, "no_counts"])
    MetadataCatalog.remove("no_counts")
