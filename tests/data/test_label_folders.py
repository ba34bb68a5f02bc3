"""Images, label maps and class names are found in the usual layouts."""

import json

import pytest
from label_map_folders import write_folder, write_part

from mimdet.data.label_folders import LabelledPart, find_label_folders

LAYOUTS = {
    "yolo-like": ("images/train", "labels/train", "images/val", "labels/val"),
    "ade20k": (
        *("images/training", "annotations/training"),
        *("images/validation", "annotations/validation"),
    ),
    "by split": ("train/images", "train/masks", "valid/images", "valid/masks"),
    "images in the split": ("train", "sem_seg/train", "val", "sem_seg/val"),
    "the test split": ("img/train", "gt/train", "img/test", "gt/test"),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_usual_layouts_are_found(layout, tmp_path):
    paths = [tmp_path / name for name in layout]
    write_part(*paths[:2])
    write_part(*paths[2:])
    found = find_label_folders(tmp_path)
    assert found.train == LabelledPart(str(paths[0]), str(paths[1]))
    assert found.val == LabelledPart(str(paths[2]), str(paths[3]))
    assert found.classes is None
    assert bool(found.notes) == ("test" in layout[2])


def test_without_a_split_a_fifth_is_kept_to_evaluate_on(tmp_path):
    write_part(tmp_path / "photos", tmp_path / "labels", number=10)
    found = find_label_folders(tmp_path)
    roots = str(tmp_path / "photos"), str(tmp_path / "labels")
    assert found.train == LabelledPart(*roots, share=(0.2, 1.0))
    assert found.val == LabelledPart(*roots, share=(0.0, 0.2))
    assert "20% of its images are kept to evaluate on" in found.notes[0]


def test_folders_for_each_city_count_as_one(tmp_path):
    for city in ("aachen", "bremen"):
        write_part(tmp_path / f"images/train/{city}", tmp_path / f"labels/train/{city}")
    write_part(tmp_path / "images/val/ulm", tmp_path / "labels/val/ulm")
    found = find_label_folders(tmp_path)
    assert found.train == LabelledPart(
        str(tmp_path / "images/train"), str(tmp_path / "labels/train")
    )
    assert found.val.image_root == str(tmp_path / "images/val/ulm")


def test_two_folders_of_label_maps_for_one_split_are_refused_with_their_names(tmp_path):
    write_folder(tmp_path)
    write_part(tmp_path / "images/train", tmp_path / "annotations/train")
    with pytest.raises(ValueError) as e:
        find_label_folders(tmp_path)
    message = str(e.value)
    assert (
        "one folder of label maps of the split train, and has annotations/train, labels/train"
        in (message)
    )
    assert "lay them out as images/train" in message


@pytest.mark.parametrize("make", ["nothing", "images alone", "label maps of another split"])
def test_what_is_missing_is_told_with_what_there_is(make, tmp_path):
    if make != "nothing":
        write_part(tmp_path / "images/train", tmp_path / "labels/other")
    if make == "images alone":
        (tmp_path / "labels").rename(tmp_path.with_name(f"{tmp_path.name}_elsewhere"))
    message = {
        "nothing": "one folder of images to train on, and has none .* no others",
        "images alone": "label maps of the split train, and has none .* images/train",
        "label maps of another split": "label maps of the split train, and has none .*labels/other",
    }[make]
    with pytest.raises(ValueError, match=message):
        find_label_folders(tmp_path)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="lost is none"):
        find_label_folders(tmp_path / "lost")


@pytest.mark.parametrize(
    "name, text",
    [
        ("classes.txt", "wall\nfloor\n"),
        ("classes.txt", "\ufeffwall\r\nfloor"),
        ("classes.json", json.dumps(["wall", "floor"])),
        ("classes.json", json.dumps({"1": "floor", "0": "wall"})),
    ],
)
def test_names_of_classes_come_from_a_file(name, text, tmp_path):
    (write_folder(tmp_path) / name).write_text(text, encoding="utf-8")
    assert find_label_folders(tmp_path).classes == ["wall", "floor"]


@pytest.mark.parametrize(
    "name, text",
    [
        ("classes.txt", "wall\n\nfloor"),
        ("classes.txt", "wall\nwall"),
        ("classes.txt", "wall"),
        ("classes.json", "[1, 2]"),
        ("classes.json", '{"1": "wall", "2": "floor"}'),
        ("classes.json", "{"),
    ],
)
def test_a_file_that_lists_no_classes_is_refused(name, text, tmp_path):
    (write_folder(tmp_path) / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name} must (list the names of two classes|be JSON)"):
        find_label_folders(tmp_path)
