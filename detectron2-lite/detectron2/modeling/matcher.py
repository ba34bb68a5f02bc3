import logging
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from detectron2.layers import cat
from detectron2.structures import Boxes
from detectron2.structures.boxes import pairwise_iou_of_images
from detectron2.utils.checks import assert_all
from detectron2.utils.events import get_event_storage, has_event_storage

logger = logging.getLogger(__name__)

_NO_OVERLAP_WARNINGS = 5


class Matcher:
    """Assigns to each prediction (anchor, proposal) one ground truth and a label.

    A prediction is matched with the ground truth of highest quality (usually the IoU); the label
    says in which interval between the thresholds that quality lies: background, ignored or
    foreground.

    Reference: Ren et al. 2015, arXiv 1506.01497, section 3.1.2 (with low-quality matches, as its
    condition (i)).
    """

    def __init__(
        self,
        thresholds: Sequence[float],
        labels: Sequence[int],
        allow_low_quality_matches: bool = False,
    ):
        """Set the intervals and their labels.

        Args:
            thresholds: ascending and positive; k thresholds make k + 1 intervals `low <= q < high`.
            labels: label of each interval: -1 ignored, 0 background, 1 foreground.
            allow_low_quality_matches: also label 1 every prediction that is (with ties) the best
                one of some ground truth. It keeps its own match, which may be another ground truth.

        Raises:
            AssertionError: if thresholds or labels break these rules.
        """
        thresholds, labels = list(thresholds), list(labels)
        assert thresholds and thresholds[0] > 0 and thresholds == sorted(thresholds), (
            f"Matcher thresholds must be positive and ascending, got {thresholds}"
        )
        assert all(label in (-1, 0, 1) for label in labels), (
            f"Matcher labels must be -1 (ignore), 0 (background) or 1 (foreground), got {labels}"
        )
        assert len(labels) == len(thresholds) + 1, (
            f"Matcher needs one label more than thresholds, got {labels} for {thresholds}"
        )
        self.thresholds = thresholds
        self.labels = labels
        self.allow_low_quality_matches = allow_low_quality_matches
        self._warnings_left = _NO_OVERLAP_WARNINGS

    def __call__(self, match_quality_matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Match predictions with ground truth.

        Args:
            match_quality_matrix: (M, N) quality >= 0 of M ground truths and N predictions. M or N
                may be 0: then every prediction gets match 0 and the lowest interval's label.

        Returns:
            `matches`: (N,) int64 index of the best ground truth.
            `match_labels`: (N,) int8 labels.

        Raises:
            AssertionError: if the matrix is not 2-D or holds negative or NaN values (on a GPU the
                value check runs asynchronously and ends the process's use of the device).
        """
        assert match_quality_matrix.dim() == 2, (
            f"the match quality must be a (ground truths, predictions) matrix, "
            f"got shape {tuple(match_quality_matrix.shape)}"
        )
        lowest = match_quality_matrix.min() if match_quality_matrix.numel() > 0 else torch.tensor(0)
        assert_all(
            lowest >= 0,  # which NaN is not either
            "match quality must be >= 0",
            lambda: f"{lowest.item()}; check the boxes for NaN",
        )
        device = match_quality_matrix.device
        matches, match_labels = self._match_images([match_quality_matrix], device)
        return matches[0], match_labels

    def _match_images(
        self, qualities: Sequence[Tensor], device: torch.device
    ) -> tuple[Sequence[Tensor], Tensor]:
        """What `match_images` returns, on `device`."""
        best, matches = zip(*map(_best_ground_truths, qualities), strict=True)
        best, matches = cat(_on(device, best)), _on(device, matches)
        match_labels = torch.full_like(best, self.labels[0], dtype=torch.int8)
        for threshold, label in zip(self.thresholds, self.labels[1:], strict=True):
            # Thresholds ascend: each overwrites the labels of the intervals below it.
            match_labels.masked_fill_(best >= threshold, label)
        if self.allow_low_quality_matches:
            are_best = [self._are_best(quality, device) for quality in qualities]
            match_labels.masked_fill_(cat(are_best), 1)
        return matches, match_labels

    def _are_best(self, quality: Tensor, device: torch.device) -> Tensor:
        """(N,) bool on `device`: which predictions reach the maximum of a row of (M, N) `quality`.

        A ground truth without any overlap has the maximum 0, which all predictions without overlap
        reach: they become positive, as in upstream Detectron2, on which published results rest.
        """
        if quality.numel() == 0:
            return torch.zeros(quality.shape[1], dtype=torch.bool, device=device)
        best_per_ground_truth = quality.amax(dim=1)  # (M,)
        if self._warnings_left > 0:
            self._warn_about_no_overlap(best_per_ground_truth.to(device), quality.size(1))
        # Equal to the bit: the maximum is one of these very numbers.
        return (quality == best_per_ground_truth[:, None]).any(dim=0).to(device)

    def _warn_about_no_overlap(self, best_per_ground_truth: Tensor, num_predictions: int) -> None:
        """Warn now, or with the log where there is one: so training need not wait."""

        def warn(best: list[float]) -> dict[str, float]:
            rows = [row for row, quality in enumerate(best) if quality == 0]
            if rows and self._warnings_left > 0:
                self._warnings_left -= 1
                logger.warning(
                    "%d of %d ground truths (rows %s) overlap none of the %d anchors or proposals, "
                    "so every prediction with quality 0 is labelled positive for them. Check for "
                    "empty boxes, boxes outside the image, and the anchor sizes.",
                    len(rows),
                    len(best),
                    rows[:5],
                    num_predictions,
                )
            return {}

        if has_event_storage():
            get_event_storage().put_deferred(best_per_ground_truth, warn)
        else:
            warn(best_per_ground_truth.tolist())


def match_images(
    matcher: Callable, gt_boxes: Sequence[Boxes], boxes: Sequence[Boxes]
) -> tuple[Sequence[Tensor], Tensor]:
    """What `matcher` says of the IoU of each image's boxes with its ground truth.

    Args:
        matcher: a `Matcher`, or something else to be called for image after image.
        gt_boxes: per image, M_i boxes of the ground truth.
        boxes: per image, N_i predicted boxes or anchors.

    Returns:
        Per image the (N_i,) matches; and the labels of all images, one after the other. They are on
        the device of the boxes, also where the IoU is on the CPU for want of memory.
    """
    device = boxes[0].device
    ious = pairwise_iou_of_images(gt_boxes, boxes)
    # A subclass that matches in its own way must be asked itself.
    if type(matcher).__call__ is Matcher.__call__:
        return matcher._match_images(list(ious), device)
    matches, match_labels = zip(*map(matcher, ious), strict=True)
    return _on(device, matches), cat(_on(device, match_labels))


def _on(device: torch.device, tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.to(device) for tensor in tensors]


def _best_ground_truths(quality: Tensor) -> tuple[Tensor, Tensor]:
    """Best quality and its row for each column of (M, N); zeros where there is no row."""
    if quality.numel() == 0:
        best = quality.new_zeros(quality.shape[1])
        return best, best.long()
    best, rows = quality.max(dim=0)
    return best, rows


def matched_classes(
    matches: Sequence[Tensor],
    match_labels: Tensor,
    gt_classes: Sequence[Tensor],
    bg_label: int,
) -> Tensor:
    """The class that each prediction should have.

    Args:
        matches: per image (N_i,), what `match_images` returned for (M_i, N_i).
        match_labels: labels of all images, likewise.
        gt_classes: per image (M_i,) classes of the ground truths.
        bg_label: the class that means background.

    Returns:
        Of all images, one after the other, int64: `bg_label` for label 0 and without any ground
        truth, -1 for label -1.
    """
    classes = [
        of_image[rows] if len(of_image) > 0 else torch.full_like(rows, bg_label)
        for rows, of_image in zip(matches, gt_classes, strict=True)
    ]
    classes = cat(classes).masked_fill(match_labels == 0, bg_label)
    return classes.masked_fill_(match_labels == -1, -1)


def matched_boxes(matches: Sequence[Tensor], gt_boxes: Sequence[Boxes]) -> list[Tensor]:
    """Per image the (N_i, 4) box of each prediction's match; zeros without any ground truth."""
    return [
        boxes.tensor[rows] if len(boxes) > 0 else boxes.tensor.new_zeros(len(rows), 4)
        for rows, boxes in zip(matches, gt_boxes, strict=True)
    ]
