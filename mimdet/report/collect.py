"""A run's folder -> one plain dict: everything that its report shows, ready for JSON.

`docs/report.md` describes the dict.
"""

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mimdet.report.curves import Curves, curves_of, largest_of, mean_of
from mimdet.report.detections import read_detections
from mimdet.report.findings import findings
from mimdet.report.run_files import (
    DETECTIONS,
    KEPT_TOKENS,
    RECONSTRUCTIONS,
    TRUTH,
    end_of_log,
    metric_lines,
    number,
    read_json,
    starts,
    text_of,
)

FORMAT = 1
"""Raised when the dict changes so that an older reader would misread it."""

# Detectron2 calls the value of a class "AP-NAME", "IoU-NAME" or "ACC-NAME".
_OF_CLASS = re.compile(r"(AP|IoU|BoundaryIoU|ACC)-(.+)", re.DOTALL)
_PARTS = ("data", "forward", "backward", "optimizer")


def collect(run: str | os.PathLike) -> dict[str, Any]:
    """Read the folder of a run, finished or not.

    Args:
        run: `train.output_dir` of a training or an evaluation.

    Raises:
        FileNotFoundError: if it is no folder, or none that a run has written into.
    """
    run = Path(run)
    if not run.is_dir():
        raise FileNotFoundError(f"a report needs the folder of a run, and {run} is none")
    curves = curves_of(metric_lines(run))
    begun = starts(run)
    results = read_json(run / "results.json")
    results = results if isinstance(results, dict) else None
    log = end_of_log(run)
    if not (curves or begun or results or log):
        raise FileNotFoundError(
            f"{run} must be the folder of a run (train.output_dir), and has none of run.json, "
            "metrics.json, results.json and log.txt"
        )
    tasks = _tasks(results or {})
    training = _training(curves, begun)
    found, why_not = _detections(run)
    return {
        "format": FORMAT,
        "name": run.resolve().name,
        "folder": str(run.resolve()),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "state": _state(begun, log, training),
        "starts": begun,
        "training": training,
        "evaluations": _evaluations(curves),
        "tasks": tasks,
        "detections": found,
        "detections_missing": why_not,
        "image_root": _image_root(run),
        "protocol": (results or {}).get("protocol"),
        "seconds_per_batch": number((results or {}).get("seconds_per_batch")),
        "kept_tokens": sorted(path.name for path in run.glob(KEPT_TOKENS)),
        "reconstructions": sorted(
            path.name for path in run.glob(RECONSTRUCTIONS) if path.stem.split("_")[1].isdecimal()
        ),
        "config": text_of(run / "config.yaml"),
        "log": log,
    }


def _state(
    begun: list[dict[str, Any]], log: str, training: dict[str, Any] | None
) -> dict[str, str | None]:
    """How the newest start ended, as a word and the error behind it."""
    last = begun[-1] if begun else {}
    outcome = last.get("outcome") or "unknown"
    error = last.get("error")
    if not begun and "Traceback (most recent call last)" in log:
        outcome, error = "failed", log.splitlines()[-1]
    is_short = training and training["of"] and training["iterations"] < training["of"]
    if outcome == "finished" and last.get("kind") == "training" and is_short:
        outcome = "ended early"
    return {"outcome": outcome, "error": error}


def _training(curves: Curves, begun: list[dict[str, Any]]) -> dict[str, Any] | None:
    of_training = [start for start in begun if start.get("kind") == "training"]
    trained = curves if "total_loss" in curves else {}
    if not (of_training or trained):
        return None
    losses = [x for x, _ in curves.get("total_loss", ())]  # one that was NaN counts as well
    iterations = losses[-1] + 1 if losses else 0
    return {
        "iterations": iterations,
        "of": of_training[-1].get("iterations") if of_training else None,
        "curves": trained,
        "seconds": _seconds(curves, iterations),
        "memory": {
            "process_gib": largest_of(curves, "memory/process_gib"),
            "gpu_gib": largest_of(curves, "memory/gpu_gib"),
        },
    }


def _seconds(curves: Curves, iterations: int) -> dict[str, float | None]:
    """Where the time of the main process went, in seconds of the whole training."""
    parts = {part: mean_of(curves, f"seconds/{part}") for part in _PARTS}
    if parts["forward"] is None:  # a run of Detectron2 alone, which tells less
        parts = {"data": mean_of(curves, "data_time")}
    total = mean_of(curves, "time")
    known = [value for value in parts.values() if value is not None]
    if total is not None and known:
        parts["other"] = max(0.0, total - sum(known))
    spent = {part: value and value * iterations for part, value in parts.items()}
    evaluations = [y for _, y in curves.get("seconds/evaluation", ()) if y is not None]
    return {**spent, "evaluation": sum(evaluations) if evaluations else None}


def _evaluations(curves: Curves) -> list[dict[str, Any]]:
    """The metrics of each evaluation of a training, without those of single classes."""
    names = [n for n in curves if "/" in n and _is_metric(n.split("/", 1)[1])]
    found: dict[int, dict[str, float | None]] = {}
    for name in names:
        for iteration, value in curves[name]:
            found.setdefault(iteration, {})[name] = value
    return [{"iteration": k, "metrics": found[k]} for k in sorted(found)]


def _detections(run: Path) -> tuple[dict[str, Any] | None, str | None]:
    """What `findings` says of the newest evaluation, or why there is nothing."""
    truth, results = run / TRUTH, run / DETECTIONS
    if not (truth.is_file() and results.is_file()):
        return None, None
    try:
        return findings(read_detections(truth, results)), None
    # A file that something has damaged: the rest of the page does not need it.
    except (ValueError, LookupError, TypeError, AttributeError) as e:
        return None, f"{type(e).__name__}: {e}"


def _image_root(run: Path) -> str | None:
    content = read_json(run / TRUTH)
    root = content.get("image_root") if isinstance(content, dict) else None
    return root if isinstance(root, str) else None


_METRICS = {"AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"}
_METRICS |= {"mIoU", "fwIoU", "mACC", "pACC", "top1", "top5"}


def _is_metric(name: str) -> bool:
    return name in _METRICS


def _tasks(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Results by task -> its metrics, and those of each class."""
    tasks = {}
    for task, values in results.items():
        if task == "protocol" or not isinstance(values, Mapping):
            continue
        metrics, classes = {}, {}
        for name, value in values.items():
            if of_class := _OF_CLASS.fullmatch(name):
                classes.setdefault(of_class[2], {})[of_class[1]] = number(value)
            else:
                metrics[name] = number(value)
        tasks[task] = {"metrics": metrics, "classes": classes}
    return tasks
