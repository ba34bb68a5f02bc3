"""The files of a dataset are found by content, in the layouts that people have."""

import json
from pathlib import Path

import coco_files
import pytest

from mimdet.data.coco.layouts import find_data


def make(root: Path, json_file: str, images: str, names=("1.png", "2.png", "3.png")) -> None:
    """An annotation file and a folder of images, empty ones, with these names."""
    content = coco_files.sound(len(names))
    for image, name in zip(content["images"], names, strict=True):
        image["file_name"] = name
        path = root / images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / json_file).parent.mkdir(parents=True, exist_ok=True)
    (root / json_file).write_text(json.dumps(content))


def found(root: Path) -> list[tuple[str, str]]:
    data = find_data(root)
    return [
        tuple(str(Path(path).relative_to(root)) for path in (split.json_file, split.image_root))
        for split in (data.train, data.val)
    ]


LAYOUTS = {
    "COCO": [
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_val2017.json", "val2017"),
    ],
    "COCO, images in a folder": [
        ("annotations/instances_train.json", "images/train"),
        ("annotations/instances_val.json", "images/val"),
    ],
    "Roboflow": [
        ("train/_annotations.coco.json", "train"),
        ("valid/_annotations.coco.json", "valid"),
    ],
    "files beside folders": [("train.json", "train"), ("val.json", "val")],
    "files beside one folder": [("train.json", "images"), ("val.json", "images")],
    "all in one folder": [("my_train.json", "."), ("my_val.json", ".")],
    "names with spaces and letters of all kinds": [
        ("Datensätze 2/Training/labels.json", "Datensätze 2/Training/bilder 画像"),
        ("Datensätze 2/Validation/labels.json", "Datensätze 2/Validation/bilder 画像"),
    ],
    "a folder whose name is a split": [
        ("train data/annotations/train.json", "train data/train"),
        ("train data/annotations/val.json", "train data/val"),
    ],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_usual_layouts_are_found(tmp_path, layout):
    for json_file, images in layout:
        make(tmp_path, json_file, images)
    assert found(tmp_path) == layout
    assert not find_data(tmp_path).notes


def test_images_may_lie_in_folders_below_and_other_json_files_beside(tmp_path):
    for split in ("train", "val"):
        make(tmp_path, f"{split}.json", "images", ("a/1.png", "b/c/1.png"))
        (tmp_path / "images/info.json").write_text('{"made": "today"}')
        (tmp_path / "images/points.json").write_text("[1, 2]")
    make(tmp_path, "person_keypoints_train.json", "images", ("a/1.png",))
    (tmp_path / "train.json").rename(tmp_path / "instances_train.json")
    assert found(tmp_path) == [("instances_train.json", "images"), ("val.json", "images")]


def test_without_validation_the_test_images_are_evaluated_on(tmp_path):
    make(tmp_path, "train.json", "train")
    make(tmp_path, "test.json", "test")
    assert found(tmp_path) == [("train.json", "train"), ("test.json", "test")]
    assert find_data(tmp_path).notes == [
        "without a split for validation, test.json is evaluated on"
    ]


@pytest.mark.parametrize("name", ["train.json", "result.json"])
def test_one_file_is_split_and_says_so(tmp_path, name):
    make(tmp_path, name, "images")
    data = find_data(tmp_path)
    assert data.train.json_file == data.val.json_file == str(tmp_path / name)
    assert (data.train.share, data.val.share) == ((0.2, 1.0), (0.0, 0.2))
    assert data.notes[0].startswith(f"{name} is all there is: 20% of its images")


@pytest.mark.parametrize("damaged", ["train.json", "val.json"])
def test_a_damaged_file_that_is_named_like_a_split_is_refused(tmp_path, damaged):
    for split in ("train", "val"):
        make(tmp_path, f"{split}.json", "images")
    (tmp_path / damaged).write_text('{"images": [')
    with pytest.raises(ValueError, match=f"{damaged} is named like a part .*was truncated"):
        find_data(tmp_path)


def test_files_of_other_tasks_are_left_out_and_told(tmp_path):
    for split in ("train", "val"):
        make(tmp_path, f"{split}.json", "images")
    content = json.loads((tmp_path / "train.json").read_text())
    for annotation in content["annotations"]:
        annotation["segments_info"] = [annotation.pop("segmentation")]
    (tmp_path / "panoptic_train.json").write_text(json.dumps(content))
    del content["categories"]
    (tmp_path / "captions_val.json").write_text(json.dumps(content))
    assert found(tmp_path) == [("train.json", "images"), ("val.json", "images")]
    captions, panoptic = find_data(tmp_path).notes
    assert captions.startswith("captions_val.json is left out: ")
    assert panoptic.startswith("panoptic_train.json is left out: it holds panoptic segments")
    (tmp_path / "train.json").unlink()
    with pytest.raises(ValueError, match="nothing to train on.*; panoptic_train.json is left out"):
        find_data(tmp_path)


def test_links_to_images_and_annotations_elsewhere_are_followed_once(tmp_path):
    make(tmp_path / "disk", "train.JSON", "images")
    root = tmp_path / "own"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "disk/images")
    (root / "train.json").symlink_to(tmp_path / "disk/train.JSON")
    (root / "again").symlink_to(root)
    assert found(root) == [("train.json", "images")] * 2
    assert found(tmp_path / "disk") == [("train.JSON", "images")] * 2


def test_absolute_names_are_images_only_below_the_folder(tmp_path):
    root, elsewhere = tmp_path / "own", tmp_path / "elsewhere"
    names = [str(root / f"images/{k}.png") for k in (1, 2)]
    make(root, "train.json", "images", names)
    assert found(root) == [("train.json", ".")] * 2
    make(root, "train.json", "images", [str(elsewhere / f"{k}.png") for k in (1, 2)])
    with pytest.raises(ValueError, match="elsewhere/1.png.* must lie below .*own"):
        find_data(root)


def test_one_file_needs_two_images_to_be_split_and_one_for_a_split(tmp_path):
    make(tmp_path, "train.json", "images", ("1.png",))
    with pytest.raises(ValueError, match="train.json .* 2 images or more, .*; it lists 1"):
        find_data(tmp_path)
    make(tmp_path, "val.json", "images", ())
    with pytest.raises(ValueError, match="val.json must list images, and lists none"):
        find_data(tmp_path)


def test_archives_are_to_be_unpacked(tmp_path):
    archive = tmp_path / "roboflow.zip"
    archive.touch()
    with pytest.raises(FileNotFoundError, match="roboflow.zip is none; unpack an archive first"):
        find_data(archive)
    with pytest.raises(ValueError, match=r"\*.zip files must be unpacked first"):
        find_data(tmp_path)
    with pytest.raises(FileNotFoundError, match="folder of a dataset, and no name is none"):
        find_data("")


def test_what_cannot_be_decided_is_refused_with_what_was_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be the folder .* none is none"):
        find_data("none")
    (tmp_path / "1.xml").touch()
    (tmp_path / "train.json").write_text("[]")
    with pytest.raises(
        ValueError, match=r"must hold annotations .*train.json is left out: .*\(Pascal VOC\)"
    ):
        find_data(tmp_path)
    make(tmp_path, "val.json", "images")
    with pytest.raises(ValueError, match="nothing to train on, but only .*val.json"):
        find_data(tmp_path)
    for name in ("a", "b"):
        make(tmp_path, f"{name}_train.json", "images")
    with pytest.raises(ValueError, match="several train data: .*a_train.json, .*b_train.json"):
        find_data(tmp_path)


def test_images_that_are_not_there_are_refused_by_name(tmp_path):
    make(tmp_path, "train.json", "images")
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"train.json \(1.png, 2.png, 3.png\) must lie below"):
        find_data(tmp_path)
