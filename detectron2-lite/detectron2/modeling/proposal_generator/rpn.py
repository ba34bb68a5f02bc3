"""Region proposal network."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectron2.layers import Conv2d, cat
from detectron2.modeling.anchor_generator import by_anchor
from detectron2.modeling.box_regression import Box2BoxTransform, box_regression_loss
from detectron2.modeling.loss_weights import LossWeights
from detectron2.modeling.matcher import Matcher, match_images, matched_boxes
from detectron2.modeling.proposal_generator.proposal_utils import suppress_proposals
from detectron2.modeling.sampling import subsample_labels_of_images
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage


class StandardRPNHead(nn.Module):
    """3x3 convolutions, then 1x1 convolutions for objectness and box deltas.

    The same weights serve all levels. There is no normalisation.

    Args:
        in_channels: channels of every input feature map.
        num_anchors: anchors per location (A).
        box_dim: numbers per box.
        conv_dims: output channels of each 3x3 convolution; -1 keeps the number of channels.

    Raises:
        ValueError: a convolution would have no output channel.

    Reference: Ren et al. 2015, arXiv 1506.01497, section 3.1.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_anchors: int,
        box_dim: int = 4,
        conv_dims: Sequence[int] = (-1,),
    ):
        super().__init__()
        convs = []
        channels = in_channels
        for i, dim in enumerate(conv_dims):
            out_channels = channels if dim == -1 else dim
            if out_channels <= 0:
                raise ValueError(f"conv_dims[{i}] must be -1 or positive, got {dim}")
            convs.append(Conv2d(channels, out_channels, 3, padding=1, activation=nn.ReLU()))
            channels = out_channels
        # One convolution has no number in its parameter names; released checkpoints rely on it.
        if len(convs) == 1:
            self.conv = convs[0]
        else:
            self.conv = nn.Sequential()
            for i, conv in enumerate(convs):
                self.conv.add_module(f"conv{i}", conv)
        self.objectness_logits = nn.Conv2d(channels, num_anchors, 1)
        self.anchor_deltas = nn.Conv2d(channels, num_anchors * box_dim, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Score and refine every anchor.

        Args:
            features: per level (N, C, H, W).

        Returns:
            Per level (N, A, H, W) objectness logits and (N, A * box_dim, H, W) deltas.
        """
        hidden = [self.conv(x) for x in features]
        return (
            [self.objectness_logits(x) for x in hidden],
            [self.anchor_deltas(x) for x in hidden],
        )


class RPN(nn.Module):
    """Region proposal network: anchors, their scores and refined boxes, and the losses on them.

    Args:
        in_features: names of the feature maps, one level each, fine to coarse.
        head: predicts logits and deltas from the list of feature maps.
        anchor_generator: makes one `Boxes` per level from the list of feature maps.
        anchor_matcher: labels anchors by IoU with the ground truth: 1 object, 0 background,
            -1 ignored.
        box2box_transform: the meaning of the deltas.
        batch_size_per_image: anchors sampled per image for the loss, and the normaliser of both
            losses however many were found.
        positive_fraction: the largest share of objects among the sampled anchors.
        pre_nms_topk: (training, test) boxes per level and image that enter suppression.
        post_nms_topk: (training, test) boxes per image that leave it, all levels together.
        nms_thresh: IoU above which the worse box of a level is suppressed.
        min_box_size: proposals need longer sides than this (pixels).
        anchor_boundary_thresh: anchors that reach further than this many pixels out of the image
            are ignored in training; negative: no anchor is.
        loss_weight: one factor for both losses, or a mapping with keys `loss_rpn_cls` and
            `loss_rpn_loc`.
        box_reg_loss_type: see `box_regression_loss`.
        smooth_l1_beta: see `box_regression_loss`.

    Reference: Ren et al. 2015, arXiv 1506.01497; on feature pyramids Lin et al. 2016,
    arXiv 1612.03144, section 4.1.
    """

    def __init__(
        self,
        *,
        in_features: Sequence[str],
        head: nn.Module,
        anchor_generator: nn.Module,
        anchor_matcher: Matcher,
        box2box_transform: Box2BoxTransform,
        batch_size_per_image: int,
        positive_fraction: float,
        pre_nms_topk: tuple[int, int],
        post_nms_topk: tuple[int, int],
        nms_thresh: float = 0.7,
        min_box_size: float = 0.0,
        anchor_boundary_thresh: float = -1.0,
        loss_weight: float | Mapping[str, float] = 1.0,
        box_reg_loss_type: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
    ):
        super().__init__()
        self.in_features = list(in_features)
        self.rpn_head = head
        self.anchor_generator = anchor_generator
        self.anchor_matcher = anchor_matcher
        self.box2box_transform = box2box_transform
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        # Test before training, so that `self.training` is the index.
        self.pre_nms_topk = tuple(pre_nms_topk)[::-1]
        self.post_nms_topk = tuple(post_nms_topk)[::-1]
        self.nms_thresh = nms_thresh
        self.min_box_size = float(min_box_size)
        self.anchor_boundary_thresh = anchor_boundary_thresh
        self.loss_weights = LossWeights(loss_weight, ("loss_rpn_cls", "loss_rpn_loc"))
        self.box_reg_loss_type = box_reg_loss_type
        self.smooth_l1_beta = smooth_l1_beta

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        gt_instances: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Propose boxes; in training also compute the losses, inside an `EventStorage`.

        Args:
            images: only `image_sizes` is read.
            features: (N, C, H, W) by name.
            gt_instances: per image, with `gt_boxes`; needed in training.

        Returns:
            Proposals per image (see `find_top_rpn_proposals`) and the losses `loss_rpn_cls`,
            `loss_rpn_loc` ({} at test time).

        Raises:
            AssertionError: training without ground truth.
        """
        levels = [features[name] for name in self.in_features]
        anchors = self.anchor_generator(levels)
        logits, deltas = self.rpn_head(levels)
        logits = [by_anchor(x, 1).flatten(1) for x in logits]  # (N, HWA)
        deltas = [by_anchor(x, self.anchor_generator.box_dim) for x in deltas]

        losses = {}
        if self.training:
            assert gt_instances is not None, (
                "RPN needs gt_instances in training; every input must have 'instances'"
            )
            labels, gt_boxes = self.label_and_sample_anchors(anchors, gt_instances)
            losses = self.losses(anchors, logits, labels, deltas, gt_boxes)
        return self.predict_proposals(anchors, logits, deltas, images.image_sizes), losses

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Decide which anchors enter the losses, and what they should predict.

        Args:
            anchors: one `Boxes` per level.
            gt_instances: per image, with `gt_boxes`.

        Returns:
            Per image (R,) int8 labels of all anchors: 1 sampled object, 0 sampled background, -1
            anything else; and (R, 4) the ground-truth box of each anchor (zeros where the image
            has none).
        """
        anchors = Boxes.cat(anchors)
        gt_boxes = [x.gt_boxes for x in gt_instances]
        matches, labels = match_images(self.anchor_matcher, gt_boxes, [anchors] * len(gt_boxes))
        lengths = [len(anchors)] * len(gt_boxes)
        if self.anchor_boundary_thresh >= 0:
            for instances, labels_i in zip(gt_instances, labels.split(lengths), strict=True):
                inside = anchors.inside_box(instances.image_size, self.anchor_boundary_thresh)
                # A view: this writes into `labels`.
                labels_i.masked_fill_(~inside, -1)
        rows, _ = subsample_labels_of_images(
            labels, lengths, self.batch_size_per_image, self.positive_fraction, 0
        )
        sampled = torch.full_like(labels, -1).index_copy_(0, rows, labels[rows])
        return list(sampled.split(lengths)), matched_boxes(matches, gt_boxes)

    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Objectness and box loss of the sampled anchors, over `batch_size_per_image` per image.

        Args:
            anchors: one `Boxes` per level.
            pred_objectness_logits: per level (N, HWA).
            gt_labels: per image (R,), see `label_and_sample_anchors`.
            pred_anchor_deltas: per level (N, HWA, 4).
            gt_boxes: per image (R, 4).

        Returns:
            `loss_rpn_cls` and `loss_rpn_loc`, weighted scalars.

        Raises:
            ValueError: more anchors are labelled; raised when the scalars are read.
        """
        labels = torch.stack(gt_labels)  # (N, R)
        num_images, count = len(labels), self.batch_size_per_image
        # The sampled anchors, filled up by others without a weight: so the host need not wait for
        # their number.
        labels, rows = labels.topk(min(count + 1, labels.shape[1]), dim=1)
        self._log_counts(labels)
        labels, rows = labels[:, :count], rows[:, :count]
        logits = cat(pred_objectness_logits, dim=1).gather(1, rows)
        # Those without a weight have the target -1, which is no class, but 0 times a finite loss.
        loss_cls = F.binary_cross_entropy_with_logits(
            logits, labels.float(), weight=labels >= 0, reduction="sum"
        )
        index = rows[..., None].expand(-1, -1, 4)
        loss_loc = box_regression_loss(
            Boxes.cat(anchors).tensor[rows].flatten(0, 1),
            cat(pred_anchor_deltas, dim=1).gather(1, index).flatten(0, 1),
            torch.stack(gt_boxes).gather(1, index).flatten(0, 1),
            self.box2box_transform,
            self.box_reg_loss_type,
            self.smooth_l1_beta,
            (labels != 1).flatten(),
        )
        normalizer = count * num_images
        return self.loss_weights.apply(
            {"loss_rpn_cls": loss_cls / normalizer, "loss_rpn_loc": loss_loc / normalizer}
        )

    def _log_counts(self, labels: Tensor) -> None:
        num_images, count = len(labels), self.batch_size_per_image

        def scalars(labels: list[float]) -> dict[str, float]:
            num_positive, num_negative = labels.count(1), labels.count(0)
            if num_positive + num_negative > count * num_images:
                raise ValueError(
                    f"{num_positive + num_negative} anchors of {num_images} images have a label "
                    f">= 0; with batch_size_per_image={count}, {count} of an image may"
                )
            return {
                "rpn/num_pos_anchors": num_positive / num_images,
                "rpn/num_neg_anchors": num_negative / num_images,
            }

        get_event_storage().put_deferred(labels.flatten(), scalars)

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """Turn scores and deltas into proposals, without gradient.

        Equal to decoding every anchor and calling `find_top_rpn_proposals`, but only the anchors
        that are among the best of their level are decoded.

        Args:
            anchors: one `Boxes` per level.
            pred_objectness_logits: per level (N, HWA).
            pred_anchor_deltas: per level (N, HWA, 4).
            image_sizes: (height, width) per image, without padding.

        Returns:
            See `find_top_rpn_proposals`.
        """
        scores, rows, start = [], [], 0
        for logits in pred_objectness_logits:
            top_scores, positions = logits.topk(
                min(self.pre_nms_topk[self.training], logits.shape[1]), dim=1
            )
            scores.append(top_scores)
            rows.append(positions + start if start else positions)
            start += logits.shape[1]
        # The best of all levels are decoded at once.
        index = cat(rows, dim=1)[..., None].expand(-1, -1, 4)  # (N, k, 4)
        top_anchors = Boxes.cat(anchors).tensor[index[..., 0]]
        top_deltas = cat(pred_anchor_deltas, dim=1).gather(1, index)
        boxes = self.box2box_transform.apply_deltas(
            top_deltas.flatten(0, 1), top_anchors.flatten(0, 1)
        ).view_as(top_anchors)
        return suppress_proposals(
            boxes,
            scores,
            image_sizes,
            self.nms_thresh,
            self.post_nms_topk[self.training],
            self.min_box_size,
            self.training,
        )
