"""The charts of a report, from the dict of `collect`."""

import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from mimdet.report.charts import Bar, Series, bars, line_chart
from mimdet.report.names import HEADLINES, PARTS_OF_TIME
from mimdet.report.render import duration

Figure = dict[str, Any]
"""`title`, `drawing` and `caption`."""

_LOSS = re.compile(r"loss_\w+|\w+_loss|loss")


def training_figures(training: Mapping[str, Any], evaluations: list[Mapping]) -> list[Figure]:
    """Curves of a training: losses, metrics of its evaluations, learning rate, speed."""
    curves = training["curves"]
    figures = [
        figure(
            "Loss",
            _curve(curves, {"total_loss": "total loss"}, "loss", log_y=True),
            "Sum of all losses, which training lowers, on a logarithmic scale. It should fall and "
            "then level off; a jump upwards means that training has become unstable.",
        )
    ]
    parts = {name: name for name in curves if _LOSS.fullmatch(name) and name != "total_loss"}
    if len(parts) > 1:
        figures.append(
            figure(
                "Losses by part",
                _curve(curves, parts, "loss"),
                "What that sum is made of. A part that does not fall is one that the model does "
                "not learn.",
            )
        )
    if evaluations:
        figures.append(_evaluation_figure(evaluations))
    if "lr" in curves:
        figures.append(
            figure(
                "Learning rate",
                _curve(curves, {"lr": "learning rate"}, "learning rate"),
                "The schedule as it was applied: a warm-up, then lower and lower.",
            )
        )
    if "grad_norm" in curves:
        figures.append(
            figure(
                "Norm of the gradients",
                _curve(curves, {"grad_norm": "norm"}, "norm", log_y=True),
                "Before clipping. Peaks show batches that would have moved the weights far.",
            )
        )
    if "[metric]images_per_second" in curves:
        figures.append(
            figure(
                "Speed",
                _curve(curves, {"[metric]images_per_second": "speed"}, "images per second"),
                "Of all processes together. Dips are other programs on the machine, or data that "
                "came too late.",
            )
        )
    return figures


def figure(title: str, drawing: Markup, caption: str) -> Figure:
    """A drawing with its title, and a caption that says what one sees and how to read it."""
    return {"title": title, "drawing": drawing, "caption": caption}


def _curve(curves: Mapping[str, Any], names: Mapping[str, str], label: str, **options) -> Markup:
    series = [Series(title, curves.get(name, ())) for name, title in names.items()]
    return line_chart(series, "iteration", label, **options)


def _evaluation_figure(evaluations: list[Mapping]) -> Figure:
    names = list(dict.fromkeys(name for e in evaluations for name in e["metrics"]))
    chosen = [name for name in HEADLINES if name in names]
    chosen += [name.replace("AP", "AP50") for name in chosen if name.replace("AP", "AP50") in names]
    chosen = list(dict.fromkeys(chosen)) or names
    series = [
        Series(
            HEADLINES.get(name, HEADLINES.get(name.replace("AP50", "AP"), name) + "50"),
            [(e["iteration"], e["metrics"].get(name)) for e in evaluations],
            marks=True,
        )
        for name in chosen
    ]
    return figure(
        "Evaluations",
        line_chart(series, "iteration", "percent"),
        "Metrics on the evaluation data during the training, in percent; higher is better. Still "
        "rising at the end: a longer training may help. Falling while the loss falls: overfitting.",
    )


def time_bars(seconds: Mapping[str, float | None]) -> Markup:
    """Where the time of a training went."""
    known = {part: seconds[part] for part in PARTS_OF_TIME if seconds.get(part)}
    total = sum(known.values())
    return bars(
        [
            Bar(PARTS_OF_TIME[part], value, f"{100 * value / total:.0f}%, {duration(value)}")
            for part, value in known.items()
        ]
    )


def cards(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(number, what it is) of the summary."""
    found = []
    for key, name in HEADLINES.items():
        task, metric = key.split("/")
        value = data["tasks"].get(task, {}).get("metrics", {}).get(metric)
        if value is not None:
            found.append((f"{value:.1f}", name))
    training = data["training"]
    if training:
        of = f" of {training['of']}" if training["of"] else ""
        found.append((f"{training['iterations']}", f"iterations{of}"))
        losses = [y for _, y in training["curves"].get("total_loss", ()) if y is not None]
        if losses:
            found.append((f"{losses[-1]:.3g}", f"loss at the end (first {losses[0]:.3g})"))
        spent = [value for value in training["seconds"].values() if value is not None]
        if spent:
            found.append((duration(sum(spent)), "of training and evaluation"))
        memory = training["memory"]
        for key, what in (("gpu_gib", "GPU"), ("process_gib", "process")):
            if memory[key]:
                found.append((f"{memory[key]:.2f} GiB", f"peak memory, {what}"))
    if data["seconds_per_batch"]:
        found.append((duration(data["seconds_per_batch"]), "model per batch, evaluation"))
    return found
