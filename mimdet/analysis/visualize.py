"""Pictures of detections next to the ground truth."""

import copy
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from detectron2.data import detection_utils
from detectron2.data.transforms import NoOpTransform, TransformList
from detectron2.structures import Instances

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
    pixels = detection_utils.read_image(dataset_dict["file_name"], format="RGB")
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    truth = _ground_truth(dataset_dict, image.shape[1:])
    found = model.eval()([model_input])[0]["instances"].to("cpu")
    found = found[found.scores >= score_threshold]
    names = [class_names[k] for k in found.pred_classes.tolist()]
    labels = [f"{n} {s:.0%}" for n, s in zip(names, found.scores.tolist(), strict=True)]
    classes = truth.gt_classes.tolist()
    left = _draw(
        image,
        truth.gt_boxes.tensor,
        truth.gt_masks.tensor,
        classes,
        [class_names[k] for k in classes],
    )
    right = _draw(
        image, found.pred_boxes.tensor, found.pred_masks, found.pred_classes.tolist(), labels
    )
    joined = Image.new("RGB", (left.width * 2 + 8, left.height), "white")
    joined.paste(left, (0, 0))
    joined.paste(right, (left.width + 8, 0))
    return joined


def _ground_truth(dataset_dict: dict, image_size: Sequence[int]) -> Instances:
    """The annotated objects of an image as instances with bit masks, crowds left out."""
    no_op = TransformList([NoOpTransform()])
    objects = [
        detection_utils.transform_instance_annotations(copy.deepcopy(a), no_op, tuple(image_size))
        for a in dataset_dict["annotations"]
        if not a.get("iscrowd", 0)
    ]
    instances = detection_utils.annotations_to_instances(objects, tuple(image_size), "bitmask")
    if not instances.has("gt_masks"):
        raise ValueError(
            f"image {dataset_dict['image_id']} ({dataset_dict['file_name']}) has no annotated "
            "masks to draw; choose images with objects"
        )
    return instances


def _draw(
    image: Tensor, boxes: Tensor, masks: Tensor, classes: Sequence[int], labels: Sequence[str]
) -> Image.Image:
    """Masks, boxes and labels on an enlarged copy of `image` (3, H, W) uint8."""
    scale = max(1, round(_SMALLEST_SIDE / min(image.shape[1:])))
    canvas = image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    colors = [_COLORS[k % len(_COLORS)] for k in classes]
    if len(boxes):
        large = F.interpolate(masks[None].float(), scale_factor=scale, mode="nearest")[0].bool()
        canvas = draw_segmentation_masks(canvas, large, alpha=0.45, colors=colors)
        canvas = draw_bounding_boxes(canvas, boxes * scale, colors=colors, width=2)
    picture = Image.fromarray(canvas.permute(1, 2, 0).numpy())
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=13)
    for (x, y), label, color in zip((boxes[:, :2] * scale).tolist(), labels, colors, strict=True):
        draw.rectangle(draw.textbbox((x + 2, y), label, font=font), fill=color)
        draw.text((x + 2, y), label, fill="white", font=font)
    return picture
