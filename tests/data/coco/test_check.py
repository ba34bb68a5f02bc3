"""The list of what is wrong with a dataset."""

import os

import coco_files
import pytest
from coco_files import HEIGHT, WIDTH, changed, sound
from PIL import Image

from mimdet.data.coco.check import check_coco_dataset


@pytest.fixture
def check(tmp_path):
    """Check a content -> the number of problems, and the lines."""
    (tmp_path / "images").mkdir()
    for k in (1, 2, 3):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"images/{k}.png")

    def run(content, **options) -> tuple[int, list[str]]:
        path = coco_files.write(tmp_path, content)
        count, lines = check_coco_dataset(path, tmp_path / "images", **options)
        return count, list(lines)

    return run


def test_a_sound_dataset_has_no_problems(check):
    assert check(sound()) == (0, [])
    assert check(sound(), read_images=False) == (0, [])


def test_the_toy_dataset_has_no_problems(toy_root):
    annotations = toy_root / "annotations/instances_train.json"
    count, lines = check_coco_dataset(annotations, toy_root / "train")
    assert (count, list(lines)) == (0, [])


def test_a_kind_of_problem_is_one_line_with_its_number_and_examples(check):
    count, lines = check(changed("annotations", "bbox", [8, 8, 0, 16]))
    assert count == 6
    (line,) = lines[:1]
    start = "annotations have a bbox without area (6, first annotation 1 of image 1 (1.png): [8, 8,"
    assert start in line
    assert line.count("annotation ") == 3 and "); left out: " in line


def test_a_file_that_is_no_coco_is_one_problem(check):
    count, lines = check([])
    assert count == 1 and "must be a COCO file, but it is a list" in lines[0]


def test_boxes_alone_are_no_problem_but_said(check):
    count, lines = check(changed("annotations", "segmentation", []))
    assert count == 0
    assert "note: 6 of 6 objects have no segmentation" in lines[0]


def test_classes_without_annotations_are_no_problem_but_said(check):
    content = sound()
    content["categories"].insert(0, {"id": 0, "name": "shapes"})
    count, lines = check(content)
    assert count == 0 and "note: 1 classes have no annotations: shapes" in lines[0]


def test_image_files_are_looked_at(check, tmp_path):
    (tmp_path / "images/1.png").unlink()
    os.mkfifo(tmp_path / "images/1.png")
    (tmp_path / "images/2.png").unlink()
    (tmp_path / "images/3.png").write_bytes(b"not a picture")
    count, lines = check(sound())
    assert count == 3
    problems = ("lead to a folder, pipe or device", "do not exist", "cannot be read")
    for k, problem in enumerate(problems):
        assert f"{problem} (1: image {k + 1} (" in lines[k]
    assert check(sound(), read_images=False)[0] == 2


def test_sizes_are_compared_upright(check, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (HEIGHT, WIDTH)).save(tmp_path / "images/1.png", exif=exif)
    assert check(sound()) == (0, [])
    Image.new("RGB", (HEIGHT, WIDTH)).save(tmp_path / "images/1.png")
    count, (line,) = check(sound())
    assert count == 1 and "64 x 48 (upright), 48 x 64 expected" in line


@pytest.mark.parametrize("section", ["images", "categories"])
def test_a_list_without_entries_is_a_problem(check, section):
    content = {**sound(), "annotations": [], section: []}
    count, (line, *_) = check(content)
    assert count == 1 and f"lists that must have entries have none (1: {section}); refused" in line


def test_one_file_under_two_spellings_is_told(check):
    content = sound()
    content["images"].append({**content["images"][0], "id": 9, "file_name": "./1.png"})
    count, (line,) = check(content)
    assert count == 1 and "have the file_name of another image (1: image 9 (./1.png)" in line
