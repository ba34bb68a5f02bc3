"""Objects and detections drawn at random, to compare evaluators on."""

import numpy as np
import torch

from detectron2.structures import Boxes, Instances, ROIMasks

CATEGORIES = [3, 7, 8]


def crowded_ground_truth(random: np.random.RandomState, size: int = 100) -> dict:
    """40 square images with eight ellipses of three classes each, a few of them crowds."""
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    annotations = []
    for index in range(320):
        centre, radius = random.uniform(size / 5, 0.8 * size, 2), random.uniform(2, size / 5, 2)
        points = centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        annotations.append(
            {
                "id": index + 1,
                "image_id": index // 8 + 1,
                "category_id": int(random.choice(CATEGORIES)),
                "bbox": [*(centre - radius), *(2 * radius)],
                "area": float(3 * radius.prod()),
                "iscrowd": int(random.rand() < 0.05),
                "segmentation": [points.reshape(-1).tolist()],
            }
        )
    names = {3: "person", 7: "dog", 8: "cat"}
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": size, "width": size} for i in range(1, 41)
        ],
        "categories": [{"id": i, "name": name} for i, name in names.items()],
        "annotations": annotations,
    }


def noisy_detections(
    annotations: list[dict], random: np.random.RandomState, size: int = 100
) -> Instances:
    """Five detections near each object, a fifth of them of a random class; scores have ties."""
    boxes = np.array([a["bbox"] for a in annotations]).repeat(5, axis=0)
    boxes[:, 2:] += boxes[:, :2]
    boxes += random.normal(0, 2, boxes.shape)
    classes = np.array([CATEGORIES.index(a["category_id"]) for a in annotations]).repeat(5)
    classes = np.where(random.rand(len(boxes)) < 0.8, classes, random.randint(3, size=len(boxes)))
    instances = Instances((size, size))
    instances.pred_boxes = Boxes(boxes)
    instances.pred_boxes.clip((size, size))
    instances.scores = torch.from_numpy(random.rand(len(boxes)).round(2))
    instances.pred_classes = torch.from_numpy(classes)
    masks = ROIMasks(torch.from_numpy(random.uniform(0.3, 1, (len(boxes), 7, 7))).float())
    instances.pred_masks = masks.to_bitmasks(instances.pred_boxes, size, size).tensor
    return instances
