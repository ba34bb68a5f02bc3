import logging
from collections.abc import Sequence

import torch
from torch import Tensor

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
        if match_quality_matrix.numel() == 0:
            num_predictions = match_quality_matrix.size(1)
            return (
                match_quality_matrix.new_zeros(num_predictions, dtype=torch.int64),
                match_quality_matrix.new_full((num_predictions,), self.labels[0], dtype=torch.int8),
            )
        lowest = match_quality_matrix.min()  # NaN where there is one, which is not >= 0 either
        assert_all(
            lowest >= 0,
            "match quality must be >= 0",
            lambda: f"{lowest.item()}; check the boxes for NaN",
        )
        best_quality, matches = match_quality_matrix.max(dim=0)
        match_labels = torch.full_like(matches, self.labels[0], dtype=torch.int8)
        for threshold, label in zip(self.thresholds, self.labels[1:], strict=True):
            match_labels.masked_fill_(best_quality >= threshold, label)
        if self.allow_low_quality_matches:
            self._label_best_of_each_ground_truth(match_labels, match_quality_matrix)
        return matches, match_labels

    def _label_best_of_each_ground_truth(self, match_labels: Tensor, quality: Tensor) -> None:
        """Set (N,) `match_labels` to 1 where a prediction reaches the maximum of a row, in place.

        A ground truth without any overlap has the maximum 0, which all predictions without overlap
        reach: they become positive, as in upstream Detectron2, on which published results rest.
        """
        best_per_ground_truth = quality.amax(dim=1)  # (M,)
        is_best = (quality == best_per_ground_truth[:, None]).any(dim=0)  # (N,)
        match_labels.masked_fill_(is_best, 1)
        if self._warnings_left > 0:
            self._warn_about_no_overlap(best_per_ground_truth, quality.size(1))

    def _warn_about_no_overlap(self, best_per_ground_truth: Tensor, num_predictions: int) -> None:
        """Warn now, or with the log where there is one: so training need not wait."""

        def warn(best: list[float]) -> dict[str, float]:
            self._warn([row for row, quality in enumerate(best) if quality == 0], len(best), n)
            return {}

        n = num_predictions
        if has_event_storage():
            get_event_storage().put_deferred(best_per_ground_truth, warn)
        else:
            warn(best_per_ground_truth.tolist())

    def _warn(self, rows: list[int], num_ground_truths: int, num_predictions: int) -> None:
        if not rows or self._warnings_left == 0:
            return
        self._warnings_left -= 1
        logger.warning(
            "%d of %d ground truths (rows %s) overlap none of the %d anchors or proposals, so "
            "every prediction with quality 0 is labelled positive for them. Check for empty boxes, "
            "boxes outside the image, and the anchor sizes.",
            len(rows),
            num_ground_truths,
            rows[:5],
            num_predictions,
        )


def matched_classes(
    matches: Tensor, match_labels: Tensor, gt_classes: Tensor, bg_label: int
) -> Tensor:
    """The class that each prediction should have.

    Args:
        matches: (N,) what a `Matcher` returned for M ground truths.
        match_labels: (N,) likewise.
        gt_classes: (M,) classes of the ground truths.
        bg_label: the class that means background.

    Returns:
        (N,) int64: `bg_label` for label 0 and without any ground truth, -1 for label -1.
    """
    if len(gt_classes) == 0:
        return torch.full_like(matches, bg_label)
    classes = gt_classes[matches]
    return classes.masked_fill_(match_labels == 0, bg_label).masked_fill_(match_labels == -1, -1)


def matched_boxes(matches: Tensor, gt_boxes: Tensor) -> Tensor:
    """The (N, 4) box of each prediction's match among (M, 4); zeros without any ground truth."""
    if len(gt_boxes) == 0:
        return gt_boxes.new_zeros(len(matches), 4)
    return gt_boxes[matches.to(gt_boxes.device)]
