"""The dict of a comparison -> one page, one table for a terminal, and the JSON beside them."""

import html
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mimdet.report import names
from mimdet.report.bootstrap import RESAMPLES
from mimdet.report.charts import Series, line_chart
from mimdet.report.compare import compare
from mimdet.report.models import Model
from mimdet.report.pictures import thumbnail, two_models
from mimdet.report.render import duration, percent, render
from mimdet.whole_files import written_whole

PAGE, DATA = "compare.html", "compare.json"

_FIGURES = {
    "total_loss": ("Loss", "loss", "Sum of all losses; those of unlike models do not compare."),
    "lr": ("Learning rate", "learning rate", "The schedules as they were applied."),
    "bbox/AP": ("Box AP", "percent", "On the evaluation data, during the training."),
    "segm/AP": ("Mask AP", "percent", "On the evaluation data, during the training."),
    "sem_seg/mIoU": ("Mean IoU", "percent", "On the evaluation data, during the training."),
    "accuracy/top1": ("Accuracy", "percent", "On the evaluation data, during the training."),
}


def make_comparison(
    models: Sequence[Model],
    output: str | os.PathLike,
    truth: str | os.PathLike | None = None,
    resamples: int = RESAMPLES,
) -> tuple[Path, str]:
    """Write ``compare.html`` and ``compare.json``.

    Args:
        models: see `compare`.
        output: folder for both files, made if it is not there.
        truth: see `compare`.
        resamples: likewise.

    Returns:
        The path of the page, and the table for a terminal.

    Raises:
        FileNotFoundError, ValueError: see `compare`.
        OSError: if the files cannot be written.
    """
    data = compare(models, truth, resamples)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / DATA) as file:
        json.dump(data, file, allow_nan=False, indent=1)
    with written_whole(folder / PAGE) as file:
        file.write(page_of(data))
    return folder / PAGE, table_of(data)


def page_of(data: Mapping[str, Any]) -> str:
    """The page of a comparison's dict."""
    return render(
        "compare.html",
        data=data,
        names=names,
        headlines=_headlines(data),
        seconds=[_seconds(model) for model in data["models"]],
        spread=_spread,
        with_seeds=_with_seeds,
        figures=_figures(data),
        intervals=_intervals,
        sentence=_sentence,
        breakable=_breakable,
        pictures=_pictures(data),
    )


def table_of(data: Mapping[str, Any]) -> str:
    """The comparison in lines of text: unlike settings first, results, and what the images show."""
    lines = []
    for row in data["protocol"]["rules"]:
        lines.append(f"NOT EVALUATED ALIKE: {row['setting']} is {_values(row['values'])}")
    if not data["protocol"]["is_known"]:
        lines.append("evaluated alike? no run has results")
    elif data["protocol"]["is_alike"]:
        lines.append("evaluated alike: no rule of the protocols differs")
    headlines = _headlines(data)
    cells = [["model", *(names.HEADLINES[name] for name in headlines), "time per batch"]]
    for model in data["models"]:
        runs = len(model["runs"])
        values = [_spread(model["metrics"].get(name), runs) for name in headlines]
        cells.append([_with_seeds(model), *values, _seconds(model)])
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    lines.append("")
    for first, *rest in cells:
        padded = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
        lines.append("  ".join([f"{first:{widths[0]}}", *padded]))
    lines.append("")
    for task, found in data["tasks"].items():
        for pair in found["pairs"]:
            verdict = pair["AP"]["verdict"]
            lines.append(f"{names.TASKS[task]}: {_sentence(pair, found)}: {verdict}")
    if data["why_not"]:
        lines.append(f"No comparison image by image: {data['why_not']}")
    return "\n".join(lines)


def _headlines(data: Mapping[str, Any]) -> list[str]:
    return [name for name in names.HEADLINES if any(name in m["metrics"] for m in data["models"])]


def _spread(value: Mapping[str, Any] | None, runs: int, written: Any = percent) -> str:
    """A mean, with its deviation where several runs have a value, and how many if not all have."""
    if value is None or value["mean"] is None:
        return "–"
    told = written(value["mean"])
    if value["deviation"] is not None:
        told += f" ± {written(value['deviation'])}"
    return told if value["count"] == runs else f"{told} (of {value['count']})"


def _seconds(model: Mapping[str, Any]) -> str:
    return _spread(model["seconds_per_batch"], len(model["runs"]), duration)


def _with_seeds(model: Mapping[str, Any]) -> str:
    """The name of a model, with the number of its runs where there are several."""
    runs = len(model["runs"])
    return model["name"] if runs == 1 else f"{model['name']} ({runs} seeds)"


def _sentence(pair: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What the images show of a pair, in words."""
    ap = pair["AP"]
    if ap["value"] is None:
        return f"{pair['second']} against {pair['first']}: there are no objects"
    seeds = pair["seed_deviation"]
    return (
        f"{pair['second']} against {pair['first']}: {ap['value']:+.2f} AP, "
        f"{100 * found['level']:.0f} % interval {ap['low']:+.2f} to {ap['high']:+.2f}"
        + ("" if seeds is None else f", ± {seeds:.2f} by the seeds of two runs")
    )


def _breakable(setting: str) -> Markup:
    """A dotted name that a narrow table may break behind a dot."""
    return Markup(html.escape(setting).replace(".", ".<wbr>"))


def _values(values: Sequence[Any]) -> str:
    return " | ".join(json.dumps(value) for value in values)


def _figures(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    figures = []
    for name, (title, label, caption) in _FIGURES.items():
        curves = data["curves"][name]
        series = [
            Series(model["name"], points, color=k, marks="/" in name)
            for k, (model, points) in enumerate(zip(data["models"], curves, strict=True))
        ]
        # A single evaluation is in the results.
        if any(len(points) > 1 for points in curves):
            is_loss = name == "total_loss"
            if sum(map(bool, curves)) == 1 < len(curves):  # no legend says whose it is
                caption += f" Only {next(s.name for s in series if s.points)} has one."
            drawing = line_chart(series, "iteration", label, title=title, log_y=is_loss)
            figures.append({"title": title, "drawing": drawing, "caption": caption})
    return figures


def _pictures(data: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(title, pictures) of each pair: the images in which boxes of the two are most unlike."""
    found = []
    for p, pair in enumerate(data["tasks"].get("bbox", {}).get("pairs", ())):
        titles = pair["first"], pair["second"]
        pictures = []
        for k, image in enumerate(pair["images"]):
            entries = image["first"], image["second"]
            shown = thumbnail(data["images_root"], entries[0]["file_name"])
            mistakes = "mistake" if abs(image["change"]) == 1 else "mistakes"
            side = "more" if image["change"] > 0 else "fewer"
            pictures.append(
                {
                    "drawing": two_models(entries, titles, shown, f"p{p}i{k}"),
                    "file_name": entries[0]["file_name"],
                    "told": f"{abs(image['change'])} {mistakes} {side} by {pair['second']}",
                }
            )
        if pictures:
            found.append((f"{pair['second']} against {pair['first']}", pictures))
    return found


def _intervals(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Differences under each other: a dot with its interval, about a line at 0."""
    known = [row for row in rows if row["value"] is not None]
    reach = max((abs(row[k]) for row in known for k in ("low", "high", "value")), default=0) or 1.0

    def place(value: float) -> float:
        return 50 + 49 * value / reach

    drawn = []
    for row in known:
        low, high = place(row["low"]), place(row["high"])
        shown = {"higher": "f2", "lower": "f1"}.get(row["verdict"], "f6")
        text = f"{row['value']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})"
        drawn.append(
            f'<li><span class="name">{html.escape(row["class"])}</span>'
            f'<span class="track about">'
            f'<span class="span {shown}" style="left:{low:.1f}%;width:{high - low:.1f}%"></span>'
            f'<span class="dot {shown}" style="left:{place(row["value"]):.1f}%"></span></span>'
            f'<span class="value">{text}</span></li>'
        )
    return Markup(f'<ul class="bars intervals">{"".join(drawn)}</ul>')
