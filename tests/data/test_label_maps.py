"""Label maps that do not fit their images or classes are found before any work."""

import numpy as np
import pytest
from PIL import Image

from mimdet.data.label_maps import check_label_maps


@pytest.fixture
def pairs(tmp_path):
    """Three images of 6 x 8 pixels with label maps of 3 classes and ignored pixels."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    records = []
    for name in "abc":
        image, labels = tmp_path / f"images/{name}.jpg", tmp_path / f"labels/{name}.png"
        Image.new("RGB", (8, 6)).save(image)
        Image.fromarray(np.resize([0, 1, 2, 255], (6, 8)).astype(np.uint8)).save(labels)
        records.append({"file_name": str(image), "sem_seg_file_name": str(labels)})
    return records


def lines(records, **options) -> list[str]:
    return list(check_label_maps(records, "shapes_train", 3, **options).lines())


def test_sound_pairs_have_no_problems(pairs, tmp_path):
    (tmp_path / "images/notes.txt").touch()  # no image
    assert lines(pairs, roots=(tmp_path / "images", tmp_path / "labels")) == []


def test_labels_out_of_range_are_told_with_their_values(pairs):
    for record in pairs:
        Image.fromarray(np.array([[3, 0], [254, 255]], np.uint8)).resize((8, 6), 0).save(
            record["sem_seg_file_name"]
        )
    (line,) = lines(pairs)
    assert "label maps have values that are neither below 3, the number of classes, nor 255" in line
    assert "(3: " in line and "labels/a.png: 3, 254" in line and "renumber them from 0" in line


def test_another_label_for_ignored_pixels_is_none_of_the_classes(pairs):
    assert lines(pairs, ignore_label=0)[0].count("1, 2") == 0
    assert "255" in lines(pairs, ignore_label=0)[0]


def test_sizes_that_differ_are_told_with_both(pairs):
    Image.new("L", (6, 8)).save(pairs[1]["sem_seg_file_name"])
    (line,) = lines(pairs)
    assert "have another size than their image" in line
    assert "labels/b.png: 8 x 6, its image 6 x 8" in line


def test_the_size_of_an_image_is_the_upright_one(pairs):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 8)).save(pairs[0]["file_name"], exif=exif)
    assert lines(pairs) == []


def test_files_of_one_folder_alone_are_told(pairs, tmp_path):
    (tmp_path / "labels/b.png").rename(tmp_path / "labels/d.png")
    records = [pairs[0], pairs[2]]  # what Detectron2 makes of it
    without_labels, without_image = lines(records, roots=(tmp_path / "images", tmp_path / "labels"))
    assert "images have no label map (1: " in without_labels and "images/b.jpg" in without_labels
    assert "label maps have no image (1: " in without_image and "labels/d.png" in without_image


def test_files_that_are_not_there_are_told(pairs, tmp_path):
    (tmp_path / "labels/a.png").unlink()
    (tmp_path / "images/c.jpg").unlink()
    labels, image = lines(pairs)
    assert "images have no label map" in labels and "labels/a.png" in labels
    assert "image files do not exist" in image and "images/c.jpg" in image


def test_equal_numbers_of_files_with_other_names_are_no_pairs(pairs):
    pairs[0]["sem_seg_file_name"], pairs[1]["sem_seg_file_name"] = (
        pairs[1]["sem_seg_file_name"],
        pairs[0]["sem_seg_file_name"],
    )
    (line,) = lines(pairs)
    assert "do not have the name of their image" in line and "labels/b.png" in line


@pytest.mark.parametrize("mode", ["P", "RGB", "I;16", "1"])
def test_a_label_map_whose_values_would_be_read_as_colours_is_refused(pairs, mode):
    Image.new(mode, (8, 6)).save(pairs[2]["sem_seg_file_name"])
    (line,) = lines(pairs)
    assert "no images of one channel of 8 bits" in line and f"mode {mode}" in line


def test_files_that_cannot_be_read_are_told(pairs):
    for name, key in ((0, "file_name"), (1, "sem_seg_file_name")):
        with open(pairs[name][key], "wb") as file:
            file.write(b"nothing")
    image, labels = lines(pairs)
    assert "image files cannot be read" in image and "images/a.jpg" in image
    assert "label maps cannot be read" in labels and "labels/b.png" in labels
