"""The files of a run, read as they are: half-written, from an older version, or not there."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECORD = "run.json"
"""What `mimdet.engine.run_record` writes: each start of the run, how and with what."""

TRUTH = "instances_truth.json"
"""The objects that the newest evaluation was scored against, with the ids of the user's file."""

DETECTIONS = "coco_instances_results.json"
"""The detections of the newest evaluation."""

KEPT_TOKENS = "kept_tokens_*.npz"
"""Which tokens the encoder of a MIMDet saw of the first images of training and evaluation."""

RECONSTRUCTIONS = "reconstructions_*.npz"
"""What a masked autoencoder made of a few images, a file for each time."""

_LOG_LINES = 60
_LOG_BYTES = 200_000


def read_json(path: Path) -> Any:
    """The content of a JSON file; None if there is none, or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def metric_lines(run: Path) -> Iterator[dict[str, Any]]:
    """The lines of ``metrics.json`` that are whole; a killed run may have left half a line."""
    try:
        text = (run / "metrics.json").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict) and isinstance(values.get("iteration"), int):
            yield values


def starts(run: Path) -> list[dict[str, Any]]:
    """The starts that ``run.json`` tells of, the oldest first."""
    record = read_json(run / RECORD)
    found = record.get("starts") if isinstance(record, dict) else None
    return [start for start in found or [] if isinstance(start, dict)]


def end_of_log(run: Path) -> str:
    """The last lines of ``log.txt``."""
    try:
        with open(run / "log.txt", "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _LOG_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-_LOG_LINES:])


def text_of(path: Path) -> str:
    """The content of a text file; "" if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None
