"""Folders of images as people have them: two big squares each, laid out and numbered awkwardly."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIDE = 96  # of an image, in pixels
_COLOURS = {"red": (230, 60, 40), "blue": (40, 90, 240)}

Content = dict[str, list[dict[str, Any]]]


def content(red: int = 1, blue: int = 2, name: str = "{}.png", images: int = 2) -> Content:
    """A red and a blue square in each image; `red` and `blue` are the ids of their classes."""
    made: Content = {
        "images": [
            {"id": k, "file_name": name.format(k), "height": SIDE, "width": SIDE}
            for k in range(1, images + 1)
        ],
        "annotations": [],
        "categories": [{"id": red, "name": "red"}, {"id": blue, "name": "blue"}],
    }
    for place, image in enumerate(made["images"]):
        shift = 4 * (place % 3)
        for category, x, y, side in ((red, 4 + shift, 8, 32), (blue, 42, 44 - shift, 44)):
            polygon = [x, y, x + side, y, x + side, y + side, x, y + side]
            made["annotations"].append(
                {
                    **{"id": len(made["annotations"]) + 1, "image_id": image["id"]},
                    **{"category_id": category, "bbox": [x, y, side, side], "area": side * side},
                    **{"iscrowd": 0, "segmentation": [polygon]},
                }
            )
    return made


def write(json_file: Path, image_root: Path, made: Content) -> Path:
    """Write annotations, and the images that they tell of."""
    names = {category["id"]: category["name"] for category in made["categories"]}
    for image in made["images"]:
        picture = Image.new("RGB", (image["width"], image["height"]), (60, 60, 60))
        for annotation in made["annotations"]:
            if annotation["image_id"] == image["id"]:
                x, y, width, height = annotation["bbox"]
                colour = _COLOURS[names[annotation["category_id"]]]
                corners = (x, y, x + width - 1, y + height - 1)
                ImageDraw.Draw(picture).rectangle(corners, colour)
        path = image_root / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
    return json_file


def _beside(root: Path, made: Content) -> Path:
    """train.json and val.json beside folders of the same images; the path of the second."""
    return [write(root / f"{s}.json", root / s, made) for s in ("train", "val")][1]


def roboflow(root: Path) -> Path:
    """A parent category without objects, all ids from 0, annotations among the images."""
    made = content(red=1, blue=2)
    made["categories"].insert(0, {"id": 0, "name": "squares", "supercategory": "none"})
    for section in ("images", "annotations"):
        for entry in made[section]:
            entry["id"] -= 1
    for annotation in made["annotations"]:
        annotation["image_id"] -= 1
    folders = [root / split for split in ("train", "valid")]
    return [write(f / "_annotations.coco.json", f, made) for f in folders][1]


def sparse_ids(root: Path) -> Path:
    """Categories 900 and 7, in COCO's own folders."""
    made = content(red=900, blue=7)
    annotations = root / "annotations"
    return [
        write(annotations / f"instances_{s}2017.json", root / f"{s}2017", made)
        for s in ("train", "val")
    ][1]


def ids_from_0(root: Path) -> Path:
    """Categories 0 and 1, a value that many a script takes for the background."""
    return _beside(root, content(red=0, blue=1))


def boxes_only(root: Path) -> Path:
    """No object has a mask."""
    made = content()
    for annotation in made["annotations"]:
        del annotation["segmentation"]
    return _beside(root, made)


def half_of_the_masks(root: Path) -> Path:
    """Every second object has a mask."""
    made = content()
    for annotation in made["annotations"][::2]:
        del annotation["segmentation"]
    return _beside(root, made)


def one_class(root: Path) -> Path:
    """A single category, with the id 3."""
    made = content(red=3)
    made["categories"].pop()
    made["annotations"] = [a for a in made["annotations"] if a["category_id"] == 3]
    return _beside(root, made)


def nested_names(root: Path) -> Path:
    """Folders in folders, with spaces and letters beyond ASCII in their names and the images'."""
    return _beside(root / "Fotos für Übung 2", content(name="été – 夏/bild nr {} ñ.png"))


def yolo(root: Path) -> Path:
    """Label files of YOLO with the corners of each object, their classes in data.yaml."""
    made = content(red=0, blue=1)
    for split in ("train", "valid"):
        write(root.parent / "truth.json", root / split / "images", made)
        for image in made["images"]:
            objects = [a for a in made["annotations"] if a["image_id"] == image["id"]]
            lines = [
                f"{a['category_id']} {' '.join(str(x / SIDE) for x in a['segmentation'][0])}\n"
                for a in objects
            ]
            path = (root / split / "labels" / image["file_name"]).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(lines))
    (root / "data.yaml").write_text("train: ../train/images\nnc: 2\nnames: ['red', 'blue']\n")
    return root.parent / "truth.json"


AWKWARD: dict[str, Callable[[Path], Path]] = {
    maker.__name__: maker
    for maker in (
        *(roboflow, sparse_ids, ids_from_0, boxes_only),
        *(half_of_the_masks, one_class, nested_names, yolo),
    )
}


def plain_ap(truth: Path, results: Path, kind: str) -> float:
    """The AP in percent, by pycocotools alone, of a JSON of detections against a user's file.

    Annotations are numbered from 1 for it: pycocotools takes the id 0 for "not found".
    """
    made = json.loads(truth.read_text(encoding="utf-8"))
    for number, annotation in enumerate(made["annotations"], start=1):
        annotation["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = made
        coco.createIndex()
        found = json.loads(results.read_text())
        assert {entry["category_id"] for entry in found} <= set(coco.getCatIds())
        scored = COCOeval(coco, coco.loadRes(found), kind)
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return 100 * scored.stats[0]
