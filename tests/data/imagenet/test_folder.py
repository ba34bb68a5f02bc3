"""The images of a folder: each once, and nothing else."""

import logging
import os

import pytest
from image_files import names, write_image

from mimdet.data.imagenet import load_images, load_labelled_images
from mimdet.data.imagenet.folder import folders_in, images_below


@pytest.fixture
def four(tmp_path):
    """A folder with four images, two of them in a folder below; the folder and their paths."""
    return tmp_path / "set", [
        write_image(tmp_path / "set" / name) for name in ("0.jpg", "1.png", "b/2.jpg", "b/c/3.jpg")
    ]


def found(folder) -> list[str]:
    return sorted(images_below(str(folder)))


@pytest.mark.parametrize(
    "links",
    [
        {"set": "."},
        {"set": ".", "again": "."},
        {"b/back": ".."},
        {"b/c/back": "../..", "x": "b", "b/y": "../b/c"},
        {"b/parent": "../.."},  # leads out of the folder and into it again
        {"self": "self"},
        {"self.jpg": "self.jpg"},
        {"one.jpg": "two.jpg", "two.jpg": "one.jpg"},
    ],
)
def test_each_image_is_found_once_in_any_loop_of_links(four, links):
    root, images = four
    write_image(root.parent / "outside.jpg")
    for name, target in links.items():
        os.symlink(target, root / name)
    assert found(root) == images


def test_a_link_beside_a_file_or_folder_adds_nothing_and_the_file_keeps_its_own_path(four):
    root, images = four
    os.symlink("0.jpg", root / "!first.jpg")
    os.symlink("c", root / "b" / "!first")
    assert found(root) == images


def test_links_to_what_lies_elsewhere_are_followed_once(four, tmp_path):
    root, images = four
    (tmp_path / "links").mkdir()
    os.symlink(root / "b", tmp_path / "links/folder")
    os.symlink(root / "b", tmp_path / "links/same")
    os.symlink(images[0], tmp_path / "links/image.jpg")
    os.symlink(images[0], tmp_path / "links/same.jpg")
    expected = ["folder/2.jpg", "folder/c/3.jpg", "image.jpg"]
    assert found(tmp_path / "links") == [f"{tmp_path}/links/{name}" for name in expected]


@pytest.mark.parametrize(
    "name",
    [
        *("._0.jpg", ".hidden.png", "b/.thumbnails/2.jpg", ".ipynb_checkpoints/0-checkpoint.jpg"),
        *("b/@eaDir/2.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/b/._2.jpg", "#recycle/old.jpg"),
        *("$RECYCLE.BIN/old.jpg", ".Trash-1000/files/old.jpg", "lost+found/4.jpg"),
        *("Thumbs.db", ".DS_Store", "desktop.ini", "labels.csv"),
    ],
)
def test_what_systems_and_tools_leave_is_no_image(four, name):
    root, images = four
    write_image(root / "x.jpg")
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / "x.jpg").rename(root / name)
    assert found(root) == images


def test_the_folder_itself_may_have_any_name(tmp_path):
    image = write_image(tmp_path / ".cache/@eaDir/0.jpg")
    assert names(load_images(tmp_path / ".cache/@eaDir")) == [image]


def test_names_of_images_that_are_no_files_are_left_out_and_told(four, caplog):
    root, images = four
    os.mkfifo(root / "pipe.jpg")
    os.symlink("pipe.jpg", root / "to_pipe.jpg")
    os.symlink("/dev/zero", root / "device.png")
    os.symlink("nowhere.jpg", root / "broken.jpg")
    assert names(load_images(root)) == images
    (message,) = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert message.startswith("4 names of images") and f"{root}/pipe.jpg" in message


# --- Classes --------------------------------------------------------------------------------------


def test_left_folders_and_loops_are_no_classes(tmp_path):
    for name in ("cat", "dog", ".ipynb_checkpoints", "@eaDir"):
        write_image(tmp_path / "train" / name / "1.jpg")
    os.symlink(".", tmp_path / "train/again")
    os.symlink("..", tmp_path / "train/cat/all")
    assert folders_in(tmp_path / "train") == ["cat", "dog"]
    records = load_labelled_images(tmp_path, "train")
    assert [(r["file_name"].split("/")[-2], r["label"]) for r in records] == [
        ("cat", 0),
        ("dog", 1),
    ]


def test_a_class_may_be_a_link(tmp_path):
    write_image(tmp_path / "elsewhere/1.jpg")
    (tmp_path / "train").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "train/cat")
    assert names(load_labelled_images(tmp_path, "train")) == [f"{tmp_path}/train/cat/1.jpg"]


# --- A folder named train -------------------------------------------------------------------------


@pytest.mark.parametrize("beside", ["bus/2.jpg", "bus/deep/2.jpg", "2.jpg"])
def test_train_is_a_class_where_images_are_beside_it(tmp_path, beside, caplog):
    expected = sorted(write_image(tmp_path / name) for name in ("train/1.jpg", beside))
    assert names(load_images(tmp_path)) == expected
    assert f"for its images alone, give {tmp_path}/train" in caplog.text


@pytest.mark.parametrize(
    "beside",
    ["val/2.jpg", "valid/2.jpg", "validation/cat/2.jpg", "test/2.jpg", "devkit/notes.txt"],
)
def test_train_is_a_split_beside_other_splits_or_alone(tmp_path, beside):
    image = write_image(tmp_path / "train/cat/1.jpg")
    write_image(tmp_path / "x.jpg")
    (tmp_path / beside).parent.mkdir(parents=True)
    (tmp_path / "x.jpg").rename(tmp_path / beside)
    assert names(load_images(tmp_path)) == [image]


def test_a_class_of_a_split_may_be_named_train(tmp_path):
    for split in ("train", "val"):
        for name in ("bus", "train"):
            write_image(tmp_path / split / name / "1.jpg")
    expected = [f"{tmp_path}/train/{name}/1.jpg" for name in ("bus", "train")]
    assert names(load_images(tmp_path)) == names(load_images(tmp_path / "train")) == expected
    assert [r["label"] for r in load_labelled_images(tmp_path, "val")] == [0, 1]
