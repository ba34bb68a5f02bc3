"""Timing of an evaluation and its result as a file."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from mimdet.whole_files import written_whole


class InferenceTimer:
    """Measures the model's share of `inference_on_dataset`, through its callbacks.

    The first batches are left out, as Detectron2 does: they pay for warming up.

    Args:
        num_warmup: batches that are not counted.
    """

    def __init__(self, num_warmup: int = 3):
        self.num_warmup = num_warmup
        self.seconds: list[float] = []
        self._start = 0.0

    @property
    def callbacks(self) -> dict[str, Callable[[], None]]:
        """What `inference_on_dataset` takes as `callbacks`."""
        return {"before_inference": self._begin, "after_inference": self._end}

    def _begin(self) -> None:
        self._start = _time_of_device()

    def _end(self) -> None:
        self.seconds.append(_time_of_device() - self._start)

    @property
    def seconds_per_batch(self) -> float:
        """Mean seconds of a batch after warming up; NaN when no batch was seen."""
        # Of fewer batches than that all count: a number that is a bit high, and not none.
        counted = self.seconds[self.num_warmup :] or self.seconds
        return sum(counted) / len(counted) if counted else float("nan")


def _time_of_device() -> float:
    """Seconds on a clock, read when the GPU has done all that it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def save_results(results: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Write evaluation results as JSON; an older file stays whole until the new one is complete.

    Numbers that are not finite, such as the AP of a class without objects, become null.
    """
    write_json(_without_nan(results), path, indent=2)


def write_json(content: Any, path: str | os.PathLike, indent: int | None = None) -> None:
    """Write strict JSON to a file beside `path` that takes its place when it is complete."""
    text = json.dumps(content, indent=indent, allow_nan=False)
    with written_whole(path) as file:
        file.write(text + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
