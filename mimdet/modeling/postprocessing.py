"""From the detector's square canvas back to the original image."""

from torch import Tensor

from detectron2.structures import Boxes, Instances, ROIMasks


def lsj_postprocess(
    results: Instances,
    output_height: int,
    output_width: int,
    mask_threshold: float = 0.5,
    *,
    paste_masks: bool = True,
) -> Instances:
    """Undo the resize-and-pad of large-scale-jitter evaluation.

    The image was resized with its aspect ratio kept and padded at the right and bottom to a
    square, so one factor, that of the longer side, leads back on both axes. (Detectron2's
    `detector_postprocess` rescales each axis by its own factor, which would distort here.)

    Args:
        results: detections on the padded canvas (`image_size`), with `pred_boxes` in its pixels
            and optionally `pred_masks` (N, 1, M, M) probabilities. Left unchanged.
        output_height: height of the original image in pixels.
        output_width: width of the original image in pixels.
        mask_threshold: probability from which a pixel belongs to the instance.
        paste_masks: False keeps `pred_masks` as ROIMasks.

    Returns:
        Detections in the original image; those without area there are dropped. `pred_masks` is
        (N, output_height, output_width) bool.

    Reference:
        Li et al. 2021, arXiv 2111.11429, evaluated on images padded to 1024 x 1024.
    """
    height, width = results.image_size
    scale = max(output_width / width, output_height / height)
    output = Instances((output_height, output_width), **results.get_fields())
    # New ones, because `clip` works in place and the boxes of `results` stay as they are.
    boxes = Boxes(results.pred_boxes.tensor * scale)
    boxes.clip(output.image_size)
    output.pred_boxes = boxes
    output = output[boxes.nonempty()]
    if output.has("pred_masks"):
        output.pred_masks = ROIMasks(output.pred_masks[:, 0])
        if paste_masks:
            output.pred_masks = image_masks(output, mask_threshold)
    return output


def image_masks(found: Instances, mask_threshold: float = 0.5) -> Tensor:
    """The masks of detections as (N, height, width) bool, whether they are pasted already or not.

    Args:
        found: with `pred_masks`, full-size or ROIMasks.
        mask_threshold: probability from which a pixel belongs to the instance, of ROIMasks.
    """
    masks = found.pred_masks
    if not isinstance(masks, ROIMasks):
        return masks
    return masks.to_bitmasks(found.pred_boxes, *found.image_size, mask_threshold).tensor
