"""The charts of what detections and truth say of a model, from the dict of `findings`."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from mimdet.report.charts import Bar, Series, bars, line_chart
from mimdet.report.names import MISTAKES
from mimdet.report.sections import Figure, figure

_KINDS = {**MISTAKES, "missed": "missed"}
_IOUS = ("0.50", "0.75", "0.90")


def detection_figures(found: Mapping[str, Any]) -> list[Figure]:
    """Kinds of mistakes, precision-recall, calibration, AP by size and by number of objects."""
    return [
        figure(
            "What the mistakes cost",
            _error_bars(found["errors"]),
            "Points of AP50 that would be won if this kind of mistake alone were mended, and in "
            "brackets how often it happens. The longest bar is where work pays first. Wrong "
            "class: in the right place. Misplaced: right class, IoU 0.10 to 0.50. Duplicate: of "
            "an object that was found already. They do not add up, as mending one kind changes "
            "what another costs (kinds of TIDE, Bolya et al. 2020).",
        ),
        figure(
            "Precision and recall",
            _precision_recall(found["precision_recall"]),
            "From left to right detections of lower and lower score are taken: more objects are "
            "found (recall), fewer of the detections are right (precision). AP is the area below. "
            "A higher IoU asks for more exact boxes; mean over the classes.",
        ),
        figure(
            "Can the scores be trusted?",
            _calibration(found["calibration"]),
            "Of the detections with about this score, the share that is right at IoU 0.50. On the "
            "dotted line a score of 0.8 is right 8 times out of 10; below it the model is too "
            f"sure of itself. Mean distance from the line: {_error(found['calibration'])}.",
        ),
        figure(
            "AP by size of the objects",
            _ap_bars(found["by_size"], "size"),
            "Small is below 32² pixels, large above 96², as in COCO.",
        ),
        figure(
            "AP by number of objects in the image",
            _ap_bars(found["by_crowdedness"], "objects_per_image"),
            "Whether crowded images are harder.",
        ),
    ]


def _error_bars(errors: Mapping[str, Any]) -> Markup:
    rows = [
        Bar(
            _KINDS[kind["kind"]],
            kind["cost"],
            f"{_points(kind['cost'])} ({kind['count']})",
            color=1,
        )
        for kind in errors["kinds"]
    ]
    return bars(rows)


def _points(cost: float | None) -> str:
    return "–" if cost is None else f"{cost:.1f} points"


def _precision_recall(curves: Mapping[str, Any]) -> Markup:
    series = [
        Series(f"IoU {iou}", list(zip(curves["recall"], curves["mean"][iou], strict=True)))
        for iou in _IOUS
        if iou in curves["mean"]
    ]
    return line_chart(series, "recall", "precision", x_range=(0, 1), y_range=(0, 1))


def _calibration(calibration: Mapping[str, Any]) -> Markup:
    points = [(row["score"], row["precision"]) for row in calibration["bins"]]
    series = [Series("share that is right", points, marks=True)]
    return line_chart(
        series, "score", "share that is right", x_range=(0, 1), y_range=(0, 1), diagonal=True
    )


def _error(calibration: Mapping[str, Any]) -> str:
    error = calibration["expected_calibration_error"]
    return "–" if error is None else f"{error:.3f}"


def _ap_bars(rows: list[Mapping[str, Any]], name: str) -> Markup:
    return bars(
        [
            Bar(
                str(row[name]),
                row["AP"],
                f"{'–' if row['AP'] is None else format(row['AP'], '.1f')}, {_objects(row)}",
            )
            for row in rows
            if row["objects"]
        ],
        maximum=100,
    )


def _objects(row: Mapping[str, Any]) -> str:
    return f"{row['objects']} object{'' if row['objects'] == 1 else 's'}"
