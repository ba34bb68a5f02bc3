"""What a run shows on the screen; the log file in its folder has everything."""

import contextlib
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from detectron2.utils import comm
from detectron2.utils.events import EventWriter, get_event_storage
from detectron2.utils.logger import setup_logger

# Pages of text that only a log is searched for.
_LONG = re.compile(r"(Environment info|Contents of args|Full config|Model):?.*\n")

# Lines about progress, which a terminal shows as one that moves.
_PROGRESS = re.compile(r"\s*eta: |Inference done \d")


def _is_shown(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not (_LONG.match(message) or _PROGRESS.match(message))


def set_up_loggers(output_dir: str) -> None:
    """Set up the loggers of Detectron2, as `default_setup` does, and mimdet's.

    Detectron2 keeps those that it has: called before `default_setup`, this gives `short_console`
    handlers to work on before the first line.
    """
    rank = comm.get_rank()
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")
    setup_logger(output_dir, distributed_rank=rank)
    setup_logger(output_dir, distributed_rank=rank, name="mimdet")


def _printing() -> tuple[list[logging.Logger], set[logging.Handler]]:
    """The loggers of a run and those of their handlers that print, not those that write files."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "mimdet")]
    handlers = {handler for logger in loggers for handler in logger.handlers}
    return loggers, {
        handler
        for handler in handlers
        if isinstance(handler, logging.StreamHandler)
        and not isinstance(handler, logging.FileHandler)
    }


@contextlib.contextmanager
def short_console() -> Iterator[None]:
    """On a terminal, leave long texts and lines about progress out of what loggers print.

    Elsewhere, as in a pipe, everything is printed: somebody may read it later. Call it once the
    loggers are set up.
    """
    _, printing = _printing() if sys.stderr.isatty() else ([], set())
    for handler in printing:
        handler.addFilter(_is_shown)
    try:
        yield
    finally:
        for handler in printing:
            handler.removeFilter(_is_shown)


@contextlib.contextmanager
def beside_a_moving_line() -> Iterator[None]:
    """`short_console`, and what loggers print does not break a line that moves.

    Only after `default_setup`, which would miss its own handlers and make others.
    """
    if not sys.stderr.isatty():
        yield
        return
    with logging_redirect_tqdm(_printing()[0]), short_console():
        yield


class MovingLine(EventWriter):
    """A training's progress as one line of a terminal; where there is none, nothing.

    Args:
        max_iter: iterations of the run.
    """

    def __init__(self, max_iter: int):
        self._max_iter = max_iter
        self._bar: tqdm | None = None

    def write(self) -> None:
        """Move on to the iteration of the storage."""
        if not sys.stderr.isatty():
            return
        storage = get_event_storage()
        if self._bar is None:
            self._bar = tqdm(total=self._max_iter, initial=storage.iter, unit="it")
        latest = storage.latest_with_smoothing_hint(20)
        told = []
        for name, what in (("total_loss", "loss {:.3g}"), ("images_per_second", "{:.3g} images/s")):
            values = [value for key, (value, _) in latest.items() if key.endswith(name)]
            told += [what.format(value) for value in values[:1]]
        if torch.cuda.is_available():
            told.append(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
        self._bar.set_postfix_str(", ".join(told), refresh=False)
        # After the last iteration the storage's number is already that of the next one.
        self._bar.update(min(storage.iter + 1, self._max_iter) - self._bar.n)

    def close(self) -> None:
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.close()


def with_line(
    callbacks: Mapping[str, Callable[[], object]], batches: int
) -> dict[str, Callable[[], object]]:
    """Callbacks of `inference_on_dataset` that also move a line of a terminal.

    Args:
        callbacks: those that there are already.
        batches: of the evaluation.
    """
    # None disables it where stderr is no terminal.
    line = tqdm(total=batches, desc="evaluation", unit="batch", disable=None, leave=False)

    def after_inference() -> None:
        callbacks["after_inference"]()
        line.update()

    return {**callbacks, "after_inference": after_inference, "on_end": line.close}
