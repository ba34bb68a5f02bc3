"""Detectors as one function of one image of fixed size, in operations that ONNX has.

The modules are the detector's own; what differs is the form of the steps between them. Where
Detectron2 selects, so that shapes follow from the values, scores of what is left out are set to 0
here and a fixed number of the best is kept: rows behind the last detection have the score 0.
"""

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from detectron2.modeling import RetinaNet
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.modeling.roi_heads import CascadeROIHeads
from detectron2.structures import Boxes, ImageList
from mimdet.modeling.meta_arch import GeneralizedRCNNImageListForward

# What a forward pass returns, in this order; a detector of boxes has no masks.
OUTPUTS = ("boxes", "scores", "classes", "masks")


class FixedSizeDetector(nn.Module):
    """An image -> detections, by falling score, padded to a fixed number by score 0.

    Args:
        model: in evaluation mode.
        size: height and width of the image, which the backbone takes without padding.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int]):
        super().__init__()
        self.model = model
        self.size = size

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Detect.

        Args:
            image: (3, height, width) float32, 0..255, in the model's order of colours.

        Returns:
            boxes (N, 4) x0, y0, x1, y1 in pixels of the image, scores (N,), classes (N,) int64,
            and of a detector of masks the probabilities of its masks (N, M, M) in the frames of
            the boxes.
        """
        features = self._features(image)
        is_dense = isinstance(self.model, RetinaNet)
        boxes, scores, classes = (self._retinanet if is_dense else self._rcnn)(features)
        # As in Detectron2's post-processing, what is empty once it is clipped does not count.
        boxes = self._clip(boxes)
        scores = scores * (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        scores, order = scores.topk(scores.shape[0])
        found = boxes[order], scores, classes[order]
        if is_dense or not self.model.roi_heads.mask_on:
            return found
        return (*found, self._masks(features, *found))

    def _features(self, image: Tensor) -> dict[str, Tensor]:
        normalized = ((image - self.model.pixel_mean) / self.model.pixel_std)[None]
        if isinstance(self.model, GeneralizedRCNNImageListForward):
            return self.model.backbone(ImageList(normalized, [self.size]))
        return self.model.backbone(normalized)

    # --- Mask and Cascade R-CNN ---

    def _rcnn(self, features: dict[str, Tensor]) -> tuple[Tensor, ...]:
        heads = self.model.roi_heads
        proposals, are_real = self._proposals(features)
        maps = [features[name] for name in heads.box_in_features]
        if isinstance(heads, CascadeROIHeads):
            boxes, probs, last = self._cascade(maps, proposals)
        else:
            last = heads.box_predictor
            logits, deltas = last(heads.box_head(_pool(heads.box_pooler, maps, proposals)))
            boxes = last.box2box_transform.apply_deltas(deltas, proposals)
            probs = _probabilities(last, logits)
        probs = probs[:, :-1] * are_real[:, None]  # without the background
        boxes = self._clip(boxes.reshape(len(boxes), -1, 4)).expand(-1, probs.shape[1], 4)
        # How many pass follows from the values; `_best` pads them to a fixed number.
        rows, classes = torch.where(probs > last.test_score_thresh)
        return _best(
            boxes[rows, classes],
            probs[rows, classes],
            classes,
            last.test_nms_thresh,
            last.test_topk_per_image,
        )

    def _proposals(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The boxes (N, 4) of fixed number N, and which of them are real."""
        rpn = self.model.proposal_generator
        maps = [features[name] for name in rpn.in_features]
        candidates: list[Tensor] = []
        scores: list[Tensor] = []
        levels: list[Tensor] = []
        logits, deltas = rpn.rpn_head(maps)
        for level, anchors in enumerate(rpn.anchor_generator(maps)):
            flat = logits[level][0].permute(1, 2, 0).flatten()
            count = min(flat.shape[0], rpn.pre_nms_topk[False])
            best, index = flat.topk(count)
            # (A * 4, H, W) -> (H * W * A, 4), the order of the anchors
            offsets = deltas[level][0]
            offsets = offsets.view(-1, 4, *offsets.shape[-2:]).permute(2, 3, 0, 1).reshape(-1, 4)
            chosen = rpn.box2box_transform.apply_deltas(offsets[index], anchors.tensor[index])
            candidates.append(self._clip(chosen))
            scores.append(best)
            levels.append(torch.full_like(index, level))
        boxes, logit, level = torch.cat(candidates), torch.cat(scores), torch.cat(levels)
        sides = boxes[:, 2:] - boxes[:, :2]
        logit = torch.where((sides > rpn.min_box_size).all(dim=1), logit, -torch.inf)
        kept = torch.zeros_like(logit, dtype=torch.bool)
        kept[_nms_by_group(boxes, logit, level, rpn.nms_thresh)] = True
        logit = torch.where(kept, logit, -torch.inf)
        best, index = logit.topk(min(logit.shape[0], rpn.post_nms_topk[False]))
        return boxes[index], best > -torch.inf

    def _cascade(self, maps: list[Tensor], proposals: Tensor) -> tuple[Tensor, Tensor, nn.Module]:
        """Boxes of the last stage, the mean of all stages' probabilities, the last predictor."""
        heads, boxes, probs = self.model.roi_heads, proposals, []
        for head, predictor in zip(heads.box_head, heads.box_predictor, strict=True):
            boxes = self._clip(boxes)
            logits, deltas = predictor(head(_pool(heads.box_pooler, maps, boxes)))
            boxes = predictor.box2box_transform.apply_deltas(deltas, boxes)
            probs.append(_probabilities(predictor, logits))
        return boxes, torch.stack(probs).mean(dim=0), predictor

    def _masks(
        self, features: dict[str, Tensor], boxes: Tensor, scores: Tensor, classes: Tensor
    ) -> Tensor:
        """Probabilities (N, M, M) of each detection's own class."""
        heads = self.model.roi_heads
        maps = [features[name] for name in heads.mask_in_features]
        logits = heads.mask_head.layers(_pool(heads.mask_pooler, maps, boxes))
        if logits.shape[1] == 1:  # one mask for all classes
            return logits[:, 0].sigmoid()
        index = classes[:, None, None, None].expand(-1, 1, *logits.shape[-2:])
        return logits.gather(1, index)[:, 0].sigmoid()

    # --- RetinaNet ---

    def _retinanet(self, features: dict[str, Tensor]) -> tuple[Tensor, ...]:
        model = self.model
        maps = [features[name] for name in model.head_in_features]
        logits, deltas = model.head(maps)
        found: list[list[Tensor]] = [[], [], []]
        for level, anchors in enumerate(model.anchor_generator(maps)):
            classes = model.num_classes
            score = logits[level][0].view(-1, classes, *logits[level].shape[-2:])
            score = score.permute(2, 3, 0, 1).flatten().sigmoid()
            score = torch.where(score > model.test_score_thresh, score, 0.0)
            best, index = score.topk(min(score.shape[0], model.test_topk_candidates))
            offsets = deltas[level][0]
            offsets = offsets.view(-1, 4, *offsets.shape[-2:]).permute(2, 3, 0, 1).reshape(-1, 4)
            place = index // classes
            boxes = model.box2box_transform.apply_deltas(offsets[place], anchors.tensor[place])
            for part, value in zip(found, (boxes, best, index % classes), strict=True):
                part.append(value)
        boxes, scores, classes = map(torch.cat, found)
        return _best(boxes, scores, classes, model.test_nms_thresh, model.max_detections_per_image)

    def _clip(self, boxes: Tensor) -> Tensor:
        height, width = self.size
        bounds = boxes.new_tensor([width, height, width, height])
        return boxes.clamp(min=0).minimum(bounds)


def _pool(pooler: ROIPooler, maps: list[Tensor], boxes: Tensor) -> Tensor:
    """Pool every box from its own level; on the others it stands for a point, which is cheap."""
    levels = assign_boxes_to_levels(
        [Boxes(boxes)],
        pooler.min_level,
        pooler.max_level,
        pooler.canonical_box_size,
        pooler.canonical_level,
    )
    pooled: Tensor | None = None
    for number, (feature, pool) in enumerate(zip(maps, pooler.level_poolers, strict=True)):
        is_here = (levels == number)[:, None]
        # The first column is the image, of which there is one.
        rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes * is_here], dim=1)
        here = pool(feature, rois) * is_here[:, :, None, None]
        pooled = here if pooled is None else pooled + here
    return pooled


def _probabilities(predictor: nn.Module, logits: Tensor) -> Tensor:
    return logits.sigmoid() if predictor.use_sigmoid_ce else logits.softmax(dim=-1)


def _nms_by_group(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Indices of the boxes that stay: those of different groups are moved apart."""
    # By more than the largest coordinate, so that boxes of two groups cannot overlap.
    offsets = groups.to(boxes) * (boxes.max() + 1)
    return nms(boxes + offsets[:, None], scores, threshold)


def _best(
    boxes: Tensor, scores: Tensor, classes: Tensor, nms_threshold: float, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` best boxes after NMS within each class, padded by score 0."""
    # The padding takes part in NMS, so that there is always something to choose from.
    boxes = torch.cat([boxes, boxes.new_zeros(count, 4)])
    scores = torch.cat([scores, scores.new_zeros(count)])
    classes = torch.cat([classes, classes.new_zeros(count)])
    kept = torch.zeros_like(scores)
    kept[_nms_by_group(boxes, scores, classes, nms_threshold)] = 1.0
    best, index = (scores * kept).topk(count)
    return boxes[index], best, classes[index]
