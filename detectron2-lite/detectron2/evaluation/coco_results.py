"""Detections as entries of a COCO result list."""

from typing import Any

from detectron2.structures import BitMasks, BoxMode, Instances, ROIMasks


def instances_to_coco_json(instances: Instances, img_id: int) -> list[dict[str, Any]]:
    """Detections of one image as entries of a COCO result list.

    Args:
        instances: N detections on the CPU with `pred_boxes`, `scores`, `pred_classes` and
            optionally `pred_masks`, (N, H, W), zeros and ones of any type, or ROIMasks, which are
            encoded without bitmaps of the image.
        img_id: id of the image.

    Returns:
        N dicts with `image_id`, `category_id` (the class as it is), `bbox` (x, y, width, height),
        `score` and, where there are masks, `segmentation` (run lengths as text).
    """
    if len(instances) == 0:
        return []
    boxes = BoxMode.convert(instances.pred_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    columns = zip(
        instances.pred_classes.tolist(), boxes.tolist(), instances.scores.tolist(), strict=True
    )
    results = [
        {"image_id": img_id, "category_id": category, "bbox": box, "score": score}
        for category, box, score in columns
    ]
    if instances.has("pred_masks"):
        for result, rle in zip(results, _encode_masks(instances), strict=True):
            result["segmentation"] = rle
    return results


def _encode_masks(instances: Instances) -> list[dict[str, Any]]:
    """Run-length encode the masks of N instances."""
    masks = instances.pred_masks
    if isinstance(masks, ROIMasks):
        rles = masks.to_rle(instances.pred_boxes, *instances.image_size)
    else:
        rles = BitMasks(masks).to_rle()
    for rle in rles:
        rle["counts"] = rle["counts"].decode("ascii")  # json cannot hold bytes
    return rles
