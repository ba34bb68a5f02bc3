"""Label files of YOLO, in the layouts that people have, become what COCO says of them."""

import json
from pathlib import Path

import pytest
from PIL import Image

from mimdet.data.coco.layouts import find_data

HEIGHT, WIDTH = 100, 200
BOX, POLYGON = "0 0.5 0.5 0.2 0.4", "2 0.1 0.1 0.3 0.1 0.3 0.5"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/classes.txt").write_text("red\nblue\n \ngreen\n")
    return tmp_path / "own"


def add(root: Path, image: str, label: str | None = None, lines: str = BOX, **saved) -> None:
    path = root / image
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(path, **saved)
    if label:
        (root / label).parent.mkdir(parents=True, exist_ok=True)
        (root / label).write_text(lines)


def content(part) -> dict:
    assert Path(part.json_file).parent.name == "mimdet"  # in the cache, not in the user's folder
    return json.loads(Path(part.json_file).read_text())


@pytest.mark.parametrize(
    "image, label",
    [
        ("images/{}/a b.png", "labels/{}/a b.txt"),
        ("{}/images/a b.png", "{}/labels/a b.txt"),
        ("{}/images/deeper/a b.png", "{}/labels/deeper/a b.txt"),
        ("obj_{}_data/a b.png", "obj_{}_data/a b.txt"),
    ],
)
def test_layouts(root, image, label):
    (root / "classes.txt").unlink()
    (root / "data.yaml").write_text("names: {0: red, 2: 'on'}\ntrain: ../train/images\n")
    for split in ("train", "valid"):
        add(root, image.format(split), label.format(split), f"{BOX}\n\n{POLYGON}\n")
    before = sorted(root.rglob("*"))
    data = find_data(root)
    assert sorted(root.rglob("*")) == before
    assert data.train.image_root == data.val.image_root == str(root)
    assert "train: 1 of 1 images have label files of YOLO" in data.notes[0]
    made = content(data.val)
    assert made["images"] == [
        {"id": 1, "file_name": image.format("valid"), "height": HEIGHT, "width": WIDTH}
    ]
    assert made["categories"] == [{"id": 0, "name": "red"}, {"id": 2, "name": "on"}]
    common = {"image_id": 1, "iscrowd": 0}
    box = {"id": 1, "category_id": 0, "bbox": [80, 30, 40, 40], "area": pytest.approx(1600)}
    polygon = {"id": 2, "category_id": 2, "bbox": [20, 10, 40, 40], "area": pytest.approx(800)}
    assert made["annotations"] == [
        {**common, **box},
        {**common, **polygon, "segmentation": [[20, 10, 60, 10, 60, 50]]},
    ]


def test_without_a_split_a_fifth_is_kept_and_images_without_labels_have_no_objects(root):
    for k in range(4):
        add(root, f"images/train_{k}.png", f"labels/train_{k}.txt" if k else None)
    data = find_data(root)
    assert data.train.json_file == data.val.json_file and data.val.share == (0.0, 0.2)
    assert "all: 3 of 4 images have label files of YOLO, the others no objects" in data.notes[0]
    made = content(data.train)
    assert [a["image_id"] for a in made["annotations"]] == [2, 3, 4]
    assert [c["id"] for c in made["categories"]] == [0, 1, 3]


def test_a_split_without_any_label_is_not_evaluated_on(root):
    add(root, "images/train/a.png", "labels/train/a.txt")
    add(root, "images/val/a.png", "labels/val/a.txt")
    add(root, "images/test/a.png")
    assert len(find_data(root).notes) == 2


def test_an_image_lying_on_its_side_has_the_size_of_the_upright_one(root):
    turned = Image.Exif()
    turned[0x0112] = 6
    for split in ("train", "val"):
        add(root, f"images/{split}/a.jpg", f"labels/{split}/a.txt", exif=turned)
    made = content(find_data(root).train)
    assert (made["images"][0]["height"], made["images"][0]["width"]) == (WIDTH, HEIGHT)
    assert made["annotations"][0]["bbox"] == [40, 60, 20, 80]


@pytest.mark.parametrize(
    "lines, message",
    [
        ("0 0.5 0.5 0.2", r"a.txt, line 1 must be a class with .* got 0 0.5 0.5 0.2"),
        (f"{BOX}\n0 0.5 0.5 0.2 0.4 0.9", "a.txt, line 2 must be a class"),
        ("0 64 32 20 10", "as shares from 0 to 1, got 0 64 32 20 10"),
        ("0 0.5 nan 0.2 0.4", "as shares from 0 to 1"),
        ("a red square", "line 1 must be a class"),
        ("7 0.5 0.5 0.2 0.4", "must begin with the number of a class, one of 0, 1, 3, got 7"),
        ("0.5 0.5 0.5 0.2 0.4", "got 0.5"),
    ],
)
def test_a_line_that_is_none_is_named(root, lines, message):
    add(root, "images/train/a.png", "labels/train/a.txt", lines)
    with pytest.raises(ValueError, match=message):
        find_data(root)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("notes.yaml", "no names", "no file that names their classes; write them into classes.txt"),
        ("data.yaml", "names: 3", r"names in .*data.yaml must be a list"),
        ("data.yaml", "names: [a]\nkpt_shape: [4, 3]", "tells of keypoints"),
        ("data.yaml", "names: [a", "must be YAML"),
    ],
)
def test_classes_must_have_names(root, name, text, message):
    (root / "classes.txt").unlink()
    (root / name).write_text(text)
    add(root, "images/train/a.png", "labels/train/a.txt")
    with pytest.raises(ValueError, match=message):
        find_data(root)


def test_two_files_must_name_the_same_classes(root):
    (root / "data.yaml").write_text("names: [red, blue]")
    add(root, "images/train/a.png", "labels/train/a.txt")
    with pytest.raises(ValueError, match="must name the same classes"):
        find_data(root)


def test_an_image_that_cannot_be_read_is_named(root):
    add(root, "images/train/a.png", "labels/train/a.txt")
    (root / "images/train/a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="a.png cannot be read as an image"):
        find_data(root)
