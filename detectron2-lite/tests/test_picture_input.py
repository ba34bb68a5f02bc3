"""`PictureInput` and `DatasetMapper` against arrays all the way, bit by bit."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

pytestmark = [
    pytest.mark.lite,
    # fvcore's vertical flip of an array that Pillow has made, as in upstream Detectron2
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
]
picture_input = pytest.importorskip("detectron2.data.picture_input")

HEIGHT, WIDTH = 45, 64
MODES = ["RGB", "L", "RGBA", "LA", "P", "CMYK", "I;16", "1"]
BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
INTERPS = [BILINEAR, "fast_bilinear", BICUBIC, Image.Resampling.NEAREST]
FORMATS = ["RGB", "BGR", "L", None, "YUV-BT.601", "RGBA"]
NOT_OF_8_BITS = [("I;16", None), ("1", None)]
CASES = [case for case in itertools.product(MODES, FORMATS) if case not in NOT_OF_8_BITS]


class Halved(T.ResizeTransform):
    """A user's transform, which is not what its base class is."""

    def apply_image(self, img, interp=None):
        return img[::2, ::2]


class ByPixels(T.RandomFlip):
    """A user's augmentation, which looks at pixels while its base class does not."""

    def get_transform(self, image):
        return T.HFlipTransform(image.shape[1]) if image.mean() > 100 else T.NoOpTransform()


def picture(seed: int, mode: str) -> Image.Image:
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 256, (6, 8, 4), dtype=np.uint8)
    rgba = Image.fromarray(coarse).resize((WIDTH, HEIGHT), BICUBIC)
    if mode == "I;16":
        return Image.fromarray(np.asarray(rgba.convert("L")).astype(np.uint16))
    return rgba if mode == "RGBA" else rgba.convert("RGB").convert(mode)


def write(folder: Path, seed: int, mode: str, orientation: int = 1) -> str:
    """An image file; JPEG where the mode allows it, so that it has an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = folder / f"{seed}.{'jpg' if mode in ('RGB', 'L', 'CMYK') else 'png'}"
    picture(seed, mode).save(path, exif=exif)
    return str(path)


def augmentations(interp: int | str) -> list[T.Augmentation | T.Transform]:
    """Each class of this package that changes pixels; which of them act is drawn."""
    fit = [T.ResizeShortestEdge((30, 70), 90, interp=interp), T.RandomCrop("relative", (0.7, 0.8))]
    fixed = [T.ResizeScale(0.3, 2.0, 50, 40, interp=interp), T.FixedSizeCrop((48, 40))]
    unpadded = T.FixedSizeCrop((35, 38), pad=False)
    rest = [T.RandomBrightness(0.5, 1.5), T.RandomContrast(0.5, 1.5), unpadded]
    return [
        T.RandomFlip(),
        T.RandomApply(T.AugmentationList(fit)),
        T.RandomFlip(horizontal=False, vertical=True),
        T.RandomApply(ByPixels()),
        T.RandomApply(T.AugmentationList(fixed)),
        *map(T.RandomApply, rest),
        T.RandomResize([(20, 30), (33, 31)], interp),
    ]


def plainly(seed: int, array: np.ndarray, augs: list, **data: np.ndarray) -> tuple:
    """Augment an array: the input and the transforms."""
    np.random.seed(seed)
    given = T.AugInput(array, **data)
    return given, given.apply_augmentations(augs)


@pytest.mark.parametrize(("mode", "image_format"), CASES)
def test_pixels_and_labels_equal_those_of_arrays(tmp_path, mode, image_format):
    for seed in range(12):
        augs = augmentations(INTERPS[seed % 4])
        name = write(tmp_path, seed, mode, orientation=1 + seed % 8)
        array = utils.read_image(name, image_format)
        labels = np.random.RandomState(seed).randint(0, 9, array.shape[:2]).astype(np.uint8)
        expected, transforms = plainly(seed, array, augs, sem_seg=labels)
        np.random.seed(seed)
        given = picture_input.PictureInput(
            utils.read_picture(name, image_format), image_format, sem_seg=labels
        )
        assert str(given.apply_augmentations(augs)) == str(transforms)
        channels_first = given.channels_first()
        assert given.canvas.shape == expected.image.shape
        assert given.image.dtype == channels_first.dtype == expected.image.dtype
        np.testing.assert_array_equal(given.image, expected.image)
        planes = np.atleast_3d(expected.image).transpose(2, 0, 1)
        np.testing.assert_array_equal(channels_first, planes)
        assert channels_first.flags.c_contiguous and channels_first.flags.writeable
        np.testing.assert_array_equal(given.sem_seg, expected.sem_seg)


def entry(folder: Path, seed: int, mode: str, orientation: int) -> dict:
    random = np.random.RandomState(seed)
    name = write(folder, seed, mode, orientation)
    height, width = utils.read_image(name, "RGB").shape[:2]
    annotations = []
    for _ in range(6):
        corners = random.uniform(0, [width, height], (2, 2))
        x0, y0, x1, y1 = [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()]
        pieces = [random.uniform([x0, y0], [x1, y1], (n, 2)) for n in random.randint(3, 9, 2)]
        annotations.append(
            {
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": int(random.randint(5)),
                "iscrowd": int(random.rand() < 0.1),
                "segmentation": [points.reshape(-1).tolist() for points in pieces],
            }
        )
    return {"file_name": name, "height": height, "width": width, "annotations": annotations}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("mode", "image_format"), [("RGB", "RGB"), ("CMYK", "BGR"), ("P", "L")])
def test_samples_equal_those_of_the_steps_one_by_one(tmp_path, mode, image_format, orientation):
    augs = augmentations(BILINEAR)
    mapper = DatasetMapper(
        True, augmentations=augs, image_format=image_format, use_instance_mask=True
    )
    for seed in range(15):
        record = entry(tmp_path, seed, mode, orientation)
        given, transforms = plainly(seed, utils.read_image(record["file_name"], image_format), augs)
        size = given.image.shape[:2]
        annotations = [
            utils.transform_instance_annotations(dict(annotation), transforms, size)
            for annotation in record["annotations"]
            if not annotation["iscrowd"]
        ]
        expected = utils.filter_empty_instances(utils.annotations_to_instances(annotations, size))
        np.random.seed(seed)
        sample = mapper(record)
        planes = np.atleast_3d(given.image).transpose(2, 0, 1)
        assert torch.equal(sample["image"], torch.from_numpy(planes.copy()))
        found = sample["instances"]
        assert found.image_size == size and len(found) == len(expected)
        assert torch.equal(found.gt_boxes.tensor, expected.gt_boxes.tensor)
        assert torch.equal(found.gt_classes, expected.gt_classes)
        for ours, plain in zip(found.gt_masks, expected.gt_masks, strict=True):
            assert len(ours) == len(plain) and all(map(np.array_equal, ours, plain))


def test_pixels_stay_with_pillow_where_nobody_looks_at_them(tmp_path, monkeypatch):
    def refuse(*args):
        raise AssertionError("the picture was turned into an array")

    augs = [T.RandomFlip(1.0), T.RandomApply(T.RandomCrop("absolute", (30, 30)), 1.0), T.Resize(50)]
    mapper = DatasetMapper(True, augmentations=augs, image_format="BGR")
    record = {"file_name": write(tmp_path, 0, "RGB")}
    monkeypatch.setattr(picture_input, "convert_PIL_to_numpy", refuse)
    assert mapper(record)["image"].shape == (3, 50, 50)


@pytest.mark.parametrize(
    "tfm",
    [
        Halved(HEIGHT, WIDTH, HEIGHT, WIDTH),
        T.CropTransform(50, 40, 30, 30),
        T.CropTransform(-20, -9, 15, 5),
        T.CropTransform(WIDTH, 0, 5, 5),
        T.TransformList([T.PadTransform(1, 2, 3, 4, pad_value=7), T.HFlipTransform(WIDTH + 4)]),
    ],
)
def test_unusual_transforms_do_what_they_do_to_arrays(tfm):
    given = picture_input.PictureInput(picture(0, "RGB"), "RGB")
    expected, _ = plainly(0, np.asarray(picture(0, "RGB")), [tfm])
    given.apply_augmentations([tfm])
    np.testing.assert_array_equal(given.image, expected.image)
    assert given.canvas.shape == expected.image.shape


def test_a_resize_for_another_size_is_an_error():
    given = picture_input.PictureInput(picture(0, "RGB"), "RGB")
    with pytest.raises(AssertionError, match=r"\(5, 6\), got .*\(45, 64\)"):
        given.transform(T.ResizeTransform(5, 6, 10, 12))


def test_an_image_that_is_set_takes_the_place_of_the_picture():
    given = picture_input.PictureInput(picture(0, "RGB"), "RGB")
    given.image = np.full((2, 3, 3), 5, dtype=np.uint8)
    given.transform(T.ResizeTransform(2, 3, 4, 6))
    assert (given.channels_first() == np.full((3, 4, 6), 5)).all()
