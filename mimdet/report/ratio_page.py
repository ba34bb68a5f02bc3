"""The curve of a sample ratio -> one page that needs nothing else, and the JSON beside it."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mimdet.report.charts import Series, line_chart
from mimdet.report.names import HEADLINES
from mimdet.report.render import duration, render
from mimdet.whole_files import written_whole

PAGE, DATA = "ratio.html", "ratio.json"

Point = Mapping[str, Any]
_GIB = 2**30


def write_ratio_page(data: Mapping[str, Any], folder: str | os.PathLike) -> Path:
    """Write ``ratio.html``, and what it shows as ``ratio.json``.

    Args:
        data: the content of ``ratio.json``, see docs/ratio.md.
        folder: where both go; it exists.

    Returns:
        The path of the page.

    Raises:
        OSError: if the files cannot be written.
    """
    with written_whole(Path(folder, DATA)) as file:
        json.dump(data, file, allow_nan=False, indent=1)
    page = render(
        "ratio.html",
        data=data,
        figures_of_ratio=_figures(data),
        rows=rows(data),
        verdict=verdict(data),
    )
    with written_whole(Path(folder, PAGE)) as file:
        file.write(page)
    return Path(folder, PAGE)


def rows(data: Mapping[str, Any]) -> list[list[str]]:
    """The table: its head, and a line for each ratio."""
    points = data["points"]
    tasks = list(points[0]["AP"])
    head = ["ratio", *map(_headline, tasks), "time per image", "peak memory"]
    return [head, *(_row(point, tasks) for point in points)]


def verdict(data: Mapping[str, Any]) -> str | None:
    """Which ratio to use within the seconds that were given; None if none were."""
    choice = data["choice"]
    if choice is None:
        return None
    budget = duration(choice["max_seconds"])
    if choice["ratio"] is None:
        fastest = min(data["points"], key=lambda point: point["seconds"])
        return (
            f"No ratio takes {budget} or less for an image: the fastest, {fastest['ratio']:g}, "
            f"takes {duration(fastest['seconds'])}"
        )
    chosen = next(point for point in data["points"] if point["ratio"] == choice["ratio"])
    told = [f"{_headline(task)} {_spread(ap)}" for task, ap in chosen["AP"].items()]
    told.append(f"{duration(chosen['seconds'])} for an image")
    return f"Within {budget} for an image use ratio {chosen['ratio']:g}: {', '.join(told)}"


def _row(point: Point, tasks: list[str]) -> list[str]:
    memory = point["peak_memory"]
    return [
        f"{point['ratio']:g}",
        *(_spread(point["AP"][task]) for task in tasks),
        duration(point["seconds"]),
        "–" if memory is None else f"{memory / _GIB:.2f} GiB",
    ]


def _headline(task: str) -> str:
    return HEADLINES.get(f"{task}/AP", f"AP of {task}")


def _spread(ap: Mapping[str, Any]) -> str:
    deviation = ap["deviation"]
    return f"{ap['mean']:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")


def _figures(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    points = data["points"]

    def from_zero(value_of: Callable[[Point], float], label: str) -> Markup:
        values = [(p["ratio"], value_of(p)) for p in points]
        top = 1.05 * max(value for _, value in values)
        series = Series(label, values, marks=True)
        return line_chart([series], "sample ratio", label, y_range=(0, top))

    figures = []
    if points[0]["AP"]:
        figures += [
            {
                "title": "What it gains",
                "drawing": _ap_chart(points, lambda p: p["ratio"], "sample ratio"),
                "caption": "AP over the share of the tokens that the encoder sees. An upright line "
                "is one standard deviation over the seeds to either side: so much depends on which "
                "tokens are drawn.",
            },
            {
                "title": "What it gains for its time",
                "drawing": _ap_chart(points, lambda p: p["seconds"], "seconds per image"),
                "caption": "The same AP over the time that it takes. Where the line is steep, a "
                "little more time gains much.",
            },
        ]
    figures.append(
        {
            "title": "Time",
            "drawing": from_zero(lambda p: p["seconds"], "seconds per image"),
            "caption": "The median of the rounds, of which each has all ratios in turn. The axis "
            "begins at 0: where the line is flat, a lower ratio buys nothing.",
        }
    )
    if all(point["peak_memory"] is not None for point in points):
        figures.append(
            {
                "title": "Memory",
                "drawing": from_zero(lambda p: p["peak_memory"] / _GIB, "peak memory in GiB"),
                "caption": "With the weights; on a CPU that of the whole process.",
            }
        )
    return figures


def _ap_chart(points: list[Point], x_of: Callable[[Point], float], x_label: str) -> Markup:
    points = sorted(points, key=x_of)
    series = [
        Series(
            _headline(task),
            [(x_of(p), p["AP"][task]["mean"]) for p in points],
            marks=True,
            deviations=[p["AP"][task]["deviation"] for p in points],
        )
        for task in points[0]["AP"]
    ]
    return line_chart(series, x_label, "AP")
