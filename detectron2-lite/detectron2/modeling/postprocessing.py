import torch.nn.functional as F
from torch import Tensor

from detectron2.structures import Instances, ROIMasks


def detector_postprocess(
    results: Instances,
    output_height: int,
    output_width: int,
    mask_threshold: float = 0.5,
    *,
    paste_masks: bool = True,
) -> Instances:
    """Bring detections from the size of the network's input to the size of the wanted output.

    Args:
        results: detections of one image: `pred_boxes` (or `proposal_boxes`), and optionally
            `pred_masks`, (N, 1, M, M) probabilities inside the boxes or ROIMasks. Left unchanged.
        output_height: height of the output in pixels.
        output_width: width of the output in pixels.
        mask_threshold: probability from which a pixel belongs to a mask.
        paste_masks: False keeps `pred_masks` as ROIMasks, N * M * M probabilities in place of the
            N * height * width bytes of full-size masks.

    Returns:
        Instances of the output size: boxes scaled per axis and clipped, those of zero width or
        height dropped; `pred_masks` as (N, height, width) bool.

    Raises:
        AssertionError: if there are neither `pred_boxes` nor `proposal_boxes`.
    """
    name = "pred_boxes" if results.has("pred_boxes") else "proposal_boxes"
    assert results.has(name), (
        f"detector_postprocess needs pred_boxes or proposal_boxes, got {list(results.get_fields())}"
    )
    height, width = results.image_size
    # A copy, because `scale` writes into the tensor.
    boxes = results.get(name).clone()
    boxes.scale(output_width / width, output_height / height)
    boxes.clip((output_height, output_width))

    output = Instances((output_height, output_width), **results.get_fields())
    output.set(name, boxes)
    output = output[boxes.nonempty()]
    if output.has("pred_masks"):
        masks = output.pred_masks
        masks = masks if isinstance(masks, ROIMasks) else ROIMasks(masks[:, 0])
        if paste_masks:
            masks = masks.to_bitmasks(
                output.get(name), output_height, output_width, mask_threshold
            ).tensor
        output.pred_masks = masks
    return output


def sem_seg_postprocess(
    result: Tensor, img_size: tuple[int, int], output_height: int, output_width: int
) -> Tensor:
    """Bring a semantic segmentation from the padded input to the size of the wanted output.

    Args:
        result: (C, H, W) scores of one image, padding included.
        img_size: (height, width) of the image without padding.
        output_height: height of the output in pixels.
        output_width: width of the output in pixels.

    Returns:
        (C, output_height, output_width) scores, sampled bilinearly.
    """
    height, width = img_size
    # Cut first: interpolation would mix the padding into the last rows and columns.
    scores = result[None, :, :height, :width]
    size = (output_height, output_width)
    return F.interpolate(scores, size, mode="bilinear", align_corners=False)[0]
