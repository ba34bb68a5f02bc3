"""Pictures of detections next to the ground truth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from detectron2.data import detection_utils
from detectron2.structures import BoxMode, Instances
from detectron2.utils.visualizer import Visualizer
from mimdet.analysis.class_maps import draw_class_map
from mimdet.analysis.labels import Rectangle, draw_labels
from mimdet.analysis.pictures import (
    Panel,
    class_color,
    enlargement,
    name_of,
    side_by_side,
    text_size,
)
from mimdet.analysis.predictor import ClassMap, Prediction
from mimdet.modeling.postprocessing import image_masks


@torch.no_grad()
def draw_comparison(
    model: nn.Module,
    dataset_dict: dict,
    model_input: dict,
    class_names: Sequence[str],
    score_threshold: float = 0.5,
) -> Image.Image:
    """Draw one image twice: ground truth on the left, detections on the right.

    Masks are drawn where there are some; crowds are left out. The titles tell the number of
    objects, the threshold and, of MIMDet, the share of tokens that the encoder saw.

    Args:
        model: a detector; put into evaluation mode.
        dataset_dict: Detectron2's standard dataset dict of the image. It may have no objects:
            whatever is detected is a false alarm then.
        model_input: the same image as the mapper of an evaluation makes it.
        class_names: names by class index; classes beyond them are called by their number.
        score_threshold: detections below it are left out.
    """
    image = detection_utils.read_image(dataset_dict["file_name"], format="RGB")
    truth = [a for a in dataset_dict.get("annotations", []) if not a.get("iscrowd", 0)]
    found = model.eval()([model_input])[0]["instances"].to("cpu")
    shown = found[found.scores >= score_threshold]
    numbers = shown.pred_classes.tolist()
    return side_by_side(
        [
            Panel(_draw_truth(image, truth, class_names), "Ground truth", _counted(len(truth))),
            Panel(
                draw_detections(image, shown, [name_of(k, class_names) for k in numbers]),
                "Predictions",
                _told(model, found.scores, len(shown), score_threshold),
            ),
        ]
    )


def _counted(objects: int) -> str:
    return f"{objects} object{'' if objects == 1 else 's'}" if objects else "no objects"


def _told(model: nn.Module, scores: torch.Tensor, shown: int, threshold: float) -> str:
    """The second line above the predictions."""
    parts = [f"{shown or 'none'} of score {threshold:.0%} or more"]
    if not shown and len(scores):
        parts.append(f"best {scores.max():.0%}")
    ratios = (getattr(module, "sample_ratio", None) for module in model.modules())
    if (ratio := next((r for r in ratios if r is not None), None)) is not None:
        parts.append(f"sample ratio {ratio:g}")
    return ", ".join(parts)


def _draw_truth(
    image: np.ndarray, truth: list[dict[str, Any]], names: Sequence[str]
) -> Image.Image:
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in truth]
    masks = [a.get("segmentation") for a in truth]
    classes = [a["category_id"] for a in truth]
    return _draw(image, boxes, masks, classes, [name_of(k, names) for k in classes])


def draw_prediction(image: np.ndarray, found: Prediction | ClassMap) -> Image.Image:
    """Draw what a predictor found into an image (H, W, 3) uint8, RGB."""
    if isinstance(found, ClassMap):
        return draw_class_map(image, found.classes, found.class_names)
    return draw_detections(image, found.instances, found.names)


def draw_detections(image: np.ndarray, found: Instances, names: Sequence[str]) -> Image.Image:
    """Draw detections into an image, which is enlarged if it is small.

    Args:
        image: (H, W, 3) uint8, RGB.
        found: N detections, on the CPU.
        names: what each of them is called.
    """
    boxes = found.pred_boxes.tensor.tolist()
    # As arrays: upstream's visualizer knows no list of tensors.
    masks = list(image_masks(found).numpy()) if found.has("pred_masks") else [None] * len(found)
    classes = found.pred_classes.tolist()
    scores = found.scores.tolist()
    labels = [f"{name} {score:.0%}" for name, score in zip(names, scores, strict=True)]
    return _draw(image, boxes, masks, classes, labels)


def _draw(
    image: np.ndarray, boxes: list, masks: list, classes: list[int], labels: list[str]
) -> Image.Image:
    """Boxes, masks where there are some, and labels on an enlarged `image`, coloured by class."""
    height, width = image.shape[:2]
    scale = enlargement(width, height)
    colors = [class_color(k) for k in classes]
    visualizer = Visualizer(image, scale=scale)
    if masked := [k for k, mask in enumerate(masks) if mask is not None]:
        visualizer.overlay_instances(
            masks=[masks[k] for k in masked], assigned_colors=[colors[k] for k in masked]
        )
    for box, color in zip(boxes, colors, strict=True):
        visualizer.draw_box(box, alpha=1.0, edge_color=color)
    picture = Image.fromarray(visualizer.get_output().get_image())
    scaled = [Rectangle(*(scale * side for side in box)) for box in boxes]
    draw_labels(picture, scaled, labels, colors, text_size(picture))
    return picture
