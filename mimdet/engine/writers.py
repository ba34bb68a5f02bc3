"""What a run writes while it trains: Detectron2's writers, with a strict `metrics.json`."""

import contextlib
import errno
import json
import logging
import math
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

from detectron2.engine import default_writers
from detectron2.utils.events import EventWriter, JSONWriter, get_event_storage

logger = logging.getLogger(__name__)


class StrictJSONWriter(EventWriter):
    """Detectron2's JSONWriter for readers other than Python's: null where a scalar is not finite.

    Such scalars are legal: the AP of sizes that no object has, the norm of gradients whose loss
    scale was too large. Detectron2 writes the tokens NaN and Infinity, which JSON does not have.

    Args:
        json_file: appended to, an object a line, as JSONWriter does.
        window_size: scalars to be smoothed are medians of this many iterations.
    """

    def __init__(self, json_file: str | os.PathLike, window_size: int = 20):
        # without a buffer, so that it is known what the disk has taken
        self._file = open(json_file, "ab", buffering=0)
        self._window_size = window_size
        self._last_iteration = -1
        self._waiting = b""
        self._has_failed = False

    def write(self) -> None:
        """Append the scalars that are newer than those of the last call, by iteration.

        What a full disk does not take is kept and written later: training goes on, and whether it
        must end is for the next checkpoint to tell.
        """
        lines: dict[int, dict[str, float | None]] = defaultdict(dict)
        scalars = get_event_storage().latest_with_smoothing_hint(self._window_size)
        for name, (value, iteration) in scalars.items():
            if iteration > self._last_iteration:
                lines[iteration][name] = value if math.isfinite(value) else None
        self._last_iteration = max([self._last_iteration, *lines])
        for iteration, values in lines.items():
            line = json.dumps({**values, "iteration": iteration}, sort_keys=True, allow_nan=False)
            self._waiting += f"{line}\n".encode()
        self._append()

    def _append(self) -> None:
        """Write the lines that wait, all of them or none."""
        end = None
        try:
            end = os.fstat(self._file.fileno()).st_size
            if self._file.write(self._waiting) != len(self._waiting):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # it took the first half
            os.fsync(self._file.fileno())  # a machine that fails must not take hours along
        except OSError as e:
            with contextlib.suppress(OSError):
                if end is not None:
                    self._file.truncate(end)  # no reader shall find half a line
            if not self._has_failed:
                logger.warning(
                    f"{self._file.name} cannot be written ({e.strerror}): training goes on, and "
                    "its lines are kept until there is room"
                )
            self._has_failed = True
        else:
            self._waiting, self._has_failed = b"", False

    def close(self) -> None:
        """Close the file."""
        if self._waiting:
            count = self._waiting.count(b"\n")
            logger.warning(f"The last {count} lines of {self._file.name} could not be written")
        self._file.close()


class ForgivingWriter(EventWriter):
    """Another writer, which is left out from the moment at which its files cannot be written.

    Args:
        writer: whose files a training can do without.
    """

    def __init__(self, writer: EventWriter):
        self._writer = writer
        self._has_failed = False

    def write(self) -> None:
        """Write what is new."""
        self._attempt(self._writer.write)

    def close(self) -> None:
        """Release files."""
        self._attempt(self._writer.close)

    def _attempt(self, call: Callable[[], None]) -> None:
        if self._has_failed:
            return
        try:
            call()
        except OSError as e:
            self._has_failed = True
            logger.warning(
                f"{type(self._writer).__name__} cannot write ({e.strerror or e}): training goes on "
                "without it"
            )


def run_writers(output_dir: str, max_iter: int) -> list[EventWriter]:
    """Detectron2's default writers, with ours in the place of its JSONWriter."""
    writers: list[EventWriter] = []
    for writer in default_writers(output_dir, max_iter):
        if isinstance(writer, JSONWriter):
            # It has opened metrics.json, which ours is to write alone.
            writer.close()
            writer = StrictJSONWriter(os.path.join(output_dir, "metrics.json"))
        else:
            writer = ForgivingWriter(writer)
        writers.append(writer)
    return writers


def forgive_full_disk(*names: str) -> None:
    """Let logs and TensorBoard say in a line that a file of theirs cannot be written.

    Python would print a traceback for every line of a log whose disk is full, and one for the
    thread in which TensorBoard writes, whose error the training sees anyway.

    Args:
        names: of the loggers.
    """
    said: set[str] = set()
    for handler in {h for name in names for h in logging.getLogger(name).handlers}:
        handler.handleError = partial(_say_once, handler, handler.handleError, said)
    # Once: another run in this process would wrap the wrapper.
    if not isinstance(threading.excepthook, partial):
        threading.excepthook = partial(_leave_to_writer, threading.excepthook)


def _say_once(
    handler: logging.Handler,
    otherwise: Callable[[logging.LogRecord], None],
    said: set[str],
    record: logging.LogRecord,
) -> None:
    error = sys.exc_info()[1]
    if not isinstance(error, OSError):
        otherwise(record)
        return
    file = getattr(getattr(handler, "stream", None), "name", "the log")
    text = f"warning: {file} cannot be written ({error.strerror}): training goes on"
    if text not in said:
        said.add(text)
        print(text, file=sys.stderr, flush=True)


def _leave_to_writer(otherwise: Callable[[Any], None], args: Any) -> None:
    """`threading.excepthook`, silent about the thread of TensorBoard's files."""
    is_of_writer = type(args.thread).__module__.startswith("tensorboard.")
    if not (is_of_writer and issubclass(args.exc_type, OSError)):
        otherwise(args)
