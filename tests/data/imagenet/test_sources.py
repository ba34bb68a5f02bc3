"""Images for pretraining and classification: every source, and what none can be."""

import logging

import pytest
from image_files import names, write_image

from mimdet.data.imagenet import load_images, load_labelled_images
from mimdet.data.toy import CLASSES


def test_a_folder_is_searched_at_any_depth_in_the_order_of_names(tmp_path):
    expected = [
        write_image(tmp_path / "a.JPEG"),
        write_image(tmp_path / "b/c/d.png"),
        write_image(tmp_path / "b/e.jpg"),
    ]
    (tmp_path / "notes.txt").write_text("no image")
    assert names(load_images(tmp_path)) == expected


def test_of_the_root_of_imagenet_only_train_is_taken(tmp_path):
    expected = [write_image(tmp_path / "train" / n / "1.JPEG") for n in ("n01", "n02")]
    write_image(tmp_path / "val/n01/2.JPEG")
    assert names(load_images(tmp_path)) == expected


def test_a_coco_folder_is_a_folder(toy_root):
    assert len(load_images(toy_root / "val")) == 6


def test_a_list_names_images_relative_to_itself(tmp_path):
    first, second = write_image(tmp_path / "x/1.png"), write_image(tmp_path / "2.png")
    (tmp_path / "list.txt").write_text(f"x/1.png\n\n  {second}  \n")
    assert names(load_images(tmp_path / "list.txt")) == [first, second]


def test_generated_images_need_no_file():
    assert names(load_images("synthetic:6")) == [f"synthetic:train:{k}" for k in range(6)]


def test_what_was_found_is_logged(tmp_path, caplog):
    first = write_image(tmp_path / "a.png")
    with caplog.at_level(logging.INFO):
        load_images(tmp_path)
    assert f"1 images in {tmp_path}: {first}" in caplog.text


def test_a_source_that_does_not_exist_is_refused():
    with pytest.raises(FileNotFoundError, match="and 'no/such' is none of them .*dataset.source"):
        load_images("no/such")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match="must hold images .* at any depth, and there is none"):
        load_images(tmp_path)


def test_a_list_with_missing_files_is_refused_with_their_names(tmp_path):
    write_image(tmp_path / "1.png")
    (tmp_path / "list.txt").write_text("1.png\n2.png\n3.png\n")
    with pytest.raises(
        FileNotFoundError, match=r"2 of the 3 images .* are no files: .*2.png, .*3.png;"
    ):
        load_images(tmp_path / "list.txt")


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path):
    expected = write_image(tmp_path / "ä.png")
    (tmp_path / "list.txt").write_text("ä.png\r\n", encoding="utf-8-sig")
    assert names(load_images(tmp_path / "list.txt")) == [expected]


def test_an_empty_list_is_refused(tmp_path):
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(ValueError, match="must name one image per line, and it names none"):
        load_images(tmp_path / "list.txt")


@pytest.mark.parametrize("source", ["synthetic:", "synthetic:0", "synthetic:many", "synthetic:-3"])
def test_generated_images_without_a_number_are_refused(source):
    with pytest.raises(ValueError, match="must be synthetic:N with N at least 1"):
        load_images(source)


# --- Labels ---------------------------------------------------------------------------------------


def test_labels_are_the_places_of_the_sorted_class_folders(tmp_path):
    for name in ("dog", "cat", "emu"):
        write_image(tmp_path / "train" / name / "1.png")
    write_image(tmp_path / "val/dog/deep/9.png")
    train = load_labelled_images(tmp_path, "train")
    assert [(r["file_name"].split("/")[-2], r["label"]) for r in train] == [
        ("cat", 0),
        ("dog", 1),
        ("emu", 2),
    ]
    (val,) = load_labelled_images(tmp_path, "val")  # a split need not have every class
    assert val["label"] == 1


def test_generated_images_have_the_classes_of_the_shapes():
    labels = [r["label"] for r in load_labelled_images("synthetic:8", "val")]
    assert labels == [0, 1, 2, 3, 0, 1, 2, 3] and len(CLASSES) == 4


def test_a_split_without_a_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no {tmp_path}/val"):
        load_labelled_images(tmp_path, "val")


def test_a_split_without_classes_is_refused(tmp_path):
    write_image(tmp_path / "train/1.png")
    with pytest.raises(ValueError, match="must hold one folder per class, and it holds no folder"):
        load_labelled_images(tmp_path, "train")


def test_a_split_with_a_class_that_train_lacks_is_refused(tmp_path):
    write_image(tmp_path / "train/cat/1.png")
    write_image(tmp_path / "val/dog/1.png")
    with pytest.raises(ValueError, match=r"must be among those of .*/train, which lacks \['dog'\]"):
        load_labelled_images(tmp_path, "val")


def test_class_folders_without_images_are_refused(tmp_path):
    (tmp_path / "train/cat").mkdir(parents=True)
    with pytest.raises(ValueError, match="no class folder of .* holds an image"):
        load_labelled_images(tmp_path, "train")
