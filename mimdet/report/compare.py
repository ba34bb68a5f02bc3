"""Runs -> one plain dict: in what they differ, and whether the images show it.

`docs/compare.md` describes the dict.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import hypot
from statistics import fmean, stdev
from typing import Any

import numpy as np

from mimdet.report.bootstrap import LEVEL, RESAMPLES, Compared, paired_bootstrap
from mimdet.report.collect import collect
from mimdet.report.curves import Curves
from mimdet.report.detections import Evaluated, read_detections, read_part
from mimdet.report.differences import config_differences, protocol_differences
from mimdet.report.errors import KINDS, Mistakes, error_costs, find_mistakes
from mimdet.report.matching import match
from mimdet.report.models import Model
from mimdet.report.names import HEADLINES
from mimdet.report.precision import Ranking, mean_percent
from mimdet.report.run_files import DETECTIONS, TRUTH, read_json
from mimdet.report.worst_images import describe_image, mistakes_per_image, operating_score

FORMAT = 1
"""Raised when the dict changes so that an older reader would misread it."""

_CURVES = ("total_loss", "lr", *HEADLINES)
_IMAGES = 6  # shown of each pair


@dataclass(frozen=True)
class _Judged:
    """Detections of a run with what is needed of them for each comparison."""

    evaluated: Evaluated
    ranking: Ranking
    mistakes: Mistakes


def compare(
    models: Sequence[Model],
    truth: str | os.PathLike | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Compare models; each with the first one, which is the baseline.

    Args:
        models: two or more.
        truth: a COCO file that all were scored against; with masks, masks are compared too. By
            default the boxes that each evaluation has left in its run's folder.
        resamples: of the bootstrap.

    Raises:
        FileNotFoundError: if a folder is none of a run, or there is no file `truth`.
        ValueError: if `truth` is no such file, or not that of the detections, or the seeds of a
            model were not evaluated alike.
    """
    runs = [[collect(run) for run in model.runs] for model in models]
    for of_model in runs:
        _refuse_unlike_seeds(of_model)
    firsts = [of_model[0] for of_model in runs]
    rules, more = protocol_differences([run["protocol"] for run in firsts])
    content, why_not = _truth(models, truth)
    return {
        "format": FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "models": [
            {
                "name": model.name,
                "runs": [run["folder"] for run in of_model],
                "states": [run["state"]["outcome"] for run in of_model],
                "metrics": _metrics(of_model),
                "seconds_per_batch": _spread([run["seconds_per_batch"] for run in of_model]),
            }
            for model, of_model in zip(models, runs, strict=True)
        ],
        "protocol": {
            "is_known": any(run["protocol"] for run in firsts),
            "is_alike": not rules,
            "rules": rules,
            "more": more,
        },
        "config": config_differences([run["config"] for run in firsts]),
        "curves": {name: [_mean_curve(of_model, name) for of_model in runs] for name in _CURVES},
        "images_root": firsts[0]["image_root"],
        "tasks": _tasks(models, content, resamples) if content else {},
        "why_not": why_not,
    }


def _refuse_unlike_seeds(runs: Sequence[Mapping[str, Any]]) -> None:
    known = [run for run in runs if run["protocol"]]
    for run in known[1:]:
        rules, _ = protocol_differences([known[0]["protocol"], run["protocol"]])
        if rules:
            setting, values = rules[0]["setting"], rules[0]["values"]
            raise ValueError(
                f"the seeds of a model must be evaluated alike for a mean, and {setting} is "
                f"{values[0]} in {known[0]['folder']} and {values[1]} in {run['folder']}: evaluate "
                "one of them anew"
            )


def _metrics(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean and deviation over the runs of each metric, by ``task/metric``."""
    values: dict[str, list[float | None]] = {}
    for run in runs:
        for task, found in run["tasks"].items():
            for name, value in found["metrics"].items():
                values.setdefault(f"{task}/{name}", []).append(value)
    return {name: _spread(of_runs) for name, of_runs in values.items()}


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean and sample deviation of the values that there are."""
    known = [value for value in values if value is not None]
    return {
        "mean": fmean(known) if known else None,
        "deviation": stdev(known) if len(known) > 1 else None,
        "count": len(known),
    }


def _mean_curve(runs: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float | None]]:
    """The mean of a curve over runs, at the iterations at which all of them have it."""
    curves: list[Curves] = [(run["training"] or {}).get("curves", {}) for run in runs]
    points = [dict(of_run.get(name, ())) for of_run in curves]
    shared = set.intersection(*(set(of_run) for of_run in points))
    return [(x, _spread([of_run[x] for of_run in points])["mean"]) for x in sorted(shared)]


def _truth(
    models: Sequence[Model], truth: str | os.PathLike | None
) -> tuple[dict[str, Any] | None, str | None]:
    """The one truth of all runs; or None, and why there is no comparison image by image."""
    runs = [run for model in models for run in model.runs]
    for run in runs:
        if not (run / DETECTIONS).is_file():
            return None, f"{run} has no {DETECTIONS}: only detectors are compared image by image"
    if truth is not None:
        return read_part(truth, dict, "the truth")[0], None
    contents = [read_json(run / TRUTH) for run in runs]
    for run, content in zip(runs, contents, strict=True):
        if not isinstance(content, dict):
            return None, (
                f"{run} has no whole {TRUTH}, which evaluations leave there: evaluate anew, or "
                "name the annotation file that the runs were scored against (--truth)"
            )
    # Where the images lie makes no difference.
    objects = [{k: v for k, v in content.items() if k != "image_root"} for content in contents]
    unlike = [run for run, of_run in zip(runs, objects, strict=True) if of_run != objects[0]]
    if unlike:
        return None, f"{unlike[0]} was scored against other objects than {runs[0]}"
    return contents[0], None


def _tasks(
    models: Sequence[Model], truth: Mapping[str, Any], resamples: int
) -> dict[str, dict[str, Any]]:
    found = [
        [read_part(run / DETECTIONS, list, "the detections")[0] for run in model.runs]
        for model in models
    ]
    entries = [*truth.get("annotations", ()), *(e for of in found for run in of for e in run)]
    tasks = ["bbox", "segm"] if all(e.get("segmentation") for e in entries) else ["bbox"]
    return {task: _compare_task(models, truth, found, task, resamples) for task in tasks}


def _compare_task(
    models: Sequence[Model],
    truth: Mapping[str, Any],
    found: Sequence[Sequence[list[dict[str, Any]]]],
    task: str,
    resamples: int,
) -> dict[str, Any]:
    judged = [[_judge(read_detections(truth, run, task)) for run in of] for of in found]
    baseline = judged[0]
    evaluated, objects = baseline[0].evaluated, baseline[0].ranking.positives()
    pairs = []
    for model, others in zip(models[1:], judged[1:], strict=True):
        rankings = [[one.ranking for one in of] for of in (baseline, others)]
        compared = paired_bootstrap(*rankings, resamples=resamples)
        pairs.append(
            {
                "first": models[0].name,
                "second": model.name,
                "AP": compared.ap.as_dict(),
                "AP50": compared.ap50.as_dict(),
                "seed_deviation": _deviation_over_seeds(*rankings),
                "classes": _classes(evaluated, objects, compared),
                "images": _most_unlike(baseline[0], others[0]),
            }
        )
    return {
        "images": len(evaluated.images),
        "objects": int(objects.sum()),
        "resamples": resamples,
        "level": LEVEL,
        "classes": [
            {"class": name, "objects": int(objects[k]), "AP": [_class_ap(of, k) for of in judged]}
            for k, name in enumerate(evaluated.categories)
        ],
        "errors": [_errors(of_model) for of_model in judged],
        "pairs": pairs,
    }


def _judge(evaluated: Evaluated) -> _Judged:
    return _Judged(evaluated, Ranking(evaluated, match(evaluated)), find_mistakes(evaluated))


def _deviation_over_seeds(*models: Sequence[Ranking]) -> float | None:
    """Of the AP of one run less that of another, one of each model; None without several seeds."""
    aps = [[mean_percent(run.average_precision()) for run in runs] for runs in models]
    deviations = [_spread(of_model)["deviation"] for of_model in aps]
    # The seeds of the two are drawn apart, so that their variances add up.
    return None if None in deviations else hypot(*deviations)


def _class_ap(runs: Sequence[_Judged], number: int) -> float | None:
    return mean_percent(np.array([run.ranking.average_precision()[:, number] for run in runs]))


def _classes(evaluated: Evaluated, objects: np.ndarray, compared: Compared) -> list[dict[str, Any]]:
    return [
        {"class": name, **difference.as_dict()}
        for name, difference, count in zip(
            evaluated.categories, compared.classes, objects, strict=True
        )
        if count
    ]


def _errors(runs: Sequence[_Judged]) -> list[dict[str, Any]]:
    """`error_costs` of a model by kind, the means over its runs."""
    costs = [error_costs(run.evaluated, run.mistakes)["kinds"] for run in runs]
    return [
        {
            "kind": kind,
            "count": fmean(of_run[k]["count"] for of_run in costs),
            "cost": _spread([of_run[k]["cost"] for of_run in costs])["mean"],
        }
        for k, kind in enumerate(KINDS)
    ]


def _most_unlike(first: _Judged, second: _Judged) -> list[dict[str, Any]]:
    """The images in which one of two runs makes more mistakes than the other, the most first."""
    totals, scores = [], []
    for run in (first, second):
        scores.append(operating_score(run.evaluated, run.mistakes))
        totals.append(np.add(*mistakes_per_image(run.evaluated, run.mistakes, scores[-1])))
    change = totals[1] - totals[0]
    numbers = np.argsort(-np.abs(change), kind="stable")[:_IMAGES]
    return [
        {
            "change": int(change[number]),
            "first": describe_image(first.evaluated, first.mistakes, int(number), scores[0]),
            "second": describe_image(second.evaluated, second.mistakes, int(number), scores[1]),
        }
        for number in numbers
        if change[number]
    ]
