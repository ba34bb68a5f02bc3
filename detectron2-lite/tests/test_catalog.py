import copy
import os
import pickle

import pytest

from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog


@pytest.fixture
def catalog():
    return type(DatasetCatalog)()


@pytest.fixture
def metadata_catalog():
    return type(MetadataCatalog)()


def test_get_calls_the_function_each_time(catalog):
    calls = []
    catalog.register("toy", lambda: calls.append(1) or len(calls))
    assert [catalog.get("toy"), catalog.get("toy")] == [1, 2]


def test_catalog_behaves_like_a_dict_in_order_of_registration(catalog):
    for name in ("b", "a", "c"):
        catalog.register(name, list)
    assert catalog.list() == ["b", "a", "c"] and "a" in catalog
    assert catalog.pop("a") is list
    catalog.remove("b")
    assert catalog.list() == ["c"] and "a" not in catalog
    catalog.clear()
    assert catalog.list() == []


def test_registering_a_taken_name_is_an_error(catalog):
    catalog.register("toy", list)
    with pytest.raises(AssertionError, match="'toy' is already registered"):
        catalog.register("toy", list)


def test_registering_something_that_is_no_function_is_an_error(catalog):
    with pytest.raises(AssertionError, match="function"):
        catalog.register("toy", [1, 2])
    assert "toy" not in catalog


def test_unknown_name_is_an_error_that_lists_the_known_ones(catalog):
    catalog.register("known_set", list)
    with pytest.raises(KeyError, match="known_set"):
        catalog.get("unknown")


def test_metadata_is_created_once_per_name(metadata_catalog):
    first = metadata_catalog.get("toy")
    assert first is metadata_catalog.get("toy") and first.name == "toy"
    assert metadata_catalog.list() == ["toy"]
    metadata_catalog.remove("toy")
    assert metadata_catalog.list() == []
    assert metadata_catalog.get("toy") is not first
    assert metadata_catalog.pop("toy").name == "toy"


def test_metadata_without_a_dataset_name_is_an_error(metadata_catalog):
    with pytest.raises(AssertionError):
        metadata_catalog.get("")


def test_metadata_gives_back_what_was_set():
    metadata = Metadata(name="toy")
    assert metadata.set(a=1, b=[2]) is metadata
    metadata.c = 3
    assert (metadata.a, metadata.b, metadata.get("c"), metadata.get("d", 4)) == (1, [2], 3, 4)
    assert metadata.get("d") is None
    assert metadata.as_dict() == {"name": "toy", "a": 1, "b": [2], "c": 3}


def test_metadata_accepts_an_equal_value_and_refuses_another():
    metadata = Metadata(name="toy", thing_classes=["cat"])
    metadata.set(thing_classes=["cat"])
    metadata.thing_classes = ["cat"]
    with pytest.raises(AssertionError, match="'thing_classes'"):
        metadata.thing_classes = ["dog"]
    with pytest.raises(AssertionError, match="'toy'"):
        metadata.set(thing_classes=["dog"])


@pytest.mark.lite
def test_refused_values_leave_metadata_as_it_was():
    metadata = Metadata(a=1)
    with pytest.raises(AssertionError):
        metadata.set(b=2, a=2)
    assert metadata.get("b") is None and metadata.a == 1


@pytest.mark.lite
def test_missing_attribute_is_an_error_that_lists_the_known_ones():
    with pytest.raises(AttributeError, match="json_file"):
        _ = Metadata(json_file="x").thing_classes
    assert not hasattr(Metadata(), "thing_classes")


def test_metadata_can_be_copied_and_pickled():
    metadata = Metadata(name="toy", a=[1])
    for other in (copy.deepcopy(metadata), pickle.loads(pickle.dumps(metadata))):
        assert other.as_dict() == metadata.as_dict()
        other.b = 2
    assert metadata.get("b") is None


@pytest.mark.lite
def test_metadata_prints_its_values():
    assert repr(Metadata(name="toy", a=1)) == "Metadata(name='toy', a=1)"


COCO_NAMES = [
    "coco_2017_train",
    "coco_2017_val",
    "coco_2017_val_100",
    "coco_2017_test",
    "coco_2017_test-dev",
]


@pytest.mark.parametrize("name", COCO_NAMES)
def test_coco_classes_are_known_before_loading(name):
    metadata = MetadataCatalog.get(name)
    assert name in DatasetCatalog and metadata.evaluator_type == "coco"
    assert len(metadata.thing_classes) == 80 and len(set(metadata.thing_classes)) == 80
    assert (metadata.thing_classes[0], metadata.thing_classes[79]) == ("person", "toothbrush")
    id_map = metadata.thing_dataset_id_to_contiguous_id
    assert list(id_map.values()) == list(range(80)) and list(id_map) == sorted(id_map)
    unused = set(range(1, 91)) - set(id_map)
    assert unused == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83} and max(id_map) == 90


def test_coco_classes_are_those_of_torchvision():
    categories = pytest.importorskip("torchvision.models._meta")._COCO_CATEGORIES
    metadata = MetadataCatalog.get("coco_2017_val")
    ids = metadata.thing_dataset_id_to_contiguous_id
    assert metadata.thing_classes == [categories[i] for i in ids]


@pytest.mark.parametrize(
    "name, image_root, json_file",
    [
        ("coco_2017_train", "train2017", "instances_train2017.json"),
        ("coco_2017_val", "val2017", "instances_val2017.json"),
        ("coco_2017_val_100", "val2017", "instances_val2017_100.json"),
        ("coco_2017_test", "test2017", "image_info_test2017.json"),
        ("coco_2017_test-dev", "test2017", "image_info_test-dev2017.json"),
    ],
)
def test_coco_files_lie_where_the_official_archives_put_them(name, image_root, json_file):
    metadata = MetadataCatalog.get(name)
    assert metadata.image_root.endswith(os.path.join("coco", image_root))
    assert metadata.json_file.endswith(os.path.join("coco/annotations", json_file))


@pytest.mark.lite
def test_root_of_builtin_datasets_follows_the_environment(monkeypatch):
    metadata = MetadataCatalog.get("coco_2017_val")
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    assert metadata.image_root == "datasets/coco/val2017"
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data")
    assert metadata.image_root == "/data/coco/val2017"
    assert metadata.as_dict()["json_file"] == "/data/coco/annotations/instances_val2017.json"
    assert metadata.get("json_file") == metadata.as_dict()["json_file"]
    monkeypatch.setenv("DETECTRON2_DATASETS", "~/data")
    assert metadata.image_root == os.path.expanduser("~/data/coco/val2017")


def test_paths_of_builtin_datasets_keep_their_first_value():
    metadata = MetadataCatalog.get("coco_2017_val")
    metadata.set(json_file=metadata.json_file)
    with pytest.raises(AssertionError, match="'json_file'"):
        metadata.json_file = "elsewhere.json"


def test_metadata_of_builtin_datasets_can_be_copied_and_pickled():
    metadata = MetadataCatalog.get("coco_2017_val")
    for other in (copy.deepcopy(metadata), pickle.loads(pickle.dumps(metadata))):
        assert other.as_dict() == metadata.as_dict() and "json_file" in other.as_dict()
