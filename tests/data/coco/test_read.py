"""The reader gives the same sound records for every way in which a file says the same thing."""

import math

import coco_files
import pytest
from coco_files import HEIGHT, VALUES, WIDTH, changed, rectangle, sound
from PIL import Image

from detectron2.structures import BoxMode
from mimdet.data.coco import problems as p
from mimdet.data.coco.problems import Severity
from mimdet.data.coco.read import id_key, read_coco

FIELDS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"),
    "categories": ("id", "name"),
}


@pytest.fixture
def read(tmp_path):
    def read_content(content, **options):
        return read_coco(coco_files.write(tmp_path, content), tmp_path / "images", **options)

    return read_content


def test_a_sound_file_has_no_problems_and_is_its_own_truth(read, tmp_path):
    data = read(sound())
    assert len(data.problems) == 0 and data.is_own_truth
    assert data.classes == ["red", "blue"] and data.category_ids == [1, 2]
    assert [record["image_id"] for record in data.records] == [1, 2, 3]
    first = data.records[0]
    assert first["file_name"] == str(tmp_path / "images/1.png")
    assert (first["height"], first["width"]) == (HEIGHT, WIDTH)
    assert first["annotations"][0] == {
        **{"id": 1, "iscrowd": 0, "category_id": 0, "area": 384.0},
        **{"bbox": [8.0, 8.0, 24.0, 16.0], "bbox_mode": BoxMode.XYWH_ABS},
        "segmentation": [rectangle(8.0, 8.0, 24.0, 16.0)],
    }


def test_images_come_in_the_order_of_their_ids_whatever_the_file_has(read):
    content = sound()
    content["images"].reverse()
    assert [record["image_id"] for record in read(content).records] == [1, 2, 3]


def test_a_changed_file_is_read_again(read):
    assert len(read(sound(3)).records) == 3
    assert len(read(sound(4)).records) == 4


@pytest.mark.parametrize("section, field", [(s, f) for s, fields in FIELDS.items() for f in fields])
@pytest.mark.parametrize("value", [*VALUES, ...])
def test_any_json_value_in_any_field_leaves_sound_records_or_a_named_problem(
    read, section, field, value
):
    for entries in (slice(None), slice(1)):
        data = read(changed(section, field, value, entries))
        for record in data.records:
            assert type(record["image_id"]) is int and isinstance(record["file_name"], str)
            assert record["height"] > 0 and record["width"] > 0
            for annotation in record["annotations"]:
                x, y, width, height = annotation["bbox"]
                assert width > 0 and height > 0 and math.isfinite(x + y + width + height)
                assert annotation["iscrowd"] in (0, 1) and annotation["area"] > 0
                assert 0 <= annotation["category_id"] < len(data.classes)
        lost = sum(len(record["annotations"]) for record in data.records) < 6
        assert not lost or data.problems.kinds(Severity.REFUSED, Severity.DROPPED)
        for line in data.problems.lines():
            assert line.isprintable() and len(line) < 900


# ids


def test_ids_that_mean_the_same_are_one():
    assert id_key(7) == id_key(7.0) == id_key("7") == id_key(" 7 ") == 7
    assert id_key("007") == "007" and id_key("img-1") == "img-1" and id_key("-1") == -1
    assert {id_key(v) for v in (None, True, 7.5, "", " ", [], {}, float("1e400"))} == {None}


@pytest.mark.parametrize("first", [0, "1", 1.5, None, ..., 2])
def test_odd_annotation_ids_are_told_and_change_nothing(read, first):
    data = read(changed("annotations", "id", first, slice(1)))
    assert data.problems.kinds() == [p.ANNOTATION_ID] and not data.is_own_truth
    assert sum(len(record["annotations"]) for record in data.records) == 6


@pytest.mark.parametrize("write_id", [str, float])
@pytest.mark.parametrize("field", ["image_id", "category_id"])
def test_references_in_another_type_are_understood(read, write_id, field):
    content = sound()
    for annotation in content["annotations"]:
        annotation[field] = write_id(annotation[field])
    data = read(content)
    assert data.problems.kinds() == [p.ID_TEXT]
    assert data.records == read_as_sound(read)


def read_as_sound(read):
    return read(sound()).records


def test_image_ids_of_mixed_types_are_numbered_and_the_own_ones_kept(read):
    content = sound()
    content["images"][0]["id"] = "img-1"
    for annotation in content["annotations"][:2]:
        annotation["image_id"] = "img-1"
    data = read(content)
    assert sorted(record["image_id"] for record in data.records) == [1, 2, 3]
    assert data.file_image_ids == {1: "img-1"}
    assert [len(record["annotations"]) for record in data.records] == [2, 2, 2]
    assert data.problems.kinds() == [p.IMAGE_ID_TYPES]


def test_category_ids_as_text_are_whole_numbers_inside(read):
    content = sound()
    for category in content["categories"]:
        category["id"] = str(category["id"])
    data = read(content)
    assert data.category_ids == [1, 2] and data.file_category_ids == {1: "1", 2: "2"}
    words = sound()
    for entry, key in [(c, "id") for c in words["categories"]] + [
        (a, "category_id") for a in words["annotations"]
    ]:
        entry[key] = {1: "r", 2: "b"}[entry[key]]
    data = read(words)
    assert data.classes == ["red", "blue"] and data.category_ids == [1, 2]
    assert data.file_category_ids == {1: "r", 2: "b"}


def test_sparse_category_ids_become_classes_in_their_order(read):
    content = sound()
    content["categories"] = [{"id": 900, "name": "blue"}, {"id": 7, "name": "red"}]
    for annotation in content["annotations"]:
        annotation["category_id"] = {1: 7, 2: 900}[annotation["category_id"]]
    data = read(content)
    assert data.classes == ["red", "blue"] and data.category_ids == [7, 900]
    assert data.is_own_truth and data.file_category_ids == {}


def test_an_image_listed_again_is_used_once_and_another_with_its_id_refused(read):
    content = sound()
    content["images"].append(dict(content["images"][0]))
    assert read(content).problems.kinds() == [p.IMAGE_TWICE]
    content["images"][-1]["file_name"] = "other.png"
    assert read(content).problems.kinds() == [p.IMAGE_ID_TWICE]
    content["images"][-1]["id"] = "1"
    assert p.IMAGE_ID_TWICE in read(content).problems.kinds()


def test_references_to_nothing_are_left_out_or_refused(read):
    assert read(changed("annotations", "image_id", 99, slice(2))).problems[p.IMAGE_REFERENCE] == 2
    data = read(changed("annotations", "category_id", 99, slice(2)))
    assert data.problems.kinds() == [p.CATEGORY_REFERENCE]
    with pytest.raises(ValueError, match="have a category_id that is not in categories .2: "):
        data.problems.report()


# iscrowd


@pytest.mark.parametrize(
    "value, crowd",
    [(None, 0), (..., 0), (False, 0), ("0", 0), (0.0, 0), ("false", 0)]
    + [(True, 1), (2, 1), ("1", 1), (1.0, 1), ("True", 1), (-1, 1)],
)
def test_iscrowd_has_one_meaning(read, value, crowd):
    data = read(changed("annotations", "iscrowd", value, slice(0, 6, 2)))
    first = [record["annotations"][0]["iscrowd"] for record in data.records]
    assert first == [crowd] * 3
    assert data.problems[p.CROWD] == 3
    assert data.problems[p.ONLY_CROWDS] == crowd  # class red is made of crowds then


def test_iscrowd_without_a_meaning_is_refused(read):
    data = read(changed("annotations", "iscrowd", "perhaps", slice(1)))
    assert data.problems.kinds() == [p.CROWD_VALUE]


def test_ignored_objects_count_as_crowds(read):
    content = sound()
    content["annotations"][0]["ignore"] = 1
    data = read(content)
    assert data.problems.kinds() == [p.IGNORE]
    assert data.records[0]["annotations"][0]["iscrowd"] == 1


# geometry


@pytest.mark.parametrize(
    "box, kind",
    [
        ([8, 8, 0, 16], p.BOX_EMPTY),
        ([8, 8, 24, -1], p.BOX_EMPTY),
        ([64, 8, 24, 16], p.BOX_OUTSIDE),
        ([-24, 8, 24, 16], p.BOX_OUTSIDE),
        ([1e8, 8, 24, 16], p.TOO_FAR),
        ([8, 8, 10**40, 16], p.TOO_FAR),
        ([60, 8, 24, 16], p.BOX_REACHES_OUT),
        ([8, 8, 0.5, 0.5], p.BOX_TINY),
        (["8", "8", "24", "16"], p.NUMBERS_TEXT),
        ([1, 2, 3], p.BOX),
        ("8 8 24 16", p.BOX),
        (None, p.BOX),
    ],
)
def test_odd_boxes_are_named(read, box, kind):
    content = changed("annotations", "segmentation", None)
    content["annotations"][0]["bbox"] = box
    assert read(content).problems.kinds() == [kind]


def test_a_box_may_reach_out_by_a_pixel(read):
    content = changed("annotations", "segmentation", None)
    content["annotations"][0]["bbox"] = [-1, -1, WIDTH + 2, HEIGHT + 2]
    assert len(read(content).problems) == 0


def test_a_missing_box_is_that_around_the_polygons(read):
    data = read(changed("annotations", "bbox", None, slice(1)))
    assert data.problems.kinds() == [p.BOX_FROM_MASK]
    assert data.records[0]["annotations"][0]["bbox"] == [8.0, 8.0, 24.0, 16.0]


def test_boxes_in_shares_of_the_image_are_refused(read):
    content = changed("annotations", "segmentation", None)
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = [x / WIDTH, y / HEIGHT, width / WIDTH, height / HEIGHT]
    assert p.BOX_NORMALIZED in read(content).problems.kinds(Severity.REFUSED)


def test_polygons_with_x_and_y_swapped_do_not_fit_their_boxes(read):
    content = sound()
    for annotation in content["annotations"]:
        (polygon,) = annotation["segmentation"]
        annotation["segmentation"] = [[polygon[k ^ 1] for k in range(len(polygon))]]
    data = read(content)
    assert data.problems[p.POLYGON_DISAGREES] == 6


def test_a_loose_box_fits_its_polygon(read):
    content = sound()
    content["annotations"][0]["bbox"] = [6.0, 6.0, 28.0, 20.0]  # two pixels around it
    assert len(read(content).problems) == 0


def test_a_missing_area_is_measured(read):
    data = read(changed("annotations", "area", ...))
    assert data.problems.kinds() == [p.AREA]
    assert data.records[0]["annotations"][0]["area"] == 384.0
    without_mask = changed("annotations", "segmentation", [], slice(1))
    without_mask["annotations"][0].pop("area")
    assert read(without_mask).records[0]["annotations"][0]["area"] == 384.0


# classes and masks in part


def test_two_categories_of_one_name_stay_apart(read):
    content = sound()
    content["categories"][1]["name"] = "red"
    data = read(content)
    assert data.classes == ["red", "red (2)"]
    assert data.problems.kinds() == [p.CATEGORY_NAME_TWICE]


def test_objects_and_crowds_are_counted_by_class(read):
    data = read(changed("annotations", "iscrowd", 1, slice(0, 4, 2)))
    assert data.counts() == ([1, 3], [2, 0])


def test_objects_without_a_mask_are_found_and_no_problem_of_the_file(read):
    data = read(changed("annotations", "segmentation", ..., slice(2)))
    assert len(data.problems) == 0
    assert [annotation["id"] for _, annotation in data.without_mask()] == [1, 2]


# file names


@pytest.mark.parametrize(
    "name, kind",
    [
        (None, p.FILE_NAME),
        ("", p.FILE_NAME),
        (5, p.FILE_NAME),
        ("a\0.png", p.FILE_NAME),
        ("https://host/1.png", p.FILE_NAME_URL),
        ("images\\none.png", p.FILE_NAME_BACKSLASH),
        ("../1.png", p.FILE_NAME_OUTSIDE),
        ("/etc/1.png", p.FILE_NAME_OUTSIDE),
        ("2.png", p.FILE_NAME_TWICE),
    ],
)
def test_odd_file_names_are_named(read, name, kind):
    assert read(changed("images", "file_name", name, slice(1))).problems.kinds() == [kind]


def test_backslashes_are_read_where_the_file_exists(read, tmp_path):
    (tmp_path / "images/cam").mkdir(parents=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images/cam/1.png")
    data = read(changed("images", "file_name", "cam\\1.png", slice(1)))
    assert data.problems.kinds() == [p.FILE_NAME_WINDOWS]
    assert data.records[0]["file_name"] == str(tmp_path / "images/cam/1.png")


def test_paths_out_of_the_root_are_accepted_where_that_is_said(read, tmp_path):
    content = changed("images", "file_name", "../1.png", slice(1))
    data = read(content, allow_outside_root=True)
    assert len(data.problems) == 0
    inside = changed("images", "file_name", str(tmp_path / "images/1.png"), slice(1))
    assert len(read(inside).problems) == 0
