"""Truth and detections in COCO's form, made by hand and at random, and pycocotools' AP of them."""

import contextlib
import copy
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIDE = 200


def truth_of(images, classes=("cat", "dog")):
    """A COCO file; `images` is a list of images, each a list of (class, box XYWH, more keys)."""
    annotations = [
        {"image_id": i, "category_id": c, "bbox": list(box), "iscrowd": 0}
        | {"area": box[2] * box[3], "segmentation": [_corners(box)]}
        | (more[0] if more else {})
        for i, objects in enumerate(images, start=1)
        for c, box, *more in objects
    ]
    return {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": SIDE, "width": SIDE}
            for i in range(1, len(images) + 1)
        ],
        "categories": [{"id": c, "name": name} for c, name in enumerate(classes)],
        "annotations": [{"id": k, **a} for k, a in enumerate(annotations, start=1)],
    }


def results_of(images):
    """A COCO result list; `images` is a list of images, each a list of (class, box, score)."""
    return [
        {"image_id": i, "category_id": c, "bbox": list(box), "score": score}
        | {"segmentation": [_corners(box)]}
        for i, found in enumerate(images, start=1)
        for c, box, score in found
    ]


def _corners(box):
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def random_case(seed=0, images=12, classes=3, crowded=True):
    """Truth and detections with near hits, wrong classes, ties, crowds and too many detections."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for i in range(images):
        objects, near = [], []
        for _ in range(rng.integers(0, 6)):
            box = np.concatenate([rng.uniform(0, 80, 2), rng.uniform(5, 170, 2)])
            is_crowd = int(crowded and rng.random() < 0.15)
            label = int(rng.integers(classes))
            objects.append((label, box.tolist(), {"iscrowd": is_crowd}))
            for _ in range(3):
                moved = box + [*rng.normal(0, 4, 2), 0, 0]
                guess = label if rng.random() < 0.8 else int(rng.integers(classes))
                near.append((guess, moved.tolist(), round(rng.random(), 1)))
        for _ in range(130 if i == 1 else 3):  # more than COCO takes of a class
            box = np.concatenate([rng.uniform(0, 150, 2), rng.uniform(5, 50, 2)])
            near.append((0, box.tolist(), round(rng.random(), 2)))
        truth.append(objects)
        found.append(near)
    names = [f"class {k}" for k in range(classes)]
    return truth_of(truth, names), results_of(found)


def pycocotools_stats(truth, results, task="bbox", image_ids=None):
    """AP, AP50, AP75, APs, APm, APl and the precision (T, K, 101), by pycocotools."""
    results = copy.deepcopy(results)
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = copy.deepcopy(truth)
        index.createIndex()
        for entry in results:
            if task == "segm":
                del entry["bbox"]
                image = index.imgs[entry["image_id"]]
                entry["segmentation"] = index.annToRLE({**entry, "image_id": image["id"]})
            else:
                del entry["segmentation"]
        evaluation = COCOeval(index, index.loadRes(results), task)
        if image_ids is not None:
            evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1].transpose(0, 2, 1)
    return evaluation.stats[:6], precision
