"""What happens with each kind of damaged data: an error that names it, or the right sample."""

import itertools
import json
import logging
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    MetadataCatalog,
    build_detection_train_loader,
    detection_utils,
    get_detection_dataset_dicts,
)
from detectron2.data import transforms as T
from detectron2.data.datasets import load_coco_json, register_coco_instances
from detectron2.structures import BoxMode

# pycocotools 2.0.11 converts its decoded masks by an interface that numpy 2 deprecates.
pytestmark = [
    pytest.mark.lite,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

HEIGHT, WIDTH = 8, 10
TRIANGLE = [1, 1, 5, 1, 5, 5]
RED = np.broadcast_to(np.uint8([200, 30, 60]), (HEIGHT, WIDTH, 3))


@pytest.fixture
def log(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
    caplog.set_level(logging.INFO, "detectron2")
    return caplog


def save(path: Path, pixels: np.ndarray = RED, mode: str | None = None, **options) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def entry(path: Path, **values) -> dict:
    """The dataset dict of an image with one good annotation."""
    default = {"file_name": str(path), "image_id": 139, "height": HEIGHT, "width": WIDTH}
    return default | {"annotations": [annotation()]} | values


def annotation(**values) -> dict:
    default = {"bbox": [1, 1, 4, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    return default | {"segmentation": [TRIANGLE]} | values


def mapper(*augmentations, **options) -> DatasetMapper:
    options = {"use_instance_mask": True, "instance_mask_format": "bitmask"} | options
    return DatasetMapper(True, augmentations=augmentations, image_format="RGB", **options)


def fails(record: dict, message: str, error: type = ValueError) -> None:
    """Check that a mapper fails with an error that names image and file."""
    name = f"image 139 ({record['file_name']})"
    with pytest.raises(error, match=f"^{re.escape(name)}: .*{message}"):
        mapper(T.RandomFlip(prob=1.0))(record)


def fails_at_annotation(path: Path, message: str, error: type = ValueError, **values) -> None:
    """Check that the second of two annotations is the one that the error names."""
    record = entry(save(path), annotations=[annotation(), annotation(**values)])
    fails(record, f"annotation 1: .*{message}", error)


# Images


@pytest.mark.parametrize("name", ["cut.jpg", "cut.png"])
def test_truncated_image_is_an_error(tmp_path, name):
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    path = save(tmp_path / name, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    fails(entry(path), "must be a complete image file", OSError)


def test_empty_image_file_is_an_error(tmp_path):
    (tmp_path / "empty.jpg").touch()
    fails(entry(tmp_path / "empty.jpg"), "must be a complete image file", OSError)


def test_missing_image_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="image 139 .*none.jpg.*must exist"):
        mapper()(entry(tmp_path / "none.jpg"))


def test_cmyk_image_becomes_rgb(tmp_path):
    path = save(tmp_path / "a.jpg", mode="CMYK", quality=100)
    image = mapper()(entry(path))["image"].numpy()
    assert np.abs(image.transpose(1, 2, 0).astype(int) - RED).max() < 6  # JPEG


@pytest.mark.parametrize("dtype, suffix", [(np.uint16, "png"), (np.int32, "tif")])
def test_grey_values_beyond_8_bits_are_an_error(tmp_path, dtype, suffix):
    path = save(tmp_path / f"deep.{suffix}", np.full((HEIGHT, WIDTH), 40000, dtype=dtype))
    fails(entry(path), r"must have values in \[0, 255\] for format 'RGB', got 40000 to 40000")


def test_floating_point_image_with_nan_is_an_error(tmp_path):
    path = save(tmp_path / "nan.tif", np.full((HEIGHT, WIDTH), np.nan, dtype=np.float32))
    fails(entry(path), r"must have values in \[0, 255\]")


def test_8_bit_values_in_a_16_bit_file_are_kept(tmp_path):
    path = save(tmp_path / "deep.png", np.full((HEIGHT, WIDTH), 200, dtype=np.uint16))
    assert (mapper()(entry(path))["image"] == 200).all()


def test_16_bit_image_can_be_read_as_it_is(tmp_path):
    path = save(tmp_path / "deep.png", np.full((HEIGHT, WIDTH), 40000, dtype=np.uint16))
    assert (detection_utils.read_image(str(path)) == 40000).all()
    assert (detection_utils.read_image(str(path), format="I") == 40000).all()


@pytest.mark.parametrize("options", [{}, {"transparency": bytes([0, 128])}, {"transparency": 0}])
def test_palette_image_has_the_colours_of_its_palette(tmp_path, options):
    image = Image.new("P", (WIDTH, HEIGHT), 1)
    image.putpalette([0, 0, 0, 200, 30, 60])
    image.save(tmp_path / "palette.png", **options)
    pixels = mapper()(entry(tmp_path / "palette.png"))["image"].numpy()
    assert (pixels.transpose(1, 2, 0) == RED).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_left_out_and_colours_stay(tmp_path, mode):
    image = Image.fromarray(RED).convert(mode)
    image.putalpha(0)
    image.save(tmp_path / "alpha.png")
    pixels = mapper()(entry(tmp_path / "alpha.png"))["image"].numpy().transpose(1, 2, 0)
    expected = RED if mode == "RGBA" else np.asarray(Image.fromarray(RED).convert("L"))[..., None]
    assert (pixels == expected).all()


def test_image_of_one_pixel_is_a_sample(tmp_path):
    record = entry(save(tmp_path / "one.png", RED[:1, :1]), height=1, width=1)
    record["annotations"] = [annotation(bbox=[0, 0, 1, 1], segmentation=[[0, 0, 1, 0, 1, 1, 0, 1]])]
    sample = mapper(T.ResizeShortestEdge(16, max_size=32), T.RandomFlip(prob=1.0))(record)
    assert sample["image"].shape == (3, 16, 16)
    assert sample["instances"].gt_boxes.tensor.tolist() == [[0, 0, 16, 16]]
    assert sample["instances"].gt_masks.tensor.all()


def test_decompression_bomb_is_an_error(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
    fails(entry(path), "twice PIL.Image.MAX_IMAGE_PIXELS.*If it is genuine", OSError)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_is_turned_upright_by_its_exif_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    path = save(tmp_path / "turned.jpg", exif=exif)
    lying = orientation >= 5
    record = entry(path, annotations=[])
    upright = {"height": WIDTH, "width": HEIGHT} if lying else {}
    assert mapper()(record | upright)["image"].shape[1:] == ((10, 8) if lying else (8, 10))
    if lying:
        message = r"image 139 .*turned.jpg.*\(8, 10\).*has \(10, 8\).*EXIF orientation"
        with pytest.raises(detection_utils.SizeMismatchError, match=message):
            mapper()(record)


def test_size_that_does_not_match_is_an_error(tmp_path):
    path = save(tmp_path / "a.png")
    with pytest.raises(
        detection_utils.SizeMismatchError, match=r"image 139 .*\(9, 10\).*\(8, 10\)"
    ):
        mapper()(entry(path, height=9))


# Boxes and masks


@pytest.mark.parametrize(
    "values, message",
    [
        ({"bbox": [5, 1, -4, 4]}, r"width and height are at least 0, got \[5, 1, -4, 4\]"),
        ({"bbox": [5, 1, 4, 0], "bbox_mode": BoxMode.XYXY_ABS}, "width and height are at least 0"),
        ({"bbox": [1, float("nan"), 4, 4]}, r"finite numbers, got \[1, nan, 4, 4\]"),
        ({"bbox": [1, 1, float("inf"), 4]}, "finite numbers"),
        ({"bbox": [1, 1, None, 4]}, "finite numbers"),
        ({"bbox": ["1", "x", 4, 4]}, "finite numbers, got .*'x'"),
        ({"segmentation": [TRIANGLE[:5]]}, "at least three points"),
        ({"segmentation": [TRIANGLE[:4]]}, "at least three points"),
        ({"segmentation": [[*TRIANGLE[:5], float("nan")]]}, "finite coordinates"),
        ({"segmentation": {"size": [8, 10], "counts": [10, 5]}}, "sum to 80, got .* in sum 15"),
        ({"segmentation": {"size": [8, 10], "counts": [10, 90]}}, "sum to 80, got .* in sum 100"),
        ({"segmentation": {"size": [8, 10], "counts": [9, -1, 72]}}, "must be at least 0"),
        ({"segmentation": {"size": [8, 10], "counts": []}}, r"sum to 80, got \[\], in sum 0"),
        ({"segmentation": {"size": [8, 10], "counts": [2**62] * 4 + [80]}}, "sum to 80"),
        ({"segmentation": {"size": [8, 10], "counts": [2**70]}}, "sum to 80"),
        ({"segmentation": {"size": [8, 10], "counts": None}}, "sum to 80"),
        ({"segmentation": {"size": [8, 10], "counts": "abc"}}, "sum to 80"),
        ({"segmentation": {"size": [8, 10], "counts": b""}}, "sum to 80"),
        ({"segmentation": {"size": [8, 10]}}, r"needs the keys .*got \['size'\]"),
    ],
)
def test_damaged_annotation_is_an_error(tmp_path, values, message):
    fails_at_annotation(tmp_path / "a.png", message, **values)


def test_rle_of_another_size_is_an_error_even_if_a_crop_makes_it_fit(tmp_path):
    segmentation = {"size": [16, 20], "counts": [320]}
    record = entry(save(tmp_path / "a.png"), annotations=[annotation(segmentation=segmentation)])
    with pytest.raises(AssertionError, match=r"image 139 .*annotation 0: .*\(8, 10\).*\[16, 20\]"):
        mapper(T.CropTransform(0, 0, 4, 4))(record)


@pytest.mark.parametrize(
    "runs", [[80], [3, 2, 75], [0, 80], [5, 1, 9, 1, 9, 30, 20, 5], [70, 10, 0]]
)
def test_complete_rle_is_decoded_from_a_list_and_from_text(tmp_path, runs):
    text = mask_util.frPyObjects({"size": [8, 10], "counts": runs}, 8, 10)["counts"]
    expected = np.repeat(np.arange(len(runs)) % 2, runs).reshape(10, 8).T
    for counts in (runs, text, text.decode()):
        both = [annotation(segmentation={"size": [8, 10], "counts": c}) for c in (counts, [0, 80])]
        sample = mapper()(entry(save(tmp_path / "a.png"), annotations=both))
        masks = sample["instances"].gt_masks.tensor.numpy()
        if expected.any():
            assert (masks[0] == expected).all()
        assert len(masks) == 1 + expected.any()


@pytest.mark.parametrize("box", [[1, 1, 0, 4], [1, 1, 4, 0], [20, 1, 4, 4], [-9, 1, 4, 4]])
def test_box_without_area_in_the_image_is_no_target(tmp_path, box):
    record = entry(save(tmp_path / "a.png"), annotations=[annotation(), annotation(bbox=box)])
    instances = mapper(T.RandomFlip(prob=1.0))(record)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[5, 1, 9, 5]]


# Annotation files


@pytest.fixture
def load(tmp_path):
    def load(**changes) -> list[dict]:
        image = {"id": 139, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}
        values = {"id": 7, "image_id": 139, "iscrowd": 0, "category_id": 1, "bbox": [1, 1, 4, 4]}
        content = {
            "images": [image],
            "annotations": [values | {"segmentation": [TRIANGLE]}],
            "categories": [{"id": 1, "name": "cat"}],
        }
        for key, change in changes.items():
            content[key] = change(content[key])
        (tmp_path / "gt.json").write_text(json.dumps(content))
        try:
            return load_coco_json(str(tmp_path / "gt.json"), "", "bad_set")
        finally:
            MetadataCatalog.pop("bad_set", None)

    return load


def test_short_and_odd_polygons_are_left_out_and_their_annotations_named(load, log):
    def annotations(old):
        odd = old[0] | {"id": 8, "segmentation": [TRIANGLE[:5]]}
        short = old[0] | {"id": 9, "segmentation": [TRIANGLE[:4]]}
        partly = old[0] | {"id": 10, "segmentation": [TRIANGLE[:4], TRIANGLE]}
        return [*old, odd, short, partly]

    (record,) = load(annotations=annotations)
    assert [a["segmentation"] for a in record["annotations"]] == [[TRIANGLE], [TRIANGLE]]
    assert "Left out 2 annotations of" in log.text and "gt.json" in log.text
    assert "three points: 8, 9" in log.text


@pytest.mark.parametrize("counts", [[9, -1, 72], [9, "x"]])
def test_run_lengths_that_cannot_be_compressed_are_an_error(load, counts):
    segmentation = {"size": [8, 10], "counts": counts}
    with pytest.raises(ValueError, match="annotation 7 of image 139 in .*gt.json.*counts must be"):
        load(annotations=lambda old: [old[0] | {"segmentation": segmentation}])


def test_repeated_annotation_id_is_an_error(load):
    with pytest.raises(
        AssertionError, match="gt.json uses id 7 again: in image 139 and in image 1"
    ):
        load(annotations=lambda old: [*old, *old])


def test_category_out_of_range_is_an_error(load):
    message = "annotation 7 of image 139 in .*gt.json has category_id 2"
    with pytest.raises(KeyError, match=message):
        load(annotations=lambda old: [old[0] | {"category_id": 2}])


def test_category_out_of_range_of_other_loaders_is_an_error(tmp_path):
    records = [entry(tmp_path / "a.png", annotations=[annotation(), annotation(category_id=2)])]
    DatasetCatalog.register("bad_set", lambda: records)
    MetadataCatalog.get("bad_set").thing_classes = ["cat", "dog"]
    try:
        message = r"must be in \[0, 2\), got 2 in annotation 1 of image 139 \(.*a.png\)"
        with pytest.raises(AssertionError, match=message):
            get_detection_dataset_dicts("bad_set")
    finally:
        DatasetCatalog.pop("bad_set")
        MetadataCatalog.pop("bad_set")


def test_image_listed_twice_is_used_once_with_a_warning(load, log):
    assert len(load(images=lambda old: [*old, *old])) == 1
    assert "gt.json lists image 139 again" in log.text


def test_two_images_with_one_id_are_an_error(load):
    with pytest.raises(ValueError, match="gt.json uses id 139 for two different.*a.png.*b.png"):
        load(images=lambda old: [*old, old[0] | {"file_name": "b.png"}])


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "gt.json is not valid JSON"),
        ("{}", "gt.json must hold a JSON object with a list 'images'"),
        ("[]", "gt.json must hold a JSON object with a list 'images'"),
    ],
)
def test_empty_annotation_file_is_an_error(tmp_path, text, message):
    (tmp_path / "gt.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_coco_json(str(tmp_path / "gt.json"), "")


def test_annotation_file_without_images_is_an_error(tmp_path):
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "gt.json").write_text(json.dumps(content))
    register_coco_instances("bad_set", {}, str(tmp_path / "gt.json"), "")
    try:
        with pytest.raises(AssertionError, match="'bad_set' is empty: .*gt.json"):
            get_detection_dataset_dicts("bad_set")
    finally:
        DatasetCatalog.pop("bad_set")
        MetadataCatalog.pop("bad_set")


# Policies


@pytest.fixture
def records(tmp_path):
    """Four images, of which the second is cut short and the third has a bad annotation."""
    records = [entry(save(tmp_path / f"{i}.png"), image_id=i) for i in range(4)]
    Path(records[1]["file_name"]).write_bytes(b"")
    records[2]["annotations"][0]["bbox"] = [1, 1, -1, 4]
    return records


def take(records: list[dict], function, count: int, **options) -> list[int]:
    loader = build_detection_train_loader(records, mapper=function, total_batch_size=2, **options)
    return [sample["image_id"] for batch in itertools.islice(loader, count) for sample in batch]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_sample_ends_the_run_by_default(records, workers):
    with pytest.raises((OSError, ValueError), match=r"image [12] \(.*[12].png\)"):
        take(records, mapper(), 4, num_workers=workers)


def test_bad_samples_are_skipped_on_request_and_logged_once(records, log):
    from detectron2.data import SkipBadSamples

    policy = SkipBadSamples(mapper(), max_skipped=2)
    assert set(take(records, policy, 8)) == {0, 3}
    assert len(policy.skipped) == 2
    lines = [r.getMessage() for r in log.records if r.name == "detectron2.data.bad_samples"]
    assert len(lines) == 2 and all(r.levelname == "WARNING" for r in log.records[-1:])
    assert {line.partition(":")[0] for line in lines} == {
        "Left out bad sample 1 of at most 2 in this process",
        "Left out bad sample 2 of at most 2 in this process",
    }
    (cut,) = [line for line in lines if "1.png" in line]
    (box,) = [line for line in lines if "2.png" in line]
    assert "image 1 (" in cut and "must be a complete image file" in cut
    assert "image 2 (" in box and "annotation 0: annotation must have a bbox" in box


def test_one_bad_sample_too_many_ends_the_run(records):
    from detectron2.data import SkipBadSamples

    message = r"more than max_skipped=1 samples are bad, the last one is image [12] \("
    with pytest.raises(RuntimeError, match=message):
        take(records, SkipBadSamples(mapper(), max_skipped=1), 8)


def test_a_mistake_in_the_code_is_not_a_bad_sample(records):
    from detectron2.data import SkipBadSamples

    with pytest.raises(ZeroDivisionError):
        SkipBadSamples(lambda record: 1 / 0)(records[0])


def test_messages_of_other_mappers_get_the_name_of_the_image(records, log):
    from detectron2.data import SkipBadSamples

    def other(record):
        raise ValueError("no")

    assert SkipBadSamples(other)(records[3]) is None
    assert f"image 3 ({records[3]['file_name']}): no" in log.text


def test_skipping_is_refused_for_inference_and_below_zero():
    from detectron2.data import SkipBadSamples

    inference = DatasetMapper(False, augmentations=[], image_format="RGB")
    with pytest.raises(ValueError, match="is for training.*is_train=False"):
        SkipBadSamples(inference)
    with pytest.raises(ValueError, match="max_skipped must be at least 0, got -1"):
        SkipBadSamples(mapper(), max_skipped=-1)
