"""Samples of images that can be read, and of those that cannot."""

import pytest
import torch
from image_files import bad_files, write_image
from PIL import Image

from mimdet.data.imagenet import ImageMapper


def first_pixel(image: Image.Image) -> torch.Tensor:
    return torch.tensor(image.getpixel((0, 0)))


def test_a_sample_is_the_record_with_its_image(tmp_path):
    record = {"file_name": write_image(tmp_path / "a.png", 7), "label": 3}
    sample = ImageMapper(first_pixel, skip_unreadable=True)(record)
    assert sample["image"].tolist() == [7, 0, 0]
    assert (sample["file_name"], sample["label"]) == (record["file_name"], 3)


def test_unreadable_images_are_skipped_with_a_warning_that_counts_them(tmp_path, caplog):
    mapper = ImageMapper(first_pixel, skip_unreadable=True)
    records = bad_files(tmp_path)
    assert [mapper(r) is None for r in [*records, *records]] == [True, True, True, False] * 2
    messages = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert len(messages) == 3  # each file once
    assert messages[0].startswith(f"skipped image 1 of this process: {tmp_path}/text.jpg cannot be")
    assert messages[2].startswith("skipped image 3 of this process")


def test_an_evaluation_does_not_skip_images(tmp_path):
    mapper = ImageMapper(first_pixel, skip_unreadable=False)
    with pytest.raises(OSError, match="text.jpg cannot be read as an image"):
        mapper(bad_files(tmp_path)[0])
