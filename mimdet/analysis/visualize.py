"""Pictures of detections next to the ground truth."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import nn

from detectron2.data import detection_utils
from detectron2.structures import BoxMode
from detectron2.utils.visualizer import Visualizer

_COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#46f0f0", "#f032e6", "#bcf60c")
_SMALLEST_SIDE = 320  # smaller pictures are enlarged to this, so that labels can be read


@torch.no_grad()
def draw_comparison(
    model: nn.Module,
    dataset_dict: dict,
    model_input: dict,
    class_names: Sequence[str],
    score_threshold: float = 0.5,
) -> Image.Image:
    """Draw one image twice: ground truth on the left, detections on the right.

    Args:
        model: a detector; put into evaluation mode.
        dataset_dict: Detectron2's standard dataset dict of the image, with `annotations`.
        model_input: the same image as the mapper of an evaluation makes it.
        class_names: names by class index.
        score_threshold: detections below it are left out.
    """
    image = detection_utils.read_image(dataset_dict["file_name"], format="RGB")
    truth = _ground_truth(dataset_dict)
    found = model.eval()([model_input])[0]["instances"].to("cpu")
    found = found[found.scores >= score_threshold]
    classes = [a["category_id"] for a in truth]
    left = _draw(
        image,
        classes,
        [class_names[k] for k in classes],
        boxes=[BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in truth],
        masks=[a["segmentation"] for a in truth],
    )
    classes = found.pred_classes.tolist()
    scores = found.scores.tolist()
    right = _draw(
        image,
        classes,
        [f"{class_names[k]} {score:.0%}" for k, score in zip(classes, scores, strict=True)],
        boxes=found.pred_boxes,
        masks=found.pred_masks,
    )
    joined = Image.new("RGB", (left.width * 2 + 8, left.height), "white")
    joined.paste(left, (0, 0))
    joined.paste(right, (left.width + 8, 0))
    return joined


def _ground_truth(dataset_dict: dict) -> list[dict]:
    """The annotations that have a mask, crowds left out."""
    objects = [
        annotation
        for annotation in dataset_dict["annotations"]
        if not annotation.get("iscrowd", 0) and "segmentation" in annotation
    ]
    if not objects:
        raise ValueError(
            f"image {dataset_dict['image_id']} ({dataset_dict['file_name']}) has no annotated "
            "masks to draw; choose images with objects"
        )
    return objects


def _draw(
    image: np.ndarray, classes: Sequence[int], labels: Sequence[str], **instances
) -> Image.Image:
    """Boxes, masks and labels on an enlarged copy of `image`, coloured by class."""
    scale = max(1, round(_SMALLEST_SIDE / min(image.shape[:2])))
    colors = [_COLORS[k % len(_COLORS)] for k in classes]
    visualizer = Visualizer(image, scale=scale)
    drawn = visualizer.overlay_instances(labels=labels, assigned_colors=colors, **instances)
    return Image.fromarray(drawn.get_image())
