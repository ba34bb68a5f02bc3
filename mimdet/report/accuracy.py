"""AP by class, by size and by number of objects; precision-recall curves; calibration of scores."""

from typing import Any

import numpy as np

from mimdet.report.detections import Evaluated
from mimdet.report.matching import AREAS, THRESHOLDS, Matches, match
from mimdet.report.precision import RECALLS, Ranking, mean_percent

# The least and the largest number of objects of an image, by name; None is without end.
CROWDEDNESS = {"1": (1, 1), "2-4": (2, 4), "5-9": (5, 9), "10-19": (10, 19), "20+": (20, None)}


def summary(ranking: Ranking) -> dict[str, float | None]:
    """AP, AP50 and AP75 in percent, as in ``results.json``; None where undefined.

    Args:
        ranking: at `THRESHOLDS`.
    """
    return _summary(ranking.average_precision())


def by_class(evaluated: Evaluated, ranking: Ranking) -> list[dict[str, Any]]:
    """One entry per class: ``class``, AP, AP50 and AP75, and how many there are of it.

    The counts are ``objects`` and ``images`` (that have an object of it) of the truth, without
    crowd regions, and ``detections``.
    """
    ap = ranking.average_precision()
    objects, truth = ranking.positives().astype(int), evaluated.truth
    has = np.unique(np.stack([truth.category, truth.image])[:, ~truth.is_crowd], axis=1)[0]
    images = np.bincount(has, minlength=len(objects))
    detections = np.bincount(evaluated.found.category, minlength=len(objects))
    return [
        {
            "class": name,
            **_summary(ap[:, k : k + 1]),
            "objects": int(objects[k]),
            "images": int(images[k]),
            "detections": int(detections[k]),
        }
        for k, name in enumerate(evaluated.categories)
    ]


def by_size(evaluated: Evaluated) -> list[dict[str, Any]]:
    """AP, AP50 and AP75 of COCO's small, medium and large objects, with their number."""
    rows = []
    for name, area in AREAS.items():
        ranking = Ranking(evaluated, match(evaluated, area=area))
        count = int(ranking.positives().sum())
        rows.append({"size": name, "area": list(area), "objects": count, **summary(ranking)})
    return rows


def by_crowdedness(evaluated: Evaluated, ranking: Ranking) -> list[dict[str, Any]]:
    """AP, AP50 and AP75 on the images with so many objects, with the number of both."""
    truth = evaluated.truth
    objects = np.bincount(truth.image[~truth.is_crowd], minlength=len(evaluated.images))
    rows = []
    for name, (least, most) in CROWDEDNESS.items():
        is_chosen = (objects >= least) & (objects <= (np.inf if most is None else most))
        rows.append(
            {
                "objects_per_image": name,
                "images": int(is_chosen.sum()),
                "objects": int(objects[is_chosen].sum()),
                **_summary(ranking.average_precision(is_chosen.astype(float))),
            }
        )
    return rows


def precision_recall(evaluated: Evaluated, ranking: Ranking) -> dict[str, Any]:
    """Precision at COCO's 101 recalls, as shares of 1.

    Returns:
        ``recall``; ``mean`` over classes by IoU ("0.50" to "0.95"); ``classes``: that of each class
        with objects at an IoU of 0.5.
    """
    curves = ranking.curves()
    has_objects = ranking.positives() > 0
    return {
        "recall": RECALLS.round(2).tolist(),
        "mean": {
            f"{threshold:.2f}": _rounded(curves[t, has_objects].mean(axis=0))
            for t, threshold in enumerate(THRESHOLDS)
            if has_objects.any()
        },
        "classes": {
            evaluated.categories[k]: _rounded(curves[0, k]) for k in np.flatnonzero(has_objects)
        },
    }


def calibration(evaluated: Evaluated, matches: Matches, bins: int = 10) -> dict[str, Any]:
    """Whether a detection of score s is right in a share s of the cases, at an IoU of 0.5.

    Args:
        evaluated: of the images.
        matches: of which the first threshold is 0.5.
        bins: of equal width between 0 and 1.

    Returns:
        ``bins``: for each that holds detections ``{"low", "high", "count", "score", "precision"}``
        with the means of score and precision; ``expected_calibration_error``: the mean distance
        between the two, by count, None without detections.

    Reference: Guo et al. 2017, arXiv 1706.04599, section 2.
    """
    is_judged = ~matches.is_ignored[0]
    score, is_true = evaluated.found.score[is_judged], matches.is_true[0][is_judged]
    # A score of 1 belongs to the last bin.
    place = np.clip((score * bins).astype(int), 0, bins - 1)
    rows = []
    for b in np.unique(place):
        inside = place == b
        rows.append(
            {
                "low": float(b / bins),
                "high": float((b + 1) / bins),
                "count": int(inside.sum()),
                "score": float(score[inside].mean()),
                "precision": float(is_true[inside].mean()),
            }
        )
    error = sum(row["count"] * abs(row["score"] - row["precision"]) for row in rows)
    return {
        "bins": rows,
        "expected_calibration_error": error / len(score) if len(score) else None,
    }


def _summary(ap: np.ndarray) -> dict[str, float | None]:
    # 0 and 5 are the places of 0.50 and 0.75 in `THRESHOLDS`.
    return {"AP": mean_percent(ap), "AP50": mean_percent(ap[0]), "AP75": mean_percent(ap[5])}


def _rounded(values: np.ndarray) -> list[float]:
    return values.round(4).tolist()
