import itertools
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import TextIO

from tabulate import tabulate
from termcolor import colored

_FILE_FORMAT = "[%(asctime)s] %(name)s %(levelname)s: %(message)s"
_DATE_FORMAT = "%m/%d %H:%M:%S"


class _Formatter(logging.Formatter):
    """Shortens the root of logger names: `detectron2.utils.events` to `d2.utils.events`.

    With colours, time and name are green, and a red word marks warnings and errors.
    """

    def __init__(self, root_name: str, abbrev_name: str, color: bool):
        head = colored("[%(asctime)s %(name)s]: ", "green")
        super().__init__(f"{head}%(message)s" if color else _FILE_FORMAT, datefmt=_DATE_FORMAT)
        self._root, self._abbrev = f"{root_name}.", f"{abbrev_name}." if abbrev_name else ""
        self._color = color

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (name set by logging)
        full_name = record.name
        if full_name.startswith(self._root):
            record.name = self._abbrev + full_name.removeprefix(self._root)
        try:
            message = super().formatMessage(record)
        finally:
            record.name = full_name  # other handlers get the same record
        if not self._color or record.levelno < logging.WARNING:
            return message
        attrs = ["blink"] if record.levelno < logging.ERROR else ["blink", "underline"]
        return f"{colored(record.levelname, 'red', attrs=attrs)} {message}"


class _StdoutHandler(logging.StreamHandler):
    """Writes to whatever `sys.stdout` is at that moment."""

    def __init__(self):
        # That of StreamHandler would set `stream`, which is a property here.
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stdout


def setup_logger(
    output: str | os.PathLike | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "detectron2",
    abbrev_name: str | None = None,
    enable_propagation: bool = False,
    configure_stdout: bool = True,
) -> logging.Logger:
    """Make a logger print to stdout (rank 0 only) and to a file (every rank).

    A second call for the same target changes its format instead of doubling its lines.

    Args:
        output: log file if it ends in .txt or .log, else the folder for `log.txt`. Ranks above 0
            write to that name with `.rankN` appended. None writes no file.
        distributed_rank: rank of this process.
        color: colour the lines on stdout.
        name: root of the logger names to handle.
        abbrev_name: what to show instead of `name` in names below it; "d2" for detectron2, ""
            for nothing.
        enable_propagation: also hand records to the handlers of parent loggers.
        configure_stdout: False leaves stdout alone.

    Returns:
        The logger, at level DEBUG.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = enable_propagation
    if abbrev_name is None:
        abbrev_name = "d2" if name == "detectron2" else name
    if configure_stdout and distributed_rank == 0:
        handler = _handler(logger, _StdoutHandler)
        handler.setFormatter(_Formatter(name, abbrev_name, color))
    if output is not None:
        file = _log_file(output, distributed_rank)
        handler = _handler(logger, logging.FileHandler, file)
        handler.setFormatter(_Formatter(name, abbrev_name, color=False))
    return logger


def _log_file(output: str | os.PathLike, rank: int) -> str:
    path = os.path.abspath(output)
    if not path.endswith((".txt", ".log")):
        path = os.path.join(path, "log.txt")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return f"{path}.rank{rank}" if rank > 0 else path


def _handler(
    logger: logging.Logger, kind: type[logging.Handler], file: str | None = None
) -> logging.Handler:
    """The handler of this kind, and file, that the logger has or gets."""
    for handler in logger.handlers:
        if isinstance(handler, kind) and getattr(handler, "baseFilename", None) == file:
            return handler
    logger.addHandler(kind() if file is None else kind(file, encoding="utf-8"))
    return logger.handlers[-1]


def create_small_table(small_dict: dict[str, float]) -> str:
    """A pipe table with the keys as header and one row of values with three decimals."""
    return tabulate(
        [list(small_dict.values())],
        headers=list(small_dict),
        tablefmt="pipe",
        floatfmt=".3f",
        stralign="center",
        numalign="center",
    )


def create_wide_table(
    pairs: Iterable[tuple[str, float]], headers: tuple[str, str], **formats: str
) -> str:
    """A pipe table of names and values with up to three pairs side by side.

    Args:
        pairs: names with their values.
        headers: of names and of values.
        **formats: further arguments of `tabulate`.
    """
    cells = list(itertools.chain(*pairs))
    width = min(6, len(cells))
    rows = [cells[start : start + width] for start in range(0, len(cells), width)]
    return tabulate(rows, headers * (width // 2), tablefmt="pipe", numalign="left", **formats)


_log_counts: Counter = Counter()
_log_times: dict[tuple, float] = {}


def _caller() -> tuple[str, tuple]:
    """Logger name for, and identity of, the line that called the function that called this."""
    frame = sys._getframe(2)
    module = frame.f_globals.get("__name__", "detectron2")
    return module, (frame.f_code.co_filename, frame.f_lineno)


def log_first_n(
    level: int,
    msg: str,
    n: int = 1,
    *,
    name: str | None = None,
    key: str | tuple[str, ...] = "caller",
) -> None:
    """Log a message only the first `n` times.

    Args:
        level: level of the record, e.g. `logging.WARNING`.
        msg: the message.
        n: how often it may appear.
        name: logger; the caller's module by default.
        key: what counts as the same message: "caller" (the calling line), "message", or both.

    Raises:
        ValueError: for any other key.
    """
    keys = (key,) if isinstance(key, str) else tuple(key)
    if not keys or not set(keys) <= {"caller", "message"}:
        raise ValueError(f"key must be 'caller', 'message' or a tuple of them, got {key!r}")
    module, line = _caller()
    identity = (line if "caller" in keys else None, msg if "message" in keys else None)
    _log_counts[identity] += 1
    if _log_counts[identity] <= n:
        logging.getLogger(name or module).log(level, msg, stacklevel=2)


def log_every_n(level: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log a message at the first and then at every n-th time that this line is reached.

    Args:
        level: level of the record, e.g. `logging.INFO`.
        msg: the message.
        n: one record per this many calls.
        name: logger; the caller's module by default.
    """
    module, line = _caller()
    identity = (line, "every")  # counted apart from `log_first_n`
    _log_counts[identity] += 1
    if n == 1 or _log_counts[identity] % n == 1:
        logging.getLogger(name or module).log(level, msg, stacklevel=2)


def log_every_n_seconds(level: int, msg: str, n: float = 1, *, name: str | None = None) -> None:
    """Log a message unless this line logged less than `n` seconds ago.

    Args:
        level: level of the record, e.g. `logging.INFO`.
        msg: the message.
        n: seconds of silence after each record.
        name: logger; the caller's module by default.
    """
    module, line = _caller()
    now = time.monotonic()
    if line in _log_times and now - _log_times[line] < n:
        return
    _log_times[line] = now
    logging.getLogger(name or module).log(level, msg, stacklevel=2)
