"""The script that lists the problems of a dataset."""

import json

import numpy as np
import pytest
from label_map_folders import SIDE, write_folder, write_pair
from PIL import Image
from toy_runs import load_script

SPLITS = ("train", "val")


def run(*argv):
    load_script("tools/check_dataset.py").main([str(arg) for arg in argv])


def test_a_good_dataset_ends_with_success(toy_root, capsys):
    json_file = toy_root / "annotations/instances_val.json"
    run(json_file, toy_root / "val")
    assert capsys.readouterr().out == f"{json_file}: 0 problems\n"


def test_problems_are_printed_and_make_the_exit_status_1(toy_root, tmp_path, capsys):
    content = json.loads((toy_root / "annotations/instances_val.json").read_text())
    content["annotations"][0]["bbox"] = [1, 2, -3, 4]
    content["images"][0]["file_name"] = "lost.jpg"
    (tmp_path / "val.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "val.json", toy_root / "val", "--no-decode")
    assert caught.value.code == 1
    *problems, last = capsys.readouterr().out.splitlines()
    assert last == f"{tmp_path / 'val.json'}: 2 problems"
    assert "annotations have a bbox without area (1: annotation" in problems[0]
    assert "image files do not exist (1: image" in problems[1] and "lost.jpg" in problems[1]


def test_a_missing_annotation_file_is_a_mistake_in_the_command(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "none.json", tmp_path)
    assert caught.value.code == 2
    assert "none.json does not exist" in capsys.readouterr().err


def test_a_folder_with_annotations_is_checked_as_data_takes_it(toy_root, tmp_path, capsys):
    for split in ("train", "val"):
        file = f"instances_{split}.json"
        (tmp_path / file).write_bytes((toy_root / "annotations" / file).read_bytes())
        (tmp_path / split).symlink_to(toy_root / split)
    run(tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        *(f"{tmp_path}/instances_{s}.json: of the images in {tmp_path}/{s}" for s in SPLITS),
        f"{tmp_path}: 0 problems",
    ]
    content = json.loads((tmp_path / "instances_val.json").read_text())
    content["annotations"][0]["bbox"] = [1, 2, -3, 4]
    (tmp_path / "instances_val.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit) as caught:
        run(tmp_path, "--no-decode")
    assert caught.value.code == 1
    assert "have a bbox without area (1: annotation" in capsys.readouterr().out


def test_a_sound_folder_of_label_maps_ends_with_what_it_is(tmp_path, capsys):
    write_folder(tmp_path / "mine")
    run(tmp_path / "mine")
    root = tmp_path / "mine"
    assert capsys.readouterr().out.splitlines() == [
        f"4 images of {root}/images/train with the label maps of {root}/labels/train",
        f"2 images of {root}/images/val with the label maps of {root}/labels/val",
        "2 classes: class 0, class 1",
        f"{root}: 0 problems",
    ]


def test_classes_without_pixels_are_named(tmp_path, capsys):
    (write_folder(tmp_path) / "classes.txt").write_text("ground\nsquare\nsky\n")
    run(tmp_path)
    assert "1 classes have no pixel: sky" in capsys.readouterr().out


def test_problems_of_label_maps_are_told_by_kind_with_counts(tmp_path, capsys):
    (write_folder(tmp_path) / "classes.txt").write_text("ground\nsquare\n")
    labels = tmp_path / "labels/train"
    write_pair(tmp_path / "images/train/1.jpg", labels / "1.png", values=(0, 9))
    write_pair(tmp_path / "images/train/2.jpg", labels / "2.png", values=(3, 1))
    Image.fromarray(np.zeros((20, SIDE), np.uint8)).save(labels / "3.png")
    with pytest.raises(SystemExit) as caught:
        run(tmp_path)
    assert caught.value.code == 1
    values, size, *_, last = capsys.readouterr().out.splitlines()
    assert "neither below 2, the number of classes, nor 255" in values
    assert "(2: " in values and "1.png: 9" in values and "2.png: 3" in values
    assert "have another size than their image" in size and "(1: " in size
    assert last == f"{tmp_path}: 3 problems"


def test_label_maps_of_other_names_are_a_problem(tmp_path, capsys):
    write_folder(tmp_path)
    (tmp_path / "labels/val/1.png").rename(tmp_path / "labels/val/one.png")
    with pytest.raises(SystemExit) as caught:
        run(tmp_path)
    assert caught.value.code == 1
    assert "images have no label map of their name (1: " in capsys.readouterr().out


@pytest.mark.parametrize("words", [["{root}", "{root}"], ["{root}/classes.txt"]])
def test_a_folder_stands_alone_and_annotations_need_one(words, tmp_path, capsys):
    (write_folder(tmp_path) / "classes.txt").write_text("a\nb")
    with pytest.raises(SystemExit) as caught:
        run(*(word.format(root=tmp_path) for word in words))
    assert caught.value.code == 2
    assert "or the folder of a dataset alone" in capsys.readouterr().err
