"""Choosing proposals among scored boxes, and adding the ground truth to them."""

import itertools
import math

import torch
from torch import Tensor

from detectron2.layers import batched_nms, cat, nms
from detectron2.modeling.sampling import is_on_cpu
from detectron2.structures import Boxes, Instances
from detectron2.structures.boxes import send
from detectron2.structures.instances import cat_values
from detectron2.utils.events import get_event_storage, has_event_storage

# The logit of probability 1 - 1e-10: a ground-truth box ranks above every predicted one.
_GROUND_TRUTH_LOGIT = math.log((1.0 - 1e-10) / 1e-10)


@torch.no_grad()
def find_top_rpn_proposals(
    proposals: list[Tensor],
    pred_objectness_logits: list[Tensor],
    image_sizes: list[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> list[Instances]:
    """Keep the best boxes of each level, then suppress overlaps within each level.

    Args:
        proposals: per level (N, R_l, 4), decoded boxes.
        pred_objectness_logits: per level (N, R_l).
        image_sizes: (height, width) per image, without padding.
        nms_thresh: of two boxes of one level whose IoU is above it, the worse one goes.
        pre_nms_topk: boxes kept per level and image before suppression.
        post_nms_topk: boxes kept per image, all levels together, after suppression.
        min_box_size: a box stays if both sides, clipped to the image, are longer (pixels).
        training: whether a value that is not finite is an error or is dropped.

    Returns:
        Per image, best first: `proposal_boxes` and `objectness_logits`, without gradient.

    Raises:
        FloatingPointError: in training, a box or score is infinite or NaN.
    """
    scores, boxes = [], []
    for level_boxes, logits in zip(proposals, pred_objectness_logits, strict=True):
        top_scores, rows = logits.topk(min(pre_nms_topk, logits.shape[1]), dim=1)
        scores.append(top_scores)
        boxes.append(level_boxes.gather(1, rows[..., None].expand(-1, -1, 4)))
    return suppress_proposals(
        cat(boxes, dim=1), scores, image_sizes, nms_thresh, post_nms_topk, min_box_size, training
    )


def suppress_proposals(
    boxes: Tensor,
    scores: list[Tensor],
    image_sizes: list[tuple[int, int]],
    nms_thresh: float,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> list[Instances]:
    """The second half of `find_top_rpn_proposals`, for boxes already reduced to the best ones.

    Args:
        boxes: (N, k, 4), those of all levels.
        scores: per level (N, k_l).
        image_sizes: as the other arguments, see `find_top_rpn_proposals`.
        nms_thresh: see there.
        post_nms_topk: see there.
        min_box_size: see there.
        training: see there.

    Returns:
        See `find_top_rpn_proposals`.

    Raises:
        FloatingPointError: in training, a box or score is infinite or NaN.
    """
    device, num_images = boxes.device, len(boxes)
    levels = torch.cat(
        [torch.full((s.shape[1],), level, device=device) for level, s in enumerate(scores)]
    )
    # With the score as a fifth number, both are checked, clipped and chosen in single calls.
    scored_boxes = torch.cat([boxes, cat(scores, dim=1)[..., None]], dim=2)  # (N, k, 5)
    finite = scored_boxes.abs().amax(dim=2) < math.inf  # (N, k); no comparison holds for NaN
    lowest = torch.tensor([0, 0, 0, 0, -math.inf])
    highest = torch.tensor([[w, h, w, h, math.inf] for h, w in image_sizes])[:, None]
    # The score has no bounds; half precision could not hold the pixels of a large image.
    clipped = scored_boxes.float().clamp(send(lowest, device), send(highest, device))
    boxes = clipped[..., :4]
    valid = finite & (boxes[..., 2:] - boxes[..., :2] > min_box_size).all(dim=2)
    # Others come last, so they suppress none, and are dropped.
    scores = torch.where(valid, clipped[..., 4], -math.inf)
    images = torch.arange(num_images + 1, device=device)
    keep = _suppress(boxes, scores, levels, images[:-1], max(map(max, image_sizes)), nms_thresh)
    # Image by image, and last what is not valid.
    image = torch.where(valid, images[:-1, None], num_images).flatten()
    # Stable, so that falling scores stay in order within an image.
    image, order = image[keep].sort(stable=True)
    # All that the host must know, in one transfer.
    *starts, all_finite = torch.cat(
        [torch.searchsorted(image, images), finite.all()[None]]
    ).tolist()
    if training and not all_finite:
        _raise_diverged(levels[~finite.all(dim=0)])
    keep = keep[order]
    keep = [keep[start:end][:post_nms_topk] for start, end in itertools.pairwise(starts)]
    proposals = clipped.flatten(0, 1)[torch.cat(keep)].split([len(of_image) for of_image in keep])
    return [
        Instances(size, proposal_boxes=Boxes(found[:, :4]), objectness_logits=found[:, 4])
        for found, size in zip(proposals, image_sizes, strict=True)
    ]


def _suppress(
    boxes: Tensor,
    scores: Tensor,
    levels: Tensor,
    images: Tensor,
    largest_side: int,
    nms_thresh: float,
) -> Tensor:
    """The rows that stay of (N, k, 4) boxes, numbered through all N images, by falling score.

    Overlaps count within a level and image only. `levels` are (k,) and `images` (N,).
    """
    if is_on_cpu(boxes):
        # Without a device to wait for, only boxes of one group are compared: less arithmetic.
        groups = (levels * len(images) + images[:, None]).flatten()
        # torchvision moves groups apart by the largest coordinate of all, which one NaN would
        # spoil.
        boxes = boxes.nan_to_num().flatten(0, 1)
        return batched_nms(boxes, scores.flatten(), groups, nms_thresh)
    # Levels lie side by side and images below each other, far enough apart not to overlap.
    x, y = torch.broadcast_tensors(levels, images[:, None])
    shifts = torch.stack([x, y, x, y], dim=2) * (largest_side + 1)
    return nms((boxes + shifts).flatten(0, 1), scores.flatten(), nms_thresh)


def _raise_diverged(levels: Tensor) -> None:
    when = f" at iteration {get_event_storage().iter}" if has_event_storage() else ""
    raise FloatingPointError(
        f"Predicted boxes or scores contain Inf or NaN on feature levels "
        f"{levels.unique().tolist()} (0 = first of in_features){when}. Training has diverged. "
        "Lower the learning rate, warm up longer or clip gradients."
    )


def add_ground_truth_to_proposals(
    gt: list[Instances] | list[Boxes], proposals: list[Instances]
) -> list[Instances]:
    """Append the ground-truth boxes of each image to its proposals.

    With them, training has good proposals even while the proposal generator is bad.

    Args:
        gt: per image, `Instances` with `gt_boxes`, or the boxes themselves.
        proposals: per image, with `proposal_boxes` and `objectness_logits`.

    Returns:
        Per image, the proposals followed by the ground truth, with the fields of the proposals.

    Raises:
        AssertionError: the lists differ in length, or a field of the proposals has no value for
            the ground truth.
    """
    assert len(gt) == len(proposals), (
        f"need ground truth for every image, got {len(gt)} for {len(proposals)} images"
    )
    if not proposals:
        return []
    # Field by field for all images at once: proposals and ground truth of the first image, ...
    truths = [_as_proposals(*of_image) for of_image in zip(gt, proposals, strict=True)]
    parts = [x for of_image in zip(proposals, truths, strict=True) for x in of_image]
    # Every second end: the proposals and the ground truth of an image stay together.
    ends = [0, *itertools.accumulate(map(len, parts))][::2]
    added = [Instances(x.image_size) for x in proposals]
    for name in proposals[0].get_fields():
        joined = cat_values(name, [x.get(name) for x in parts])
        for i, (start, end) in enumerate(itertools.pairwise(ends)):
            added[i].set(name, joined[start:end])
    return added


def add_ground_truth_to_proposals_single_image(
    gt: Instances | Boxes, proposals: Instances
) -> Instances:
    """What `add_ground_truth_to_proposals` does, for one image."""
    return add_ground_truth_to_proposals([gt], [proposals])[0]


def _as_proposals(gt: Instances | Boxes, proposals: Instances) -> Instances:
    """The ground truth of an image with the fields of its proposals."""
    fields = {} if isinstance(gt, Boxes) else gt.get_fields()
    boxes = gt if isinstance(gt, Boxes) else gt.gt_boxes
    logits = torch.full((len(boxes),), _GROUND_TRUTH_LOGIT, device=boxes.device)
    fields = {**fields, "proposal_boxes": boxes, "objectness_logits": logits}
    wanted = proposals.get_fields().keys()
    missing = sorted(wanted - fields.keys())
    assert not missing, (
        f"cannot append ground truth to proposals: it lacks the fields {missing} of the proposals"
    )
    return Instances(proposals.image_size, **{name: fields[name] for name in wanted})
