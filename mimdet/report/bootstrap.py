"""Whether a difference of two APs is more than the luck of the images they were measured on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mimdet.progress import progress
from mimdet.report.precision import Ranking

LEVEL = 0.95
RESAMPLES = 1000
SHOWN_NOTHING = "no difference shown"


@dataclass(frozen=True)
class Difference:
    """The difference of two APs, second less first, in points.

    Attributes:
        value: on the images as they are; None where AP is undefined.
        low, high: the interval that holds the middle `LEVEL` of the resamples; None likewise.
    """

    value: float | None
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """Is it "higher" or "lower", because the interval leaves 0 out, or `SHOWN_NOTHING`?"""
        if self.low is not None and self.low > 0:
            return "higher"
        if self.high is not None and self.high < 0:
            return "lower"
        return SHOWN_NOTHING

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the verdict."""
        return {**asdict(self), "verdict": self.verdict}


@dataclass(frozen=True)
class Compared:
    """Differences of two models on the same images: of AP, of AP50, and of the AP of each class."""

    ap: Difference
    ap50: Difference
    classes: list[Difference]


def paired_bootstrap(
    first: Sequence[Ranking],
    second: Sequence[Ranking],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Compared:
    """Compare two models by drawing the images again, with replacement, the same for both.

    What the images have in common, such as how hard they are, cancels in the difference of a draw.
    The interval speaks of other images like these; what another seed of the training would have
    changed it does not know.

    Args:
        first: a model: one run, or several that differ by their seeds, whose AP is the mean of
            theirs. All on the same images in the same order, and at the same thresholds, of which
            the first is 0.5.
        second: likewise.
        resamples: draws.
        seed: of the draws.

    Raises:
        ValueError: if they are not of the same number of images, classes and thresholds.

    Reference: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13 (intervals
    by percentiles).
    """
    shapes = {(r.num_images, r.num_classes, r.num_thresholds) for r in (*first, *second)}
    if len(shapes) != 1:
        raise ValueError(
            "a paired comparison needs the same number of images, of classes and of thresholds, "
            f"and got {sorted(shapes)} of them"
        )
    rng, count = np.random.default_rng(seed), first[0].num_images
    draws = np.empty((resamples, 2 + first[0].num_classes))
    for k in progress(range(resamples), resamples, "bootstrap", "resample", leave=False):
        weights = np.bincount(rng.integers(count, size=count), minlength=count).astype(float)
        draws[k] = _differences(first, second, weights)
    values = _differences(first, second, None)
    ap, ap50, *classes = [_difference(v, of_it) for v, of_it in zip(values, draws.T, strict=True)]
    return Compared(ap, ap50, classes)


def _difference(value: float, draws: np.ndarray) -> Difference:
    # A draw without an object of a class says nothing of that class.
    draws = draws[~np.isnan(draws)]
    if np.isnan(value) or not len(draws):
        return Difference(None, None, None)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(float(value), float(low), float(high))


def _differences(
    first: Sequence[Ranking], second: Sequence[Ranking], weights: np.ndarray | None
) -> np.ndarray:
    """(2 + K,) points of AP, of AP50, and of the AP of each class; NaN where undefined."""
    by_threshold = 100 * (_mean_ap(second, weights) - _mean_ap(first, weights))
    by_class = by_threshold.mean(axis=0)
    # Undefined for all of them alike: for the classes without objects.
    is_defined = ~np.isnan(by_class)
    if not is_defined.any():
        return np.full(2 + len(by_class), np.nan)
    means = by_class[is_defined].mean(), by_threshold[0][is_defined].mean()
    return np.concatenate([means, by_class])


def _mean_ap(rankings: Sequence[Ranking], weights: np.ndarray | None) -> np.ndarray:
    return np.mean([ranking.average_precision(weights) for ranking in rankings], axis=0)
