import copy
import importlib
import json
import logging
import os
from pathlib import Path

import golden_data
import numpy as np
import pycocotools.mask as mask_util
import pytest
from torch.utils.data import Dataset

from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    get_detection_dataset_dicts,
    print_instances_class_histogram,
)
from detectron2.data.datasets import (
    convert_to_coco_json,
    load_coco_json,
    register_coco_instances,
)
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BoxMode

TINY = golden_data.GOLDEN / "tiny_coco"
EXPECTED = golden_data.load("data")[1]


@pytest.fixture(autouse=True)
def catalogs_are_left_as_they_were():
    datasets, metadata = set(DatasetCatalog), set(MetadataCatalog)
    yield
    for catalog, before in ((DatasetCatalog, datasets), (MetadataCatalog, metadata)):
        for name in set(catalog) - before:
            catalog.pop(name)


@pytest.fixture
def log(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
    caplog.set_level(logging.INFO, "detectron2")
    return caplog


@pytest.fixture
def tiny():
    register_coco_instances("tiny_set", {}, str(TINY / "instances.json"), str(TINY / "images"))
    return "tiny_set"


def annotation(**values) -> dict:
    default = {"id": 7, "image_id": 5, "category_id": 3, "iscrowd": 0, "bbox": [1, 2, 3, 4]}
    return default | {"segmentation": [[1, 1, 5, 1, 5, 5]]} | values


def content(*annotations) -> dict:
    return {
        "images": [
            {"id": 5, "file_name": "five.png", "height": 10, "width": 20},
            {"id": 4, "file_name": "four.png", "height": 30, "width": 40},
        ],
        "categories": [{"id": 9, "name": "nine"}, {"id": 3, "name": "three"}],
        "annotations": list(annotations),
    }


@pytest.fixture
def write(tmp_path):
    def write(value, name="anno.json") -> str:
        (tmp_path / name).write_text(value if isinstance(value, str) else json.dumps(value))
        return str(tmp_path / name)

    return write


def readable(records: list[dict]) -> list[dict]:
    """Records in the form in which the reference file holds them."""
    records = copy.deepcopy(records)
    for record in records:
        record["file_name"] = os.path.basename(record["file_name"])
        for anno in record["annotations"]:
            anno["bbox_mode"] = str(BoxMode(anno["bbox_mode"]))
            if isinstance(anno["segmentation"], dict):
                counts = anno["segmentation"]["counts"]
                text = counts.decode() if isinstance(counts, bytes) else counts
                anno["segmentation"] = {"size": list(anno["segmentation"]["size"]), "counts": text}
    return records


# Loading against stored outputs


def test_records_of_a_small_dataset_equal_the_reference(tiny):
    expected = copy.deepcopy(EXPECTED["load_coco_json"]["dicts"])
    for record in expected:
        for anno in record["annotations"]:
            anno["bbox_mode"] = str(getattr(BoxMode, anno["bbox_mode"].split(".")[-1]))
    assert readable(DatasetCatalog.get(tiny)) == expected


def test_metadata_of_a_small_dataset_equals_the_reference(tiny):
    expected = EXPECTED["load_coco_json"]
    DatasetCatalog.get(tiny)
    metadata = MetadataCatalog.get(tiny)
    assert metadata.thing_classes == expected["thing_classes"]
    id_map = {str(k): v for k, v in metadata.thing_dataset_id_to_contiguous_id.items()}
    assert id_map == expected["thing_dataset_id_to_contiguous_id"]
    assert metadata.evaluator_type == expected["evaluator_type"]
    assert sorted(metadata.as_dict()) == expected["metadata_keys"]


def test_category_ids_stay_without_a_dataset_name():
    records = load_coco_json(str(TINY / "instances.json"), str(TINY / "images"))
    ids = [[a["category_id"] for a in r["annotations"]] for r in records]
    assert ids == EXPECTED["load_coco_json"]["category_ids_without_dataset_name"]


def test_dataset_dicts_are_those_of_the_reference(tiny):
    expected = EXPECTED["get_detection_dataset_dicts"]
    register_coco_instances("tiny_too", {}, str(TINY / "instances.json"), str(TINY / "images"))

    def image_ids(names, filter_empty):
        records = get_detection_dataset_dicts(names, filter_empty=filter_empty)
        return [record["image_id"] for record in records]

    assert image_ids(tiny, True) == expected["filter_empty=True"]
    assert image_ids([tiny], False) == expected["filter_empty=False"]
    assert image_ids([tiny, "tiny_too"], False) == expected["two_names_filter_false"]


# Loading by hand


def test_images_are_sorted_and_files_are_under_the_root(write, log):
    records = load_coco_json(write(content(annotation())), "root")
    assert [r["image_id"] for r in records] == [4, 5]
    assert [r["file_name"] for r in records] == ["root/four.png", "root/five.png"]
    assert (records[0]["height"], records[0]["width"], records[0]["annotations"]) == (30, 40, [])
    assert "Loaded 2 images in COCO format from" in log.text


def test_paths_may_be_path_objects(write):
    register_coco_instances("toy_set", {}, Path(write(content(annotation()))), Path("root"))
    assert DatasetCatalog.get("toy_set")[1]["file_name"] == "root/five.png"


def test_category_ids_become_ranks_with_a_warning(write, log):
    file = write(content(annotation(category_id=9), annotation(id=8)))
    record = load_coco_json(file, "root", "toy_set")[1]
    assert [a["category_id"] for a in record["annotations"]] == [1, 0]
    assert MetadataCatalog.get("toy_set").thing_classes == ["three", "nine"]
    assert [r.levelname for r in log.records].count("WARNING") == 1
    assert "mapp" in log.text


def test_mapping_of_category_ids_is_expected_of_coco(write, log):
    load_coco_json(write(content(annotation())), "root", "my_coco_set")
    assert "WARNING" not in [r.levelname for r in log.records]


def test_file_without_annotations_gives_records(write):
    value = content()
    del value["annotations"]
    records = load_coco_json(write(value), "root", "toy_set")
    assert [r["annotations"] for r in records] == [[], []]


def test_annotation_without_segmentation_has_no_such_key(write):
    file = write(content(annotation(segmentation=[])))
    (anno,) = load_coco_json(file, "root")[1]["annotations"]
    assert "segmentation" not in anno and anno["bbox"] == [1, 2, 3, 4]
    assert anno["bbox_mode"] == BoxMode.XYWH_ABS


@pytest.mark.lite
def test_short_polygons_vanish_and_take_an_empty_annotation_along(write, log):
    good = [1, 1, 5, 1, 5, 5]
    file = write(
        content(
            annotation(segmentation=[good, [1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7]]),
            annotation(id=8, segmentation=[[1, 2, 3, 4]]),
        )
    )
    (anno,) = load_coco_json(file, "root")[1]["annotations"]
    assert anno["segmentation"] == [good]
    (warning,) = [r.getMessage() for r in log.records if r.levelname == "WARNING"]
    assert "1" in warning and file in warning


def test_uncompressed_rle_is_compressed_and_compressed_rle_is_kept(write):
    mask = np.zeros((10, 20), dtype=np.uint8, order="F")
    mask[2:5, 3:9] = 1
    compressed = mask_util.encode(mask)
    counts = compressed["counts"].decode()
    plain = [32, 3, 7, 3, 7, 3, 7, 3, 7, 3, 7, 3, 115]
    file = write(
        content(
            annotation(segmentation={"size": [10, 20], "counts": plain}),
            annotation(id=8, segmentation={"size": [10, 20], "counts": counts}),
        )
    )
    annos = load_coco_json(file, "root")[1]["annotations"]
    for anno in annos:
        np.testing.assert_array_equal(mask_util.decode(anno["segmentation"]), mask)
    assert annos[1]["segmentation"] == {"size": [10, 20], "counts": counts}


def test_keypoints_move_to_pixel_centres(write):
    file = write(content(annotation(keypoints=[1, 2, 2, 0, 0, 0])))
    (anno,) = load_coco_json(file, "root")[1]["annotations"]
    assert anno["keypoints"] == [1.5, 2.5, 2, 0.5, 0.5, 0]


def test_extra_keys_are_copied_on_request(write):
    file = write(content(annotation(depth=3, colour="red")))
    (anno,) = load_coco_json(file, "root", extra_annotation_keys=["depth"])[1]["annotations"]
    assert anno["depth"] == 3 and "colour" not in anno


def test_annotations_of_unknown_images_are_counted_in_a_warning(write, log):
    file = write(content(annotation(), annotation(id=8, image_id=999)))
    records = load_coco_json(file, "root")
    assert sum(len(r["annotations"]) for r in records) == 1
    (warning,) = [r.getMessage() for r in log.records if r.levelname == "WARNING"]
    assert "2 annotations" in warning and "only 1" in warning


# Errors in files


def test_repeated_annotation_ids_are_an_error_except_in_minival(write):
    value = content(annotation(), annotation())
    with pytest.raises(AssertionError):
        load_coco_json(write(value), "root")
    records = load_coco_json(write(value, "instances_minival2014.json"), "root")
    assert len(records[1]["annotations"]) == 2


def test_ignored_annotation_is_an_error(write):
    with pytest.raises(AssertionError, match="ignore"):
        load_coco_json(write(content(annotation(ignore=1))), "root")


def test_empty_box_is_an_error(write):
    with pytest.raises(ValueError, match="empty.*bbox"):
        load_coco_json(write(content(annotation(bbox=[]))), "root")


def test_unknown_category_is_an_error(write):
    with pytest.raises(KeyError, match="category_id"):
        load_coco_json(write(content(annotation(category_id=4))), "root", "toy_set")


@pytest.mark.lite
def test_unknown_category_is_reported_with_file_and_annotation(write):
    file = write(content(annotation(category_id=4)))
    with pytest.raises(KeyError, match=rf"annotation 7 of image 5 in {file}.*category_id 4"):
        load_coco_json(file, "root", "toy_set")


@pytest.mark.lite
@pytest.mark.parametrize("name", [None, "toy_set"])
def test_annotation_without_category_is_reported_with_file_and_annotation(write, name):
    broken = annotation()
    del broken["category_id"]
    file = write(content(annotation(id=6), broken))
    with pytest.raises(KeyError, match=rf"annotations\[1\] \(id 7\) in {file}.*'category_id'"):
        load_coco_json(file, "root", name)


@pytest.mark.lite
@pytest.mark.parametrize(
    "section, key",
    [
        ("images", "file_name"),
        ("images", "height"),
        ("annotations", "image_id"),
        ("categories", "name"),
    ],
)
def test_entries_that_lack_a_key_are_named(write, section, key):
    value = content(annotation())
    del value[section][0][key]
    with pytest.raises(KeyError, match=rf"{section}\[0\].*has no '{key}'"):
        load_coco_json(write(value), "root")


@pytest.mark.lite
def test_entry_that_is_no_object_is_named(write):
    with pytest.raises(ValueError, match=r"annotations\[0\] in .* must be an object, got 'x'"):
        load_coco_json(write(content("x")), "root")


@pytest.mark.lite
@pytest.mark.parametrize(
    "segmentation, message",
    [("polygon", "neither a list"), ({"size": [10, 20]}, "needs the keys 'size' and 'counts'")],
)
def test_unreadable_segmentation_is_reported_with_its_annotation(write, segmentation, message):
    file = write(content(annotation(segmentation=segmentation)))
    with pytest.raises(ValueError, match=rf"annotation 7 of image 5 in {file}.*{message}"):
        load_coco_json(file, "root")


@pytest.mark.lite
def test_names_of_classes_need_categories(write):
    value = content(annotation())
    del value["categories"]
    with pytest.raises(KeyError, match="has no 'categories', which dataset 'toy_set' needs"):
        load_coco_json(write(value), "root", "toy_set")


@pytest.mark.lite
@pytest.mark.parametrize("value", ["[]", "3", '{"annotations": []}', '{"images": {}}'])
def test_json_of_another_kind_is_an_error_that_names_the_file(write, value):
    file = write(value)
    with pytest.raises(ValueError, match=rf"{file} must hold a JSON object with a list 'images'"):
        load_coco_json(file, "root")


@pytest.mark.lite
def test_section_that_is_no_list_is_named(write):
    file = write(content() | {"annotations": None})
    with pytest.raises(ValueError, match=rf"{file} must hold .* a list 'annotations', got None"):
        load_coco_json(file, "root")


@pytest.mark.lite
def test_cut_file_is_an_error_that_names_the_file(write):
    file = write(json.dumps(content(annotation()))[:-20])
    with pytest.raises(ValueError, match=rf"{file} is not valid JSON .*cut short"):
        load_coco_json(file, "root")


@pytest.mark.lite
def test_missing_file_is_an_error_that_names_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/coco.*DETECTRON2_DATASETS"):
        DatasetCatalog.get("coco_2017_val")


@pytest.mark.lite
def test_builtin_names_load_from_the_root_of_the_moment(monkeypatch, tmp_path):
    names = MetadataCatalog.get("coco_2017_val").thing_classes
    ids = MetadataCatalog.get("coco_2017_val").thing_dataset_id_to_contiguous_id
    value = content(annotation(category_id=90))
    value["categories"] = [{"id": i, "name": names[k]} for i, k in ids.items()]
    (tmp_path / "coco/annotations").mkdir(parents=True)
    (tmp_path / "coco/annotations/instances_val2017.json").write_text(json.dumps(value))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    record = DatasetCatalog.get("coco_2017_val")[1]
    assert record["file_name"] == str(tmp_path / "coco/val2017/five.png")
    assert record["annotations"][0]["category_id"] == 79


# Registration


def test_registering_reads_no_file_and_sets_metadata():
    register_coco_instances("toy_set", {"colour": "red"}, "nowhere.json", "root")
    metadata = MetadataCatalog.get("toy_set")
    assert (metadata.json_file, metadata.image_root) == ("nowhere.json", "root")
    assert (metadata.evaluator_type, metadata.colour) == ("coco", "red")
    with pytest.raises(FileNotFoundError):
        DatasetCatalog.get("toy_set")


def test_registering_again_is_accepted_if_it_agrees(tiny):
    register_coco_instances(tiny, {}, str(TINY / "instances.json"), str(TINY / "images"))
    with pytest.raises(AssertionError):
        register_coco_instances(tiny, {}, "other.json", str(TINY / "images"))
    assert len(DatasetCatalog.get(tiny)) == 6


def test_registration_checks_its_arguments():
    with pytest.raises(AssertionError):
        register_coco_instances(3, {}, "a.json", "root")
    with pytest.raises(AssertionError):
        register_coco_instances("toy_set", {}, None, "root")
    with pytest.raises(AssertionError):
        register_coco_instances("toy_set", {}, "a.json", 3)


def test_second_file_with_other_classes_under_one_name_is_an_error(write):
    load_coco_json(write(content(annotation())), "root", "toy_set")
    other = content(annotation())
    other["categories"][0]["name"] = "ten"
    with pytest.raises(AssertionError):
        load_coco_json(write(other, "other.json"), "root", "toy_set")


# The parsed file is kept


@pytest.fixture
def parses(monkeypatch):
    count = []
    original = json.load
    monkeypatch.setattr(json, "load", lambda f: count.append(1) or original(f))
    return count


@pytest.mark.lite
def test_file_is_parsed_once_for_records_and_evaluation(write, parses):
    file = write(content(annotation(iscrowd=1, area=8)))
    MetadataCatalog.get("parsed_once").json_file = file
    try:
        for _ in range(2):
            load_coco_json(file, "root")
            COCOEvaluator("parsed_once", distributed=False)
    finally:
        MetadataCatalog.remove("parsed_once")
    assert len(parses) == 1


@pytest.mark.lite
def test_changed_file_is_parsed_again(write, parses):
    file = write(content(annotation()))
    load_coco_json(file, "root")
    write(content(annotation(), annotation(id=8)))
    os.utime(file, ns=(1, 1))
    assert len(load_coco_json(file, "root")[1]["annotations"]) == 2
    assert len(parses) == 2


@pytest.mark.lite
def test_training_and_test_file_are_kept_and_no_third_one(write, parses):
    train, test, other = (write(content(annotation()), f"{i}.json") for i in range(3))
    for file in (train, test, train, test):
        load_coco_json(file, "root")
    assert len(parses) == 2
    for file in (other, test, train):
        load_coco_json(file, "root")
    assert len(parses) == 4


@pytest.mark.lite
def test_file_that_failed_is_read_again(write):
    file = write("[")
    with pytest.raises(ValueError, match="not valid JSON"):
        load_coco_json(file, "root")
    write(content(annotation()))
    assert len(load_coco_json(file, "root")) == 2


@pytest.mark.lite
def test_changed_records_do_not_change_what_others_get(write):
    rle = {"size": [10, 20], "counts": "T25"}
    annos = (annotation(keypoints=[1, 2, 2], extra=[1]), annotation(id=8, segmentation=rle))
    file = write(content(*annos))
    load = lambda: load_coco_json(file, "root", extra_annotation_keys=["extra"])  # noqa: E731
    records, expected = load(), load()
    for anno in records[1]["annotations"]:
        for value in anno.values():
            if isinstance(value, list):
                value.clear()
        if isinstance(anno["segmentation"], dict):
            anno["segmentation"].clear()
    records[1]["annotations"].clear()
    assert load() == expected


# get_detection_dataset_dicts


def test_removed_images_are_counted_in_the_log(tiny, log):
    get_detection_dataset_dicts(tiny)
    assert "Removed 2 images with no usable annotations. 4 images left." in log.text


def test_distribution_of_instances_does_not_count_crowds(tiny, log):
    # The name of the fourth class keeps this table apart from those that were logged before.
    records = DatasetCatalog.get(tiny)
    print_instances_class_histogram(records, ["a", "b", "c", "unused_here"])
    print_instances_class_histogram(records, ["a", "b", "c", "unused_here"])
    (message,) = [r.getMessage() for r in log.records if "Distribution of" in r.getMessage()]
    assert "Distribution of instances among all 4 categories" in message
    row = [int(x) for x in message.replace("|", " ").split() if x.isdigit()]
    assert row[-1] == sum(a["iscrowd"] == 0 for r in records for a in r["annotations"]) == 12


def test_category_outside_of_the_classes_is_an_error(tiny):
    with pytest.raises(AssertionError, match="category_id"):
        print_instances_class_histogram(DatasetCatalog.get(tiny), ["a", "b"])


def test_category_of_a_crowd_region_is_not_checked():
    crowd = {"iscrowd": 1, "category_id": 255}
    print_instances_class_histogram([{"annotations": [crowd]}], ["a", "b"])


def test_unknown_dataset_is_an_error_after_a_warning(tiny, log):
    with pytest.raises(KeyError, match="no_such_set"):
        get_detection_dataset_dicts([tiny, "no_such_set"])
    assert any(r.levelname == "WARNING" and "no_such_set" in r.getMessage() for r in log.records)


def test_no_name_and_empty_dataset_are_errors():
    DatasetCatalog.register("empty_set", list)
    with pytest.raises(AssertionError):
        get_detection_dataset_dicts([])
    with pytest.raises(AssertionError, match="empty"):
        get_detection_dataset_dicts("empty_set")


def test_dataset_of_crowds_only_is_an_error_when_filtered():
    record = {"image_id": 1, "annotations": [{"iscrowd": 1, "category_id": 0}]}
    DatasetCatalog.register("crowd_set", lambda: [record])
    with pytest.raises(AssertionError, match="crowd_set"):
        get_detection_dataset_dicts("crowd_set", check_consistency=False)
    assert get_detection_dataset_dicts("crowd_set", filter_empty=False) == [record]


@pytest.mark.lite
def test_record_without_annotations_among_others_counts_as_empty():
    records = [{"image_id": 1, "annotations": [{"category_id": 0}]}, {"image_id": 2}]
    DatasetCatalog.register("partial_set", lambda: records)
    MetadataCatalog.get("partial_set").set(thing_classes=["only_here"])
    assert get_detection_dataset_dicts("partial_set") == records[:1]
    assert get_detection_dataset_dicts("partial_set", filter_empty=False) == records


def test_datasets_with_other_classes_are_an_error_unless_unchecked(tiny, write):
    register_coco_instances("other_set", {}, write(content(annotation())), "root")
    with pytest.raises(ValueError, match="thing_classes"):
        get_detection_dataset_dicts([tiny, "other_set"])
    assert len(get_detection_dataset_dicts([tiny, "other_set"], check_consistency=False)) == 5


def test_datasets_without_class_names_are_not_checked():
    record = {"image_id": 1, "annotations": [{"category_id": 0}]}
    DatasetCatalog.register("nameless_set", lambda: [record])
    assert get_detection_dataset_dicts("nameless_set") == [record]


def test_registered_dataset_object_is_given_back():
    class Squares(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return index**2

    squares = Squares()
    DatasetCatalog.register("squares", lambda: squares)
    DatasetCatalog.register("more_squares", lambda: squares)
    assert get_detection_dataset_dicts("squares") is squares
    both = get_detection_dataset_dicts(["squares", "more_squares"])
    assert [both[i] for i in range(6)] == [0, 1, 4, 0, 1, 4]


@pytest.mark.lite
@pytest.mark.parametrize("unsupported", [{"min_keypoints": 1}, {"proposal_files": ["a"]}])
def test_keypoints_and_proposals_are_refused(tiny, unsupported):
    with pytest.raises(ValueError, match="not supported"):
        get_detection_dataset_dicts(tiny, **unsupported)


# Writing


def test_written_file_reads_back_as_the_same_dataset(tiny, tmp_path):
    output = tmp_path / "folder/out.json"
    convert_to_coco_json(tiny, str(output))
    written = json.loads(output.read_text())
    assert [c["id"] for c in written["categories"]] == [1, 3, 7]
    assert [a["id"] for a in written["annotations"]] == list(range(1, 15))
    expected = DatasetCatalog.get(tiny)
    for record in expected:
        record["file_name"] = os.path.basename(record["file_name"])
    copy_of_tiny = load_coco_json(str(output), "", "tiny_copy")
    assert readable(copy_of_tiny) == readable(expected)


def test_area_is_that_of_polygons_then_rle_then_box(tmp_path):
    square, mode = [0, 0, 4, 0, 4, 4, 0, 4], BoxMode.XYXY_ABS
    rle = mask_util.encode(np.asfortranarray(np.eye(6, dtype=np.uint8)))
    annos = [
        {"segmentation": [square, square]},
        {"segmentation": rle},
        {},
    ]
    annos = [{"bbox": [1, 1.23456, 7, 5], "bbox_mode": mode, "category_id": 1} | a for a in annos]
    record = {"file_name": "a.png", "height": 6, "width": 6, "annotations": annos}
    DatasetCatalog.register("area_set", lambda: [record])
    MetadataCatalog.get("area_set").set(thing_classes=["a", "b"])
    convert_to_coco_json("area_set", str(tmp_path / "out.json"))
    written = json.loads((tmp_path / "out.json").read_text())
    areas = [a["area"] for a in written["annotations"]]
    assert areas == pytest.approx([32, 6, 6 * (5 - 1.23456)], rel=1e-6)
    assert written["annotations"][0]["bbox"] == [1, 1.235, 6, 3.765]
    assert written["annotations"][2]["category_id"] == 1 and written["images"][0]["id"] == 0


def test_existing_file_is_reused_with_a_warning_unless_forbidden(tiny, tmp_path, log):
    output = tmp_path / "out.json"
    output.write_text("old")
    convert_to_coco_json(tiny, str(output))
    assert output.read_text() == "old"
    assert any(r.levelname == "WARNING" and str(output) in r.getMessage() for r in log.records)
    convert_to_coco_json(tiny, str(output), allow_cached=False)
    assert json.loads(output.read_text())["images"]
    assert {path.name for path in tmp_path.iterdir()} <= {"out.json", "out.json.lock"}


def test_dataset_without_annotations_is_written_without_the_key(tmp_path):
    record = {"file_name": "a.png", "height": 6, "width": 6, "image_id": 3}
    DatasetCatalog.register("bare_set", lambda: [record])
    MetadataCatalog.get("bare_set").set(thing_classes=["a"])
    convert_to_coco_json("bare_set", str(tmp_path / "out.json"))
    assert "annotations" not in json.loads((tmp_path / "out.json").read_text())


@pytest.mark.lite
@pytest.mark.parametrize(
    "values, error, message",
    [
        ({"category_id": 5}, KeyError, "image 3 of dataset 'odd_set' has category_id 5"),
        ({"segmentation": np.ones((6, 6))}, TypeError, "segmentation of type ndarray"),
    ],
)
def test_annotations_that_cannot_be_written_are_named(tmp_path, values, error, message):
    anno = {"bbox": [1, 1, 2, 2], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0} | values
    record = {"file_name": "a", "height": 6, "width": 6, "image_id": 3, "annotations": [anno]}
    DatasetCatalog.register("odd_set", lambda: [record])
    MetadataCatalog.get("odd_set").set(thing_classes=["a"])
    with pytest.raises(error, match=message):
        convert_to_coco_json("odd_set", str(tmp_path / "out.json"))
    assert not (tmp_path / "out.json").exists()


@pytest.mark.lite
def test_uncompressed_rle_is_written_compressed(tmp_path):
    anno = {"bbox": [0, 0, 2, 2], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    anno["segmentation"] = {"size": [3, 4], "counts": [1, 2, 9]}
    record = {"file_name": "a", "height": 3, "width": 4, "annotations": [anno]}
    DatasetCatalog.register("rle_set", lambda: [record])
    MetadataCatalog.get("rle_set").set(thing_classes=["a"])
    convert_to_coco_json("rle_set", str(tmp_path / "out.json"))
    (written,) = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert written["area"] == 2 and isinstance(written["segmentation"]["counts"], str)


@pytest.mark.lite
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("detectron2.data", "load_proposals_into_dataset"),
        ("detectron2.data.datasets", "register_coco_panoptic"),
        ("detectron2.data.transforms", "RandomRotation"),
    ],
)
def test_a_name_that_is_left_out_explains_itself(module, name):
    with pytest.raises(ImportError, match=f"{module}.{name} is not part of detectron2-lite"):
        getattr(importlib.import_module(module), name)
