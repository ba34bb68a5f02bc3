"""What kinds of mistakes a detector makes, and what each kind costs in AP.

Reference: Bolya et al. 2020, arXiv 2008.08115 (TIDE), sections 2.2 and 2.3: the kinds, their bounds
of IoU and the oracles that mend them. Everything is at an IoU of 0.5, in percentage points.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mimdet.report.detections import Evaluated, image_slices
from mimdet.report.matching import Matches, match
from mimdet.report.precision import Ranking, mean_percent

FOREGROUND = 0.5  # the least IoU at which a detection has found an object
BACKGROUND = 0.1  # the IoU below which it has nothing to do with one

FALSE_ALARMS = ("classification", "localisation", "both", "duplicate", "background")
KINDS = (*FALSE_ALARMS, "missed")
RIGHT = -1


@dataclass(frozen=True)
class Mistakes:
    """Each detection's kind of mistake, and the objects that nothing found.

    Attributes:
        matches: at the one threshold `FOREGROUND`.
        kind: (D,) place in `FALSE_ALARMS`; `RIGHT` for detections that are right or ignored.
        target: (D,) for wrong class and wrong place the object that was meant, otherwise -1.
        is_missed: (G,) bool, True for objects that no detection found or meant.
    """

    matches: Matches
    kind: np.ndarray
    target: np.ndarray
    is_missed: np.ndarray


def find_mistakes(evaluated: Evaluated, matches: Matches | None = None) -> Mistakes:
    """Tell the kind of each false alarm.

    A false alarm that fits several kinds has the first of: localisation (overlaps an object of its
    class, too little), classification (lies on an object of another class), duplicate (lies on an
    object of its class that a higher score has found), background (overlaps nothing); what is left
    overlaps another class, too little, and is wrong in both.

    Args:
        evaluated: of the images.
        matches: at the one threshold `FOREGROUND`, if they are there already.
    """
    matches = match(evaluated, [FOREGROUND]) if matches is None else matches
    truth, found = evaluated.truth, evaluated.found
    kind, target = np.full(len(found.score), RIGHT), np.full(len(found.score), -1)
    slices = image_slices(len(evaluated.images), found, truth)
    for overlaps, (d, g) in zip(evaluated.overlaps, slices, strict=True):
        # What does not count, such as a crowd, is no target: its overlaps become 0.
        # An empty column in front, so that there is a maximum where there are no objects.
        overlaps = np.pad(overlaps * matches.counts[g], [(0, 0), (1, 0)])
        is_same = np.pad(found.category[d, None] == truth.category[g], [(0, 0), (1, 0)])
        same, other = np.where(is_same, overlaps, 0), np.where(is_same, 0, overlaps)
        own, foreign = same.max(axis=1), other.max(axis=1)
        is_kind = {
            "localisation": (own >= BACKGROUND) & (own < FOREGROUND),
            "classification": foreign >= FOREGROUND,
            "duplicate": own >= FOREGROUND,
            "background": np.maximum(own, foreign) < BACKGROUND,
        }
        # select takes the first that holds
        kind[d] = np.select(
            list(is_kind.values()),
            [FALSE_ALARMS.index(name) for name in is_kind],
            FALSE_ALARMS.index("both"),
        )
        target[d] = np.select(
            [is_kind["localisation"], is_kind["classification"]],
            [same.argmax(axis=1) + g.start - 1, other.argmax(axis=1) + g.start - 1],
            -1,
        )
    is_false = matches.is_false[0]
    kind[~is_false], target[~is_false] = RIGHT, -1
    is_missed = matches.counts.copy()
    is_missed[matches.matched[0][matches.matched[0] >= 0]] = False
    is_missed[target[target >= 0]] = False
    return Mistakes(matches, kind, target, is_missed)


def error_costs(evaluated: Evaluated, mistakes: Mistakes | None = None) -> dict[str, Any]:
    """The AP that each kind of mistake costs: AP50 with only that kind mended, less AP50.

    Mended means: wrong class and wrong place become right (of several detections of an object then
    only the one with the highest score stays), the other false alarms go, and missed objects are
    not looked for. The costs do not add up to 100 - AP50, as mending one kind changes what another
    one costs.

    Returns:
        ``AP50`` in percent; ``kinds``: for each of `KINDS` ``{"kind", "count", "cost"}`` with the
        cost in points of AP50; ``false_positives`` and ``false_negatives``: the cost of all false
        alarms, and of all objects without a match. None where there are no objects.
    """
    mistakes = find_mistakes(evaluated) if mistakes is None else mistakes
    matches = mistakes.matches
    before = _per_class(evaluated, matches)

    def cost(mended: Matches, category: np.ndarray | None = None) -> float | None:
        after = _per_class(evaluated, mended, category)
        # A class of which nothing is left to be found has been mended whole.
        after = np.where(np.isnan(after) & ~np.isnan(before), 1.0, after)
        return mean_percent(after - before)

    kinds = []
    for name in KINDS:
        if name == "missed":
            of_kind = mistakes.is_missed
            price = cost(replace(matches, counts=matches.counts & ~of_kind))
        else:
            of_kind = mistakes.kind == FALSE_ALARMS.index(name)
            has_target = name in ("classification", "localisation")
            price = cost(*(_put_right if has_target else _left_out)(evaluated, mistakes, of_kind))
        kinds.append({"kind": name, "count": int(of_kind.sum()), "cost": price})

    is_found = np.zeros(len(matches.counts), bool)
    is_found[matches.matched[matches.is_true]] = True
    return {
        "AP50": mean_percent(before),
        "kinds": kinds,
        "false_positives": cost(*_left_out(evaluated, mistakes, matches.is_false[0])),
        "false_negatives": cost(replace(matches, counts=matches.counts & is_found)),
    }


def _per_class(
    evaluated: Evaluated, matches: Matches, category: np.ndarray | None = None
) -> np.ndarray:
    return Ranking(evaluated, matches, category).average_precision()[0]


def _left_out(
    evaluated: Evaluated, mistakes: Mistakes, of_kind: np.ndarray
) -> tuple[Matches, np.ndarray]:
    matches = mistakes.matches
    mended = replace(matches, is_ignored=matches.is_ignored | of_kind)
    return mended, evaluated.found.category


def _put_right(
    evaluated: Evaluated, mistakes: Mistakes, of_kind: np.ndarray
) -> tuple[Matches, np.ndarray]:
    matches, found = mistakes.matches, evaluated.found
    claim = np.where(of_kind, mistakes.target, np.where(matches.is_true[0], matches.matched[0], -1))
    claimants = np.flatnonzero(claim >= 0)
    # The highest score for each object: the first of its claims when they are in that order.
    by_score = claimants[np.argsort(-found.score[claimants], kind="stable")]
    winners = by_score[np.unique(claim[by_score], return_index=True)[1]]
    loses = np.zeros(len(claim), bool)
    loses[claimants] = True
    loses[winners] = False
    matched = np.where(of_kind, mistakes.target, matches.matched[0])
    category = found.category.copy()
    category[of_kind] = evaluated.truth.category[mistakes.target[of_kind]]
    mended = replace(matches, matched=matched[None], is_ignored=matches.is_ignored | loses)
    return mended, category
