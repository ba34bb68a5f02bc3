"""Everything that truth and detections say of a model, as one dict for JSON and for the page."""

from typing import Any

from mimdet.report.accuracy import (
    by_class,
    by_crowdedness,
    by_size,
    calibration,
    precision_recall,
    summary,
)
from mimdet.report.detections import Evaluated
from mimdet.report.errors import error_costs, find_mistakes
from mimdet.report.matching import match
from mimdet.report.precision import Ranking
from mimdet.report.worst_images import worst_images


def findings(evaluated: Evaluated, worst: int = 12) -> dict[str, Any]:
    """Analyse detections.

    Args:
        evaluated: what `mimdet.report.detections.read_detections` returns.
        worst: how many of the worst images to list.

    Returns:
        ``images``, ``objects``, ``detections``: their numbers; ``summary``, ``by_class``,
        ``by_size``, ``by_crowdedness``, ``precision_recall``, ``calibration`` of
        `mimdet.report.accuracy`; ``errors`` of `mimdet.report.errors.error_costs`; ``worst`` of
        `mimdet.report.worst_images`. Undefined numbers are None.
    """
    matches = match(evaluated)
    ranking = Ranking(evaluated, matches)
    mistakes = find_mistakes(evaluated)
    return {
        "images": len(evaluated.images),
        "objects": int(matches.counts.sum()),
        "detections": len(evaluated.found.score),
        "summary": summary(ranking),
        "by_class": by_class(evaluated, ranking),
        "by_size": by_size(evaluated),
        "by_crowdedness": by_crowdedness(evaluated, ranking),
        "precision_recall": precision_recall(evaluated, ranking),
        "calibration": calibration(evaluated, matches),
        "errors": error_costs(evaluated, mistakes),
        "worst": worst_images(evaluated, mistakes, worst),
    }
