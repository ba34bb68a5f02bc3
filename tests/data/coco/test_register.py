"""Datasets from folders in COCO format."""

import json

import pytest
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from mimdet.data.datasets import load_coco_folder

NAME = "test_load_coco_folder"


@pytest.fixture(autouse=True)
def _catalogs():
    yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        for name in [n for n in catalog.list() if n.startswith(NAME)]:
            catalog.remove(name)


@pytest.fixture
def folder(tmp_path):
    """Three images: with an object, without any, with only a crowd."""
    (tmp_path / "images").mkdir()
    images = [dict(id=k, file_name=f"{k}.png", height=8, width=10) for k in (5, 7, 9)]
    for image in images:
        Image.new("RGB", (10, 8)).save(tmp_path / "images" / image["file_name"])
    square = dict(bbox=[1, 2, 4, 4], area=16, category_id=40)
    annotations = [
        dict(square, id=1, image_id=5, iscrowd=0, segmentation=[[1, 2, 5, 2, 5, 6, 1, 6]]),
        dict(square, id=2, image_id=9, iscrowd=1, segmentation=dict(size=[8, 10], counts=[0, 80])),
    ]
    categories = [dict(id=20, name="cat"), dict(id=40, name="dog")]
    content = dict(images=images, annotations=annotations, categories=categories)
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def arguments(folder, **changes) -> dict:
    return {
        "name": NAME,
        "json_file": str(folder / "instances.json"),
        "image_root": str(folder / "images"),
        **changes,
    }


def test_images_come_with_paths_sizes_and_classes_from_zero(folder):
    dicts = load_coco_folder(**arguments(folder), filter_empty=False)
    assert [d["image_id"] for d in dicts] == [5, 7, 9]
    assert dicts[0]["file_name"] == str(folder / "images/5.png")
    assert (dicts[0]["height"], dicts[0]["width"]) == (8, 10)
    (annotation,) = dicts[0]["annotations"]
    assert annotation["category_id"] == 1
    assert annotation["bbox"] == [1, 2, 4, 4]
    assert dicts[1]["annotations"] == []


def test_images_without_an_object_that_is_no_crowd_are_left_out_for_training(folder):
    assert [d["image_id"] for d in load_coco_folder(**arguments(folder))] == [5]


def test_an_evaluator_finds_the_annotations_and_class_names_under_the_name(folder):
    load_coco_folder(**arguments(folder))
    metadata = MetadataCatalog.get(NAME)
    assert metadata.thing_classes == ["cat", "dog"]
    assert metadata.json_file == str(folder / "instances.json")
    assert metadata.image_root == str(folder / "images")
    assert metadata.evaluator_type == "coco"


def test_the_same_dataset_can_be_loaded_twice_and_each_time_anew(folder):
    first = load_coco_folder(**arguments(folder))
    first[0]["annotations"].clear()
    assert len(load_coco_folder(**arguments(folder))[0]["annotations"]) == 1
    assert len(load_coco_folder(**arguments(folder), filter_empty=False)) == 3


def test_one_name_for_two_datasets_is_refused(folder):
    load_coco_folder(**arguments(folder))
    other = folder / "other.json"
    other.write_bytes((folder / "instances.json").read_bytes())
    with pytest.raises(ValueError, match=f"{NAME}' is already .*instances.json.* and not .*other"):
        load_coco_folder(**arguments(folder, json_file=str(other)))
    with pytest.raises(ValueError, match="choose another name .dataloader.*.dataset.name"):
        load_coco_folder(**arguments(folder, image_root=str(folder)))
    assert load_coco_folder(**arguments(folder, name=f"{NAME}_2", json_file=str(other)))


def test_missing_annotations_are_named_with_their_dataset_and_config_key(folder):
    with pytest.raises(FileNotFoundError) as e:
        load_coco_folder(**arguments(folder, json_file=str(folder / "none.json")))
    assert str(e.value) == (
        f"dataset {NAME!r} needs the annotations {folder / 'none.json'}, and there is no such "
        "file (dataloader.*.dataset.json_file)"
    )
    assert NAME not in DatasetCatalog.list()


def test_missing_image_folder_is_named_with_its_dataset_and_config_key(folder):
    with pytest.raises(FileNotFoundError, match=f"{NAME}' needs the image folder .*none") as e:
        load_coco_folder(**arguments(folder, image_root=str(folder / "none")))
    assert "dataloader.*.dataset.image_root" in str(e.value)
    assert NAME not in DatasetCatalog.list()
