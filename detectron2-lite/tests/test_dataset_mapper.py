"""`DatasetMapper` against stored upstream samples, by hand and by its errors."""

import copy
import logging
import pickle
import sys
import zlib

import numpy as np
import pytest
import torch
from golden_data import GOLDEN, load
from PIL import Image

from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode, PolygonMasks

# pycocotools 2.0.11 converts its decoded masks by an interface that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

_, META = load("data")
IMAGES = GOLDEN / "tiny_coco" / "images"
SIZES = META["mapper"]["parameters"]
LSJ = SIZES["lsj"]


class ExtentTransform(T.Transform):
    """Cut a rectangle that may reach out of the image: a transform of a user."""

    def __init__(self, rectangle, output_size):
        self.rectangle = rectangle
        self.output_size = output_size

    def apply_image(self, img):
        height, width = self.output_size
        return np.asarray(
            Image.fromarray(img).transform(
                (width, height),
                Image.Transform.EXTENT,
                data=self.rectangle,
                resample=Image.Resampling.BILINEAR,
            )
        )

    def apply_coords(self, coords):
        (x0, y0, x1, y1), (height, width) = self.rectangle, self.output_size
        return (coords - [x0, y0]) * [width / (x1 - x0), height / (y1 - y0)]


class RandomExtent(T.Augmentation):
    """Cut a window of random scale and place: an augmentation of a user."""

    def __init__(self, scale_range, shift_range):
        self._init(locals())

    def get_transform(self, image):
        height, width = image.shape[:2]
        scale = np.random.uniform(*self.scale_range)
        x = width * (0.5 + self.shift_range[0] * (np.random.rand() - 0.5))
        y = height * (0.5 + self.shift_range[1] * (np.random.rand() - 0.5))
        half_width, half_height = scale * width / 2, scale * height / 2
        rectangle = (x - half_width, y - half_height, x + half_width, y + half_height)
        size = int(rectangle[3] - rectangle[1]), int(rectangle[2] - rectangle[0])
        return ExtentTransform(rectangle, size)


def make_mapper(pipeline: str) -> DatasetMapper:
    """The mapper of a stored pipeline."""
    pre, final, limit = SIZES["pre"], SIZES["final"], SIZES["max_size"]
    resize = T.ResizeShortestEdge(final, sample_style="choice", max_size=limit)
    flip = T.RandomFlip(horizontal=True)
    inner = T.AugmentationList(
        [
            T.ResizeShortestEdge(pre, sample_style="choice"),
            T.RandomCrop("absolute_range", SIZES["crop"]),
        ]
    )
    lsj = [T.ResizeScale(0.1, 2.0, LSJ, LSJ), T.FixedSizeCrop((LSJ, LSJ)), flip]
    masks = {"use_instance_mask": True}
    augmentations, options = {
        "resize_choice": ([resize, flip], masks),
        "resize_range": ([T.ResizeShortestEdge((final[0], final[-1]), max_size=limit)], {}),
        "detr": ([flip, T.RandomApply(inner, prob=0.5), resize], masks),
        "lsj": (lsj, {**masks, "recompute_boxes": True}),
        "lsj_bitmask": (
            lsj,
            {**masks, "recompute_boxes": True, "instance_mask_format": "bitmask"},
        ),
        "lsj_nopad": (
            [T.ResizeScale(0.1, 2.0, LSJ, LSJ + 8), T.FixedSizeCrop((LSJ, LSJ), pad=False)],
            masks,
        ),
        "misc": (
            [
                T.RandomBrightness(0.6, 1.4),
                T.RandomContrast(0.6, 1.4),
                T.RandomSaturation(0.6, 1.4),
                T.RandomFlip(prob=0.7, horizontal=False, vertical=True),
                T.RandomCrop("relative_range", (0.5, 0.6)),
                T.Resize((40, 30)),
                RandomExtent((0.8, 1.2), (0.1, 0.1)),
            ],
            {},
        ),
        "test": ([T.ResizeShortestEdge(final[-1], max_size=limit)], {}),
    }[pipeline]
    return DatasetMapper(
        pipeline != "test", augmentations=augmentations, image_format="RGB", **options
    )


def dataset_dict(file_name: str) -> dict:
    (stored,) = [d for d in META["load_coco_json"]["dicts"] if d["file_name"] == file_name]
    entry = copy.deepcopy(stored)
    entry["file_name"] = str(IMAGES / file_name)
    for annotation in entry["annotations"]:
        annotation["bbox_mode"] = BoxMode.XYWH_ABS
    return entry


def case_name(case: dict) -> str:
    return f"{case['pipeline']}-{case['file']}-{case['seed']}"


def cases(*, with_error: bool) -> list:
    selected = [c for c in META["mapper"]["cases"] if ("error" in c) == with_error]
    return [pytest.param(case, id=case_name(case)) for case in selected]


def run(case: dict) -> dict:
    mapper = make_mapper(case["pipeline"])
    np.random.seed(case["seed"])
    return mapper(dataset_dict(case["file"]))


def flip_mapper(**options) -> DatasetMapper:
    defaults = {"is_train": True, "augmentations": [T.RandomFlip(prob=1.0)], "image_format": "RGB"}
    return DatasetMapper(**{**defaults, **options})


# --- stored upstream samples ----------------------------------------------------------------------


@pytest.mark.parametrize("case", cases(with_error=False))
def test_sample_equals_upstream(case):
    sample = run(case)
    assert np.random.rand() == pytest.approx(case["next_numpy_rand"], abs=1e-12)
    assert sorted(sample) == case["keys"]
    check_image(sample["image"], case)
    if case["pipeline"] != "test":
        check_instances(sample["instances"], case)


def check_image(image: torch.Tensor, case: dict) -> None:
    assert list(image.shape) == case["shape"] and str(image.dtype) == f"torch.{case['dtype']}"
    assert image.is_contiguous()
    slack = 2 if case["file"].endswith("jpg") else 0  # JPEG decoders differ in rounding
    assert abs(float(image.double().mean()) - case["mean"]) <= max(slack, 1e-6)
    _, height, width = image.shape
    places = [(0, 0), (height // 2, width // 3), (height - 1, width - 1)]
    pixels = np.array([image[:, y, x].tolist() for y, x in places])
    np.testing.assert_allclose(pixels, case["pixels"], rtol=0, atol=slack)
    if not slack:
        assert zlib.crc32(image.numpy().tobytes()) == case["crc32"]


def check_instances(instances, case: dict) -> None:
    assert list(instances.image_size) == case["image_size"]
    assert sorted(instances.get_fields()) == case["fields"]
    boxes = np.array(case["boxes"]).reshape(-1, 4)
    np.testing.assert_allclose(instances.gt_boxes.tensor.numpy(), boxes, atol=1e-3, rtol=0)
    assert instances.gt_classes.tolist() == case["classes"]
    if "gt_masks" not in case["fields"]:
        return
    masks = instances.gt_masks
    if isinstance(masks, PolygonMasks):
        np.testing.assert_allclose(masks.area(), case["polygon_areas"], rtol=1e-3)
        masks = BitMasks.from_polygon_masks(masks, *instances.image_size)
    cropped = case["pipeline"] != "resize_choice"
    np.testing.assert_allclose(
        masks.tensor.sum(dim=(1, 2)).numpy(), case["mask_areas"], rtol=0, atol=2 if cropped else 0
    )


@pytest.mark.lite  # upstream raises AttributeError here, as stored
@pytest.mark.parametrize("case", cases(with_error=True))
def test_recomputed_boxes_of_an_image_without_objects_are_empty(case):
    instances = run(case)["instances"]
    assert len(instances) == 0 and instances.gt_boxes.tensor.shape == (0, 4)
    kind = BitMasks if case["pipeline"] == "lsj_bitmask" else PolygonMasks
    assert isinstance(instances.gt_masks, kind) and len(instances.gt_masks) == 0


# --- by hand --------------------------------------------------------------------------------------


def test_mapper_survives_pickling_as_workers_need_it():
    entry = dataset_dict("b_color.png")
    mapper = make_mapper("lsj")
    images = []
    for twin in (mapper, pickle.loads(pickle.dumps(mapper))):
        np.random.seed(0)
        images.append(twin(entry)["image"])
    assert torch.equal(*images)


def test_the_entry_is_not_changed():
    entry = dataset_dict("b_color.png")
    before = copy.deepcopy(entry)
    flip_mapper(use_instance_mask=True)(entry)
    assert entry == before


def test_test_sample_keeps_other_keys_and_original_size():
    entry = {**dataset_dict("b_color.png"), "note": "kept"}
    sample = flip_mapper(is_train=False, augmentations=[T.Resize(32)])(entry)
    assert "annotations" not in sample and "instances" not in sample
    assert (sample["height"], sample["width"], sample["note"]) == (60, 84, "kept")
    assert sample["image"].shape == (3, 32, 32)


def test_training_entry_without_annotations_gets_no_instances():
    entry = dataset_dict("b_color.png")
    del entry["annotations"]
    assert "instances" not in flip_mapper()(entry)


def test_size_missing_from_the_entry_is_filled_in():
    sample = flip_mapper()({"file_name": str(IMAGES / "gray.png")})
    assert (sample["height"], sample["width"]) == (90, 56)


@pytest.mark.parametrize(("image_format", "channels"), [("L", 1), ("BGR", 3)])
def test_image_is_a_contiguous_tensor_in_every_format(image_format, channels):
    sample = flip_mapper(image_format=image_format)({"file_name": str(IMAGES / "gray.png")})
    assert sample["image"].shape == (channels, 90, 56) and sample["image"].is_contiguous()


def test_masks_are_kept_only_where_asked_for():
    entry = dataset_dict("b_color.png")
    assert not flip_mapper()(entry)["instances"].has("gt_masks")
    assert flip_mapper(use_instance_mask=True)(entry)["instances"].has("gt_masks")


def test_instances_outside_the_crop_are_removed():
    entry = dataset_dict("b_color.png")
    inside = flip_mapper(augmentations=[T.CropTransform(0, 40, 84, 20)])(entry)["instances"]
    everywhere = flip_mapper(augmentations=[])(entry)["instances"]
    assert 0 < len(inside) < len(everywhere)


def test_an_image_whose_instances_are_all_outside_the_crop_is_still_returned():
    entry = dataset_dict("gray.png")
    entry["annotations"] = entry["annotations"][:1]
    mapper = flip_mapper(augmentations=[T.CropTransform(40, 50, 10, 10)], use_instance_mask=True)
    assert len(mapper(entry)["instances"]) == 0


def test_recomputed_boxes_surround_the_masks():
    entry = dataset_dict("b_color.png")
    entry["annotations"][0]["bbox"] = [0.0, 0.0, 84.0, 60.0]
    instances = flip_mapper(use_instance_mask=True, recompute_boxes=True)(entry)["instances"]
    expected = instances.gt_masks.get_bounding_boxes().tensor
    assert torch.equal(instances.gt_boxes.tensor, expected)
    assert instances.gt_boxes.tensor[0].tolist() != [0, 0, 84, 60]


@pytest.mark.parametrize(("is_train", "mode"), [(True, "training"), (False, "inference")])
def test_augmentations_are_logged(caplog, monkeypatch, is_train, mode):
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)  # setup_logger stops it
    with caplog.at_level(logging.INFO):
        flip_mapper(is_train=is_train)
    line = f"[DatasetMapper] Augmentations used in {mode}: [RandomFlip(prob=1.0)]"
    assert line in caplog.messages


# --- errors ---------------------------------------------------------------------------------------


def test_recompute_boxes_needs_masks():
    with pytest.raises(AssertionError, match="recompute_boxes|instance masks"):
        flip_mapper(recompute_boxes=True)


@pytest.mark.lite
def test_unknown_mask_format_is_an_error():
    with pytest.raises(ValueError, match="instance_mask_format.*'rle'"):
        flip_mapper(use_instance_mask=True, instance_mask_format="rle")


@pytest.mark.lite
@pytest.mark.parametrize(
    "options",
    [{"use_keypoint": True}, {"keypoint_hflip_indices": [0]}, {"precomputed_proposal_topk": 5}],
)
def test_what_lite_leaves_out_is_an_error_that_says_so(options):
    with pytest.raises(NotImplementedError, match=f"{next(iter(options))}=.*upstream"):
        flip_mapper(**options)


@pytest.mark.lite
@pytest.mark.parametrize(
    "augmentation",
    [
        T.RandomCrop("absolute", (5, 5)),
        T.FixedSizeCrop((5, 5)),
        T.CropTransform(0, 0, 5, 5),
        T.TransformList([T.CropTransform(0, 0, 5, 5)]),
        T.RandomApply(T.AugmentationList([T.RandomFlip(), T.RandomCrop("absolute", (5, 5))])),
    ],
)
def test_cropping_masks_without_shapely_fails_at_construction(monkeypatch, augmentation):
    monkeypatch.setitem(sys.modules, "shapely", None)
    for mask_format in ("polygon", "bitmask"):
        with pytest.raises(ImportError, match="shapely"):
            flip_mapper(
                augmentations=[T.RandomFlip(), augmentation],
                use_instance_mask=True,
                instance_mask_format=mask_format,
            )


@pytest.mark.parametrize(
    "options", [{"use_instance_mask": False}, {"is_train": False}, {"augmentations": [T.Resize(5)]}]
)
def test_shapely_is_not_needed_without_cropped_masks(monkeypatch, options):
    monkeypatch.setitem(sys.modules, "shapely", None)
    flip_mapper(
        **{"augmentations": [T.FixedSizeCrop((5, 5))], "use_instance_mask": True, **options}
    )


def test_size_mismatch_is_an_error():
    with pytest.raises(detection_utils.SizeMismatchError):
        flip_mapper()({**dataset_dict("gray.png"), "height": 91})


@pytest.mark.lite
def test_size_mismatch_error_names_image_and_sizes():
    with pytest.raises(detection_utils.SizeMismatchError, match=r"image 7 .*gray.*\(91, 56\).*90"):
        flip_mapper()({**dataset_dict("gray.png"), "height": 91})


@pytest.mark.lite
def test_missing_file_error_names_image_and_file():
    with pytest.raises(FileNotFoundError, match="image 7 .*lost.png"):
        flip_mapper()({**dataset_dict("gray.png"), "file_name": "/nowhere/lost.png"})


@pytest.mark.lite
def test_corrupt_file_error_names_image_and_file(tmp_path):
    (tmp_path / "half.jpg").write_bytes((IMAGES / "exif6.jpg").read_bytes()[:1500])
    with pytest.raises(OSError, match="image 3 .*half.jpg"):
        flip_mapper()({**dataset_dict("exif6.jpg"), "file_name": str(tmp_path / "half.jpg")})


@pytest.mark.lite
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("segmentation"), r"image 7 .*gray.png.*annotations \[1\] of 2"),
        (lambda a: a.pop("category_id"), "image 7 .*gray.png.*annotation 1 has no 'category_id'"),
        (lambda a: a.pop("bbox"), "image 7 .*gray.png.*has no 'bbox'"),
        (lambda a: a.update(segmentation=7), "image 7 .*gray.png.*int"),
    ],
)
def test_unusable_annotation_error_names_the_image(change, message):
    entry = dataset_dict("gray.png")
    change(entry["annotations"][1])
    with pytest.raises(ValueError, match=message):
        flip_mapper(use_instance_mask=True)(entry)


@pytest.mark.lite
def test_mask_of_wrong_size_error_names_the_image():
    entry = dataset_dict("palette.png")
    entry["annotations"][0]["segmentation"]["size"] = [40, 64]
    with pytest.raises(AssertionError, match="image 5 .*palette.png"):
        flip_mapper(use_instance_mask=True, instance_mask_format="bitmask")(entry)


@pytest.mark.lite
def test_recompute_boxes_without_any_segmentation_names_the_image():
    entry = dataset_dict("gray.png")
    for annotation in entry["annotations"]:
        del annotation["segmentation"]
    with pytest.raises(ValueError, match="image 7 .*recompute_boxes=True needs"):
        flip_mapper(use_instance_mask=True, recompute_boxes=True)(entry)
