"""Datasets of images with label maps, from two folders."""

import pytest
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from mimdet.data.datasets import load_sem_seg_folder

NAME = "test_load_sem_seg_folder"


@pytest.fixture(autouse=True)
def _catalogs():
    yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        for name in [n for n in catalog.list() if n.startswith(NAME)]:
            catalog.remove(name)


@pytest.fixture
def folder(tmp_path):
    """Three images, one of them in a folder of its own, with label maps."""
    for part, mode, end in (("images", "RGB", ".jpg"), ("labels", "L", ".png")):
        for name in ("a_2", "a_10", "more/b"):
            path = tmp_path / part / f"{name}{end}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, (8, 6)).save(path)
    return tmp_path


def load(folder, **changes) -> list[dict]:
    arguments = dict(
        name=NAME,
        image_root=str(folder / "images"),
        sem_seg_root=str(folder / "labels"),
        classes=["wall", "floor"],
    )
    return load_sem_seg_folder(**{**arguments, **changes})


def test_images_come_with_the_label_maps_of_their_names(folder):
    assert load(folder) == [
        {
            "file_name": str(folder / f"images/{name}.jpg"),
            "sem_seg_file_name": str(folder / f"labels/{name}.png"),
        }
        for name in ("a_10", "a_2", "more/b")
    ]


def test_an_evaluator_finds_classes_and_label_maps_under_the_name(folder):
    records = load(folder)
    metadata = MetadataCatalog.get(NAME)
    assert metadata.stuff_classes == ["wall", "floor"]
    assert metadata.ignore_label == 255 and metadata.evaluator_type == "sem_seg"
    assert DatasetCatalog.get(NAME) == records


def test_the_same_dataset_can_be_loaded_twice(folder):
    assert load(folder) == load(folder)


@pytest.mark.parametrize("change", [dict(classes=["wall"]), dict(ignore_label=0)])
def test_one_name_for_two_datasets_is_refused(folder, change):
    load(folder)
    with pytest.raises(ValueError, match="one name must stand for one dataset"):
        load(folder, **change)


def test_two_shares_have_all_images_and_none_in_common(folder):
    parts = [load(folder, name=f"{NAME}_{k}", share=s) for k, s in enumerate([(0, 0.4), (0.4, 1)])]
    assert [len(part) for part in parts] == [1, 2]
    assert sorted(r["file_name"] for part in parts for r in part) == [
        record["file_name"] for record in load(folder)
    ]
    with pytest.raises(ValueError, match="share must be two rising numbers from 0 to 1"):
        load(folder, name=f"{NAME}_2", share=(0.5, 0.2))


def test_all_files_without_a_partner_are_told_at_once_by_kind(folder):
    # as many label maps as images, which Detectron2 would pair by their order
    (folder / "labels/a_2.png").rename(folder / "labels/c.png")
    (folder / "labels/more/b.png").rename(folder / "labels/b.png")
    with pytest.raises(ValueError) as e:
        load(folder)
    without_labels, without_image = str(e.value).split("\n")
    assert "images have no label map of their name (2: " in without_labels
    assert "images/a_2.jpg" in without_labels and "images/more/b.jpg" in without_labels
    assert "label maps have no image of their name (2: " in without_image
    assert "labels/b.png" in without_image and "labels/c.png" in without_image
    assert NAME not in DatasetCatalog.list()


def test_two_images_of_one_name_are_refused(folder):
    Image.new("RGB", (8, 6)).save(folder / "images/a_2.png")
    with pytest.raises(ValueError, match="have the name of another one, but for its extension"):
        load(folder)


def test_other_files_do_not_matter(folder):
    (folder / "labels/notes.txt").touch()
    (folder / "images/.hidden.jpg").touch()
    assert len(load(folder)) == 3


def test_a_folder_that_is_not_there_is_told(folder):
    with pytest.raises(FileNotFoundError, match="label maps must lie in a folder"):
        load(folder, sem_seg_root=str(folder / "lost"))


def test_a_folder_without_images_is_told(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="must hold images, and holds no image file"):
        load(folder, image_root=str(tmp_path / "empty"))
