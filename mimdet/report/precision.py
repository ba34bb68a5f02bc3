"""Precision, recall and average precision of matched detections, also of weighted images."""

import numpy as np

from mimdet.report.detections import Evaluated
from mimdet.report.matching import Matches

RECALLS = np.linspace(0, 1, 101)  # at which COCO samples precision
_NEXT = np.append(RECALLS[1:], np.inf)


class Ranking:
    """Detections of K classes, ordered for computing AP at T thresholds again and again.

    A weight per image stands for the same image that many times: 0 and 1 choose images, the numbers
    of draws make a resample. A computation goes once over all detections and then only over those
    that are right, which is what makes thousands of resamples affordable.

    Args:
        evaluated: of the images.
        matches: of its detections.
        category: (D,) classes of the detections if they are to be other ones than those found.

    Reference: Lin et al. 2014, arXiv 1405.0312 (COCO's AP: precision made falling from the right,
    sampled at 101 recalls).
    """

    def __init__(self, evaluated: Evaluated, matches: Matches, category: np.ndarray | None = None):
        found, truth = evaluated.found, evaluated.truth
        category = found.category if category is None else category
        self.num_images, self.num_classes = len(evaluated.images), len(evaluated.categories)
        self.num_thresholds = len(matches.matched)
        self._truth_image = truth.image[matches.counts]
        self._truth_category = truth.category[matches.counts]

        # By class, then by falling score; stable, so that ties stay in the order of the images.
        order = np.lexsort((-found.score, category))
        self._image = found.image[order]
        category = category[order]
        # A row of an array is one threshold, a cell is a class at a threshold, cells lie in order.
        is_true, is_ignored = matches.is_true[:, order], matches.is_ignored[:, order]
        threshold, self._place = np.nonzero(is_true)
        self._class = category[self._place]
        self._cell = threshold * self.num_classes + self._class
        self._class_start = np.searchsorted(category, self._class)
        self._cell_start = np.searchsorted(self._cell, self._cell)
        self._is_first = np.arange(len(self._cell)) == self._cell_start
        self._true_image = self._image[self._place]
        # Higher by more than any precision for each cell further to the left, see `_staircase`.
        self._height = 2.0 * (self.num_thresholds * self.num_classes - self._cell)
        # Ignored detections are few: they are subtracted from the count of all.
        ignored_threshold, ignored_place = np.nonzero(is_ignored)
        self._ignored_image = self._image[ignored_place]
        flat = ignored_threshold * len(order) + ignored_place
        self._ignored_until = np.searchsorted(flat, threshold * len(order) + self._place)
        self._ignored_start = np.searchsorted(flat, threshold * len(order) + self._class_start)

    def positives(self, weights: np.ndarray | None = None) -> np.ndarray:
        """(K,) the number of objects to be found of each class."""
        weights = np.ones(self.num_images) if weights is None else weights
        return np.bincount(
            self._truth_category, weights[self._truth_image], minlength=self.num_classes
        )

    def average_precision(self, weights: np.ndarray | None = None) -> np.ndarray:
        """(T, K) AP as a share of 1; NaN for a class without objects.

        Args:
            weights: (images,) how often each image counts; None is once.
        """
        positives = self.positives(weights)
        envelope, steps = self._staircase(positives, weights)
        cells = self.num_thresholds * self.num_classes
        total = np.bincount(self._cell, envelope * steps, minlength=cells) / len(RECALLS)
        total = total.reshape(self.num_thresholds, self.num_classes)
        return np.where(positives > 0, total, np.nan)

    def curves(self) -> np.ndarray:
        """(T, K, 101) precision at `RECALLS`; NaN for a class without objects."""
        positives = self.positives()
        envelope, steps = self._staircase(positives, None)
        curves = np.zeros((self.num_thresholds * self.num_classes, len(RECALLS)))
        cell = np.repeat(self._cell, steps)
        # The recalls that one class reaches are the first ones, in order.
        curves[cell, np.arange(len(cell)) - np.searchsorted(cell, cell)] = np.repeat(
            envelope, steps
        )
        curves[np.tile(positives == 0, self.num_thresholds)] = np.nan
        return curves.reshape(self.num_thresholds, self.num_classes, len(RECALLS))

    def _staircase(
        self, positives: np.ndarray, weights: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """For each right detection the largest precision from it on, and how many recalls it adds.

        Precision rises only at right detections, and between two of them recall stands still: the
        others are needed for nothing but to be counted.
        """
        weights = np.ones(self.num_images) if weights is None else weights
        seen = _running_sum(weights[self._image])
        ignored = _running_sum(weights[self._ignored_image])
        hits = _running_sum(weights[self._true_image])
        right = hits[1:] - hits[self._cell_start]
        # to its own place included, hence + 1
        judged = seen[self._place + 1] - seen[self._class_start]
        judged -= ignored[self._ignored_until] - ignored[self._ignored_start]
        # Before the first image that counts nothing is judged: 0 of at least 1.
        precision = right / np.maximum(judged, 1)
        # The maximum from the right, of all cells at once: none takes over its neighbour's.
        raised = precision + self._height
        envelope = np.maximum.accumulate(raised[::-1])[::-1] - self._height
        recall = right / np.maximum(positives, 1)[self._class]
        reached = _recalls_reached(recall)
        steps = np.diff(reached, prepend=0)
        return envelope, np.where(self._is_first, reached, steps)


def _recalls_reached(recall: np.ndarray) -> np.ndarray:
    """How many of `RECALLS` are not above each value; `searchsorted`, but ten times as fast."""
    near = (recall * 100).astype(int)  # exact, but for the rounding of a hundredth
    return near + 1 - (RECALLS[near] > recall) + (_NEXT[near] <= recall)


def _running_sum(values: np.ndarray) -> np.ndarray:
    """(N + 1,) the sum of the values before each place."""
    return np.concatenate([[0.0], np.cumsum(values)])


def mean_percent(values: np.ndarray) -> float | None:
    """The mean in percent of the shares that are defined; None if none is."""
    return None if np.isnan(values).all() else float(100 * np.nanmean(values))
