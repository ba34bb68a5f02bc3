"""The checker reports every real fault, and nothing about data without one."""

import copy
import random

import coco_files
import pycocotools.mask as mask_util
import pytest
from coco_files import HEIGHT, WIDTH, rectangle, sound
from PIL import Image

from mimdet.data.coco.check import check_coco_dataset

# (list, field, values of real files that must be reported); `...` removes the field.
FAULTS = (
    ("annotations", "id", (0, None, "1", 1.5, -1, True, ...)),
    ("annotations", "image_id", (99, None, "1.png", True, [1], ...)),
    ("annotations", "category_id", (0, 99, None, "red", True, {}, ...)),
    ("annotations", "iscrowd", (None, "0", True, 2, "yes", [], ...)),
    ("annotations", "ignore", (1, True, "1")),
    ("annotations", "area", (0, -4, None, "12", 1e30, ...)),
    ("annotations", "bbox", ([0, 0, 0, 5], [3, 3, -4, 8], [70, 2, 5, 5], [8, 8, 24], "8,8,24,16")),
    (
        "annotations",
        "bbox",
        (None, {"x": 8}, ["8", "8", "24", "16"], [1e8, 0, 5, 5], [40, 2, 60, 9]),
    ),
    ("annotations", "bbox", ([0.1, 0.2, 0.3, 0.4], [1, 1, 5, 3e9], ...)),
    ("annotations", "segmentation", ([[8, 8, 9]], [[8, 8, 9, 9]], "polygon", 7, [[None] * 6])),
    ("annotations", "segmentation", ([[1e9, 8, 9, 9, 8, 9]], [8, 8, 32, 8, 32, 24, 8, 24])),
    ("annotations", "segmentation", ([[[8, 8], [32, 8], [32, 24]]], [[8, 8, 20, 16, 32, 24]])),
    ("annotations", "segmentation", ({"size": [1, 1], "counts": "1"}, {"counts": [48 * 64]})),
    (
        "annotations",
        "segmentation",
        ([[1, 40, 9, 40, 9, 47, 1, 47]], [["a"] * 6], [{"x": 8, "y": 8}]),
    ),
    ("images", "id", (None, "a", 2.5, True, [], ...)),
    (
        "images",
        "file_name",
        (None, 7, "", "none.png", "a\\1.png", "http://a/1.png", "/etc/hosts", ...),
    ),
    ("images", "file_name", ("../1.png", "2.png", "./2.png", ".")),
    ("images", "height", (0, None, -48, "48", 48.5, WIDTH, ...)),
    ("images", "width", (0, None, "wide", HEIGHT, 10**10, ...)),
    ("categories", "id", (None, "1", 2, True, ...)),
    ("categories", "name", (None, 7, "", "  ", "blue", [], ...)),
)


@pytest.fixture
def lines(tmp_path):
    """Check a content -> its lines of problems, without notes."""
    (tmp_path / "images").mkdir()
    for k in range(1, 9):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"images/{k}.png")

    def run(content) -> list[str]:
        path = coco_files.write(tmp_path, content)
        count, found = check_coco_dataset(path, tmp_path / "images")
        found = [line for line in found if "note: " not in line]
        assert bool(found) == bool(count)
        return found

    return run


@pytest.mark.parametrize("seed", range(60))
def test_a_fault_of_any_kind_is_reported(lines, seed):
    draw = random.Random(seed)
    section, field, values = draw.choice(FAULTS)
    value, content = draw.choice(values), sound()
    # The first entry: a category 1 of two, an image 1 of three.
    entry = content[section][draw.randrange(6) if section == "annotations" else 0]
    entry.pop(field, None)
    if value is not ...:
        entry[field] = copy.deepcopy(value)
    assert lines(content), f"{section}.{field} = {value!r}"


@pytest.mark.parametrize("seed", range(20))
def test_data_without_a_fault_have_no_problem(lines, seed):
    assert lines(_clean(random.Random(seed))) == []


def _clean(draw: random.Random) -> dict:
    """Sparse ids in any order, and objects as boxes, polygons, parts, RLE and crowds."""
    images = draw.sample(range(1, 10**12), draw.randint(1, 8))
    categories = draw.sample(range(91), draw.randint(1, 5))
    makers = [_boxes_alone] if draw.random() < 0.2 else [_polygon, _parts, _run_lengths, _crowd]
    content = {
        "info": {"year": 2026},
        "licenses": [],
        "images": [
            {"id": i, "file_name": f"{k}.png", "height": HEIGHT, "width": WIDTH, "license": 1}
            for k, i in enumerate(images, start=1)
        ],
        "annotations": [],
        "categories": [{"id": i, "name": f"class {i}", "supercategory": "x"} for i in categories],
    }
    for annotation_id in draw.sample(range(1, 10**9), draw.randint(0, 12)):
        x, y = draw.uniform(0, WIDTH - 14), draw.uniform(0, HEIGHT - 14)
        box = [round(v, 2) for v in (x, y, draw.uniform(6, 14), draw.uniform(6, 14))]
        ids = {"id": annotation_id, "image_id": draw.choice(images)}
        ids["category_id"] = draw.choice(categories)
        whole = {"bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        content["annotations"].append({**ids, **whole, **draw.choice(makers)(box)})
    crowds = [a for a in content["annotations"] if a["iscrowd"]]
    for crowd in crowds:  # every class with a crowd also has an object
        content["annotations"].append({**crowd, **_polygon(crowd["bbox"]), "iscrowd": 0})
        content["annotations"][-1]["id"] += 10**9
    return content


def _boxes_alone(box):
    return {}


def _polygon(box):
    return {"segmentation": [rectangle(*box)]}


def _parts(box):
    x, y, width, height = box
    return {
        "segmentation": [
            rectangle(x, y, width / 3, height),
            rectangle(x + width / 2, y, width / 2, height),
        ]
    }


def _run_lengths(box):
    mask = mask_util.merge(mask_util.frPyObjects([rectangle(*box)], HEIGHT, WIDTH))
    return {"segmentation": {**mask, "counts": mask["counts"].decode()}}


def _crowd(box):
    x, y, width, height = (int(v) for v in box)
    runs = [x * HEIGHT + y]
    for _ in range(width - 1):
        runs += [height, HEIGHT - height]
    runs += [height]
    runs.append(HEIGHT * WIDTH - sum(runs))
    return {"segmentation": {"size": [HEIGHT, WIDTH], "counts": runs}, "iscrowd": 1}
