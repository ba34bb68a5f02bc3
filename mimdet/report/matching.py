"""Which detection finds which object, by the rules of COCO."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mimdet.report.detections import Evaluated, Found, image_slices

THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
MAX_DETECTIONS = 100  # of a class in an image


@dataclass(frozen=True)
class Matches:
    """The outcome of matching D detections with G objects at T thresholds of IoU.

    Attributes:
        matched: (T, D) place of the object that the detection finds, -1 for none.
        is_ignored: (T, D) bool, True where a detection is neither right nor wrong: it lies in a
            crowd region, finds an object that does not count, or is one too many of its class.
        counts: (G,) bool, True for objects that are to be found.
    """

    matched: np.ndarray
    is_ignored: np.ndarray
    counts: np.ndarray

    @property
    def is_true(self) -> np.ndarray:
        """(T, D) bool, True for detections that find an object that counts."""
        return (self.matched >= 0) & ~self.is_ignored

    @property
    def is_false(self) -> np.ndarray:
        """(T, D) bool, True for false alarms."""
        return (self.matched < 0) & ~self.is_ignored


def match(
    evaluated: Evaluated,
    thresholds: Sequence[float] | np.ndarray = THRESHOLDS,
    area: tuple[float, float] = (0, np.inf),
    max_detections: int = MAX_DETECTIONS,
) -> Matches:
    """Match detections with objects of their class, the highest score first.

    Each takes the object with which its overlap is largest among those that are left; one that does
    not count only if there is no other. A crowd region can be taken any number of times.

    Args:
        evaluated: of the images.
        thresholds: (T,) the least IoU of a match.
        area: the least and the largest area of an object that counts. Unmatched detections outside
            it are ignored.
        max_detections: of a class in an image, that count.

    Reference: Lin et al. 2014, arXiv 1405.0312, and the evaluation of cocodataset.org.
    """
    truth, found = evaluated.truth, evaluated.found
    counts = ~truth.is_crowd & ~_is_outside(truth.area, area)
    is_extra = _rank_in_class(found) >= max_detections
    matched = np.full((len(thresholds), len(found.score)), -1)
    for overlaps, (d, g) in zip(
        evaluated.overlaps, image_slices(len(evaluated.images), found, truth), strict=True
    ):
        is_candidate = found.category[d, None] == truth.category[g]
        is_candidate &= (overlaps >= min(thresholds)) & ~is_extra[d, None]
        # Few detections overlap with any object of their class: only those are gone through.
        options: dict[int, list[tuple[bool, float, int]]] = {}
        for row, column in zip(*np.nonzero(is_candidate), strict=True):
            k = int(column) + g.start
            option = (bool(counts[k]), float(overlaps[row, column]), k)
            options.setdefault(int(row) + d.start, []).append(option)
        for t, threshold in enumerate(thresholds):
            # COCO's bound keeps an IoU of 1 a match at a threshold of 1.
            found_by = _take(options, min(threshold, 1 - 1e-10), truth.is_crowd)
            matched[t, list(found_by)] = list(found_by.values())
    # The -1 of a detection that matches nothing picks the True at the end.
    finds_uncounted = (matched >= 0) & ~np.append(counts, True)[matched]
    is_ignored = is_extra | finds_uncounted | ((matched < 0) & _is_outside(found.area, area))
    return Matches(matched, is_ignored, counts)


def _take(
    options: dict[int, list[tuple[bool, float, int]]], threshold: float, is_crowd: np.ndarray
) -> dict[int, int]:
    """What each detection takes, in their order; options are (does it count, IoU, which)."""
    # `options` has the order of the detections, in which scores fall: dicts keep it.
    taken: dict[int, int] = {}
    gone = set()
    for detection, of_it in options.items():
        # An object that counts comes first, then the larger overlap, then the later in the file.
        best = max((o for o in of_it if o[1] >= threshold and o[2] not in gone), default=None)
        if best is not None:
            taken[detection] = best[2]
            if not is_crowd[best[2]]:
                gone.add(best[2])
    return taken


def _is_outside(area: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return (area < limits[0]) | (area > limits[1])


def _rank_in_class(found: Found) -> np.ndarray:
    """(D,) how many detections of its class stand before a detection in its image."""
    order = np.lexsort((found.category, found.image))  # stable: scores still fall
    image, category = found.image[order], found.category[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (image[1:] != image[:-1]) | (category[1:] != category[:-1])
    places = np.arange(len(order))
    ranks = np.empty(len(order), int)
    ranks[order] = places - np.maximum.accumulate(np.where(is_first, places, 0))
    return ranks
