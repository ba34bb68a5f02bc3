"""What a run writes while it trains: Detectron2's writers, with a strict `metrics.json`."""

import json
import math
import os
from collections import defaultdict

from detectron2.engine import default_writers
from detectron2.utils.events import EventWriter, JSONWriter, get_event_storage
from mimdet.engine.console import MovingLine


class StrictJSONWriter(EventWriter):
    """Detectron2's JSONWriter for readers other than Python's: null where a scalar is not finite.

    Such scalars are legal: the AP of sizes that no object has, the norm of gradients whose loss
    scale was too large. Detectron2 writes the tokens NaN and Infinity, which JSON does not have.

    Args:
        json_file: appended to, an object a line, as JSONWriter does.
        window_size: scalars to be smoothed are medians of this many iterations.
    """

    def __init__(self, json_file: str | os.PathLike, window_size: int = 20):
        self._file = open(json_file, "a", encoding="utf-8")
        self._window_size = window_size
        self._last_iteration = -1

    def write(self) -> None:
        """Append the scalars that are newer than those of the last call, by iteration."""
        lines: dict[int, dict[str, float | None]] = defaultdict(dict)
        scalars = get_event_storage().latest_with_smoothing_hint(self._window_size)
        for name, (value, iteration) in scalars.items():
            if iteration > self._last_iteration:
                lines[iteration][name] = value if math.isfinite(value) else None
        self._last_iteration = max([self._last_iteration, *lines])
        for iteration, values in lines.items():
            line = json.dumps({**values, "iteration": iteration}, sort_keys=True, allow_nan=False)
            self._file.write(line + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())  # a machine that fails must not take the last hours along

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def run_writers(output_dir: str, max_iter: int) -> list[EventWriter]:
    """Detectron2's default writers, with ours in the place of its JSONWriter, and the screen's."""
    writers = []
    for writer in default_writers(output_dir, max_iter):
        if isinstance(writer, JSONWriter):
            writer.close()
            writer = StrictJSONWriter(os.path.join(output_dir, "metrics.json"))
        writers.append(writer)
    return [*writers, MovingLine(max_iter)]
