"""Parts of a dataset: some of its classes, some of its images."""

import coco_files
import pytest

from detectron2.data import MetadataCatalog
from mimdet.data.coco.read import read_coco
from mimdet.data.coco.register import load_coco_folder
from mimdet.data.coco.select import read_part


def names(data):
    return [record["file_name"] for record in data.records]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101])
def test_shares_that_meet_have_every_image_once_and_are_not_empty(tmp_path, count):
    path = coco_files.write(tmp_path, coco_files.sound(count))
    parts = [read_part(path, tmp_path, share=share) for share in ((0, 0.2), (0.2, 1))]
    assert sorted(sum(map(names, parts), [])) == sorted(names(read_coco(path, tmp_path)))
    sizes = [len(part.records) for part in parts]
    assert sizes == ([0, 1] if count == 1 else [max(1, round(0.2 * count)), count - sizes[0]])


def test_a_share_follows_from_names_and_not_from_the_order_in_the_file(tmp_path):
    content = coco_files.sound(20)
    one = coco_files.write(tmp_path, content, "one.json")
    content["images"].reverse()
    other = coco_files.write(tmp_path, content, "other.json")
    first, second = (names(read_part(path, tmp_path, share=(0, 0.3))) for path in (one, other))
    assert sorted(first) == sorted(second)
    assert sorted(first) != sorted(names(read_coco(one, tmp_path)))[:6]  # mixed, not cut off


def test_classes_are_numbered_as_they_are_given(tmp_path):
    path = coco_files.write(tmp_path, coco_files.sound())
    data = read_part(path, tmp_path, classes=["blue", "red"])
    assert (data.classes, data.category_ids) == (["blue", "red"], [2, 1])
    assert [a["category_id"] for a in data.records[0]["annotations"]] == [1, 0]
    whole = read_coco(path, tmp_path)
    assert [a["category_id"] for a in whole.records[0]["annotations"]] == [0, 1]  # untouched


def test_objects_of_other_classes_are_left_out_and_counted(tmp_path, caplog):
    path = coco_files.write(tmp_path, coco_files.sound())
    data = read_part(path, tmp_path, classes=["blue"])
    assert data.counts() == ([3], [0])
    assert "3 objects of other classes are left out" in caplog.text


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"classes": ["green"]}, "classes must be some of .*, and green is none of red, blue"),
        ({"share": (0.5, 0.5)}, "two rising numbers from 0 to 1, got 0.5 and 0.5"),
        ({"share": (0, 1.5)}, "two rising numbers from 0 to 1, got 0 and 1.5"),
    ],
)
def test_other_parts_are_refused(tmp_path, arguments, message):
    path = coco_files.write(tmp_path, coco_files.sound())
    with pytest.raises(ValueError, match=message):
        read_part(path, tmp_path, **arguments)


def test_the_evaluators_truth_is_of_the_part(tmp_path, monkeypatch):
    path = coco_files.write(tmp_path, coco_files.sound(10))
    with coco_files.own_catalogs(tmp_path, monkeypatch, "part"):
        records = load_coco_folder("part", path, str(tmp_path), classes=["blue"], share=[0, 0.2])
        truth = read_coco(MetadataCatalog.get("part").json_file, tmp_path)
    assert len(records) == len(truth.records) == 2
    assert (truth.classes, truth.category_ids) == (["blue"], [2])
