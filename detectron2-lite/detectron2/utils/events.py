"""Scalars of a run: the storage that modules and hooks write to, and the writers that read it."""

import datetime
import functools
import itertools
import json
import logging
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from fvcore.common.history_buffer import HistoryBuffer
from torch import Tensor

# Values kept of each scalar, of which fvcore would keep a million.
_HISTORY_LENGTH = 10_000
_MAX_DEFERRED = 1000
_ETA_WINDOW = 1000

_storage_stack: list["EventStorage"] = []


def get_event_storage() -> "EventStorage":
    """The storage of the innermost `with EventStorage(...)` block.

    Raises:
        AssertionError: outside of such a block.
    """
    assert _storage_stack, (
        "get_event_storage() must be called inside a `with EventStorage(...)` block; "
        "trainers open one, code that runs without a trainer has to do it itself"
    )
    return _storage_stack[-1]


def has_event_storage() -> bool:
    """Whether the call is inside a `with EventStorage(...)` block."""
    return bool(_storage_stack)


class EventStorage:
    """Keeps the history of named scalars, and images and histograms until they are written.

    As a context manager it becomes what `get_event_storage` returns.

    Args:
        start_iter: the iteration to start from.
    """

    def __init__(self, start_iter: int = 0):
        self.iter = start_iter
        self._histories: dict[str, HistoryBuffer] = {}
        self._smoothing_hints: dict[str, bool] = {}
        self._prefix = ""
        # Numbers still on the device, what makes scalars of them, their name scope and iteration.
        self._deferred: list[tuple[Tensor, Callable, str, int]] = []
        self._images: list[tuple[str, Tensor, int]] = []
        self._histograms: list[dict[str, Any]] = []

    def __enter__(self) -> "EventStorage":
        _storage_stack.append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        popped = _storage_stack.pop()
        assert popped is self, "EventStorage blocks must be left in the reverse order of entering"

    @property
    def iteration(self) -> int:
        """The older name of `iter`."""
        return self.iter

    def step(self) -> None:
        """Go to the next iteration; a trainer that sets `iter` itself does not need it."""
        self.iter += 1

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Put `name/` in front of all names that are stored inside the block.

        An inner scope takes the place of the outer one until it ends.
        """
        outer, self._prefix = self._prefix, f"{name.rstrip('/')}/"
        try:
            yield
        finally:
            self._prefix = outer

    def put_scalar(
        self, name: str, value: float, smoothing_hint: bool = True, cur_iter: int | None = None
    ) -> None:
        """Store a value of the scalar `name`.

        Args:
            name: what the value is; words separated by "/" make groups.
            value: anything that `float` takes.
            smoothing_hint: True for noisy values, whose median over a window is worth showing.
                It belongs to the name: it must be the same in every call.
            cur_iter: iteration that the value belongs to; the current one by default.

        Raises:
            AssertionError: if the name was stored with another hint before.
        """
        on_device = isinstance(value, Tensor) and value.device.type != "cpu"
        # Else it is read at once: `put_deferred` smooths, and takes the current iteration.
        if on_device and smoothing_hint and cur_iter is None:
            # A copy, because its owner may go on with the tensor.
            copy = value.detach().reshape(1).clone()
            self.put_deferred(copy, lambda numbers: {name: numbers[0]})
            return
        iteration = self.iter if cur_iter is None else cur_iter
        self._put(self._prefix + name, value, iteration, smoothing_hint)

    def _put(self, name: str, value: float, iteration: int, smoothing_hint: bool) -> None:
        known_hint = self._smoothing_hints.setdefault(name, smoothing_hint)
        assert known_hint == smoothing_hint, (
            f"scalar {name!r} was stored with smoothing_hint={known_hint} before, "
            f"now with {smoothing_hint}; use one of them everywhere"
        )
        if name not in self._histories:
            self._histories[name] = HistoryBuffer(max_length=_HISTORY_LENGTH)
        self._histories[name].update(float(value), iteration)

    def put_scalars(
        self, *, smoothing_hint: bool = True, cur_iter: int | None = None, **kwargs: float
    ) -> None:
        """Store several scalars, `put_scalars(loss=0.5, accuracy=0.9)`; see `put_scalar`."""
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint=smoothing_hint, cur_iter=cur_iter)

    def put_deferred(
        self, values: Tensor, to_scalars: Callable[[list[float]], Mapping[str, float]]
    ) -> None:
        """Store scalars that follow from numbers on a device, without waiting for these.

        They belong to this iteration and name scope, but reach the host when somebody reads
        scalars (usually a writer, once per log period), all in one transfer.

        Args:
            values: (n,) numbers, which nobody changes afterwards.
            to_scalars: called with the n numbers; returns scalars by name.
        """
        self._deferred.append((values.detach(), to_scalars, self._prefix, self.iter))
        if len(self._deferred) >= _MAX_DEFERRED:  # where nobody reads
            self._fetch_deferred()

    def _fetch_deferred(self) -> None:
        # Emptied first: what `to_scalars` raises is raised once, not at each later read.
        deferred, self._deferred = self._deferred, []
        if not deferred:
            return
        # float64 holds what comes as float32, integer or bool: so one tensor takes all of them.
        numbers = iter(torch.cat([values.double() for values, *_ in deferred]).tolist())
        for values, to_scalars, prefix, iteration in deferred:
            scalars = to_scalars(list(itertools.islice(numbers, len(values))))
            for name, value in scalars.items():
                self._put(prefix + name, value, iteration, smoothing_hint=True)

    def put_image(self, img_name: str, img_tensor: Tensor) -> None:
        """Store an image for the next write to tensorboard.

        Args:
            img_name: its name.
            img_tensor: (3, H, W) RGB; uint8 in [0, 255] or float in [0, 1].
        """
        self._images.append((img_name, img_tensor, self.iter))

    def put_histogram(self, hist_name: str, hist_tensor: Tensor, bins: int = 1000) -> None:
        """Store the histogram of a tensor's values for the next write to tensorboard.

        Args:
            hist_name: its name.
            hist_tensor: any shape, at least one element, finite values.
            bins: number of equal bins between the smallest and the largest value.
        """
        values = hist_tensor.detach().float().reshape(-1).cpu()
        low, high = values.min().item(), values.max().item()
        edges = torch.linspace(low, high, bins + 1)
        self._histograms.append(
            {
                "tag": hist_name,
                "min": low,
                "max": high,
                "num": values.numel(),
                "sum": values.sum().item(),
                "sum_squares": values.square().sum().item(),
                "bucket_limits": edges[1:].tolist(),  # right edges
                "bucket_counts": torch.histc(values, bins=bins).tolist(),
                "global_step": self.iter,
            }
        )

    def clear_images(self) -> None:
        """Forget the stored images."""
        self._images = []

    def clear_histograms(self) -> None:
        """Forget the stored histograms."""
        self._histograms = []

    def history(self, name: str) -> HistoryBuffer:
        """The last 10000 values of one scalar.

        Raises:
            KeyError: if it was never stored.
        """
        self._fetch_deferred()
        if name not in self._histories:
            raise KeyError(f"no scalar {name!r} was stored; there are {sorted(self._histories)}")
        return self._histories[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        """The histories of all scalars in the order of first appearance."""
        self._fetch_deferred()
        return self._histories

    def latest(self) -> dict[str, tuple[float, int]]:
        """Last values as name -> (value, iteration), in the order of first appearance."""
        return {name: history.values()[-1] for name, history in self.histories().items()}

    def smoothing_hints(self) -> dict[str, bool]:
        """Whether each scalar is shown as a median of its last values."""
        self._fetch_deferred()
        return self._smoothing_hints

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """Like `latest`, with the median of a window in place of a value that is to be smoothed.

        Args:
            window_size: number of iterations, up to the last one of the scalar.
        """
        return {
            name: (self._median(name, window_size) if self._smoothing_hints[name] else value, it)
            for name, (value, it) in self.latest().items()
        }

    def count_samples(self, name: str, window_size: int = 20) -> int:
        """Number of values of a scalar within the `window_size` iterations up to its last value.

        Raises:
            KeyError: if it was never stored.
        """
        values = self.history(name).values()
        first = values[-1][1] - window_size + 1
        return sum(1 for _ in itertools.takewhile(lambda value: value[1] >= first, values[::-1]))

    def _median(self, name: str, window_size: int) -> float:
        return float(self.history(name).median(self.count_samples(name, window_size)))


class EventWriter:
    """Writes what is in the current storage somewhere; subclass it for a new destination."""

    def write(self) -> None:
        """Write what is new since the last call. Needs a current storage."""
        raise NotImplementedError(f"{type(self).__name__} must implement write()")

    def close(self) -> None:
        """Release files; `write` is not called again."""


class _NewScalars:
    """Finds the scalars that are newer than everything handed out before."""

    def __init__(self, window_size: int):
        self._window_size = window_size
        self._last_iteration = -1

    def take(self, storage: EventStorage) -> list[tuple[str, float, int]]:
        """(name, smoothed value, iteration) in the order of first appearance of the names."""
        scalars = storage.latest_with_smoothing_hint(self._window_size)
        new = [(k, value, it) for k, (value, it) in scalars.items() if it > self._last_iteration]
        self._last_iteration = max([self._last_iteration, *(it for _, _, it in new)])
        return new


class JSONWriter(EventWriter):
    """Appends scalars to a file with one JSON object per line, one line per iteration.

    The lines have sorted keys, among them "iteration". A value that is not finite is written as
    the token NaN, which Python's reader takes and strict readers of JSON do not. The lines of one
    write are not sorted by iteration, and a resumed run may repeat iterations: the last line
    counts.

    Args:
        json_file: path of the file, opened at once for appending.
        window_size: scalars to be smoothed are medians of this many iterations.
    """

    def __init__(self, json_file: str | os.PathLike, window_size: int = 20):
        self._file = open(json_file, "a", encoding="utf-8")
        self._scalars = _NewScalars(window_size)

    def write(self) -> None:
        """Append the scalars that are newer than those of the last call."""
        lines: dict[int, dict[str, float]] = defaultdict(dict)
        for name, value, iteration in self._scalars.take(get_event_storage()):
            lines[iteration][name] = value if math.isfinite(value) else math.nan
        for iteration, scalars in lines.items():
            record = {**scalars, "iteration": iteration}
            self._file.write(json.dumps(record, sort_keys=True) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorboardXWriter(EventWriter):
    """Writes scalars, images and histograms as tensorboard event files.

    Args:
        log_dir: folder of the event files.
        window_size: scalars to be smoothed are medians of this many iterations.
        **kwargs: further arguments of `torch.utils.tensorboard.SummaryWriter`.
    """

    def __init__(self, log_dir: str | os.PathLike, window_size: int = 20, **kwargs: Any):
        self._arguments = {"log_dir": os.fspath(log_dir), **kwargs}
        self._scalars = _NewScalars(window_size)

    @functools.cached_property
    def _writer(self) -> Any:
        """Made at the first write: a run that writes nothing leaves no file."""
        from torch.utils.tensorboard import SummaryWriter  # an extra

        return SummaryWriter(**self._arguments)

    def write(self) -> None:
        """Write new scalars and all stored images and histograms, which are then cleared."""
        storage, writer = get_event_storage(), self._writer
        for name, value, iteration in self._scalars.take(storage):
            writer.add_scalar(name, value, iteration)
        for name, image, iteration in storage._images:
            writer.add_image(name, image, iteration)
        for histogram in storage._histograms:
            writer.add_histogram_raw(**histogram)
        storage.clear_images()
        storage.clear_histograms()

    def close(self) -> None:
        """Flush and close the event file."""
        if "_writer" in vars(self):
            self._writer.close()


class CommonMetricPrinter(EventWriter):
    """Logs one line with time left, losses, times, learning rate and memory.

    Args:
        max_iter: number of iterations of the run, from which the time left follows. None leaves
            the time left out.
        window_size: losses and data time are taken over this many iterations.
    """

    def __init__(self, max_iter: int | None = None, window_size: int = 20):
        self.logger = logging.getLogger(__name__)
        self._max_iter = max_iter
        self._window_size = window_size

    def write(self) -> None:
        """Log the line, and store the seconds left as scalar `eta_seconds`.

        Does nothing once the storage is at `max_iter`: the last iteration was already printed.
        """
        storage = get_event_storage()
        if storage.iter == self._max_iter:
            return
        self.logger.info(
            " %siter: %d  %s  %s  %s lr: %s  %s",
            self._eta(storage),
            storage.iter,
            self._medians(storage, "loss"),
            self._medians(storage, "[metric]"),
            self._times(storage),
            self._lr(storage),
            _peak_memory(),
        )

    def _eta(self, storage: EventStorage) -> str:
        if self._max_iter is None or "time" not in storage.histories():
            return ""
        seconds_per_iter = storage.history("time").median(_ETA_WINDOW)
        # This iteration is done.
        seconds = float(seconds_per_iter * (self._max_iter - storage.iter - 1))
        storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
        return f"eta: {datetime.timedelta(seconds=int(seconds))}  "

    def _medians(self, storage: EventStorage, word: str) -> str:
        names = [name for name in storage.histories() if word in name]
        return "  ".join(f"{n}: {storage._median(n, self._window_size):.4g}" for n in names)

    def _times(self, storage: EventStorage) -> str:
        """Each field ends with two blanks; fields without a value are left out."""
        text = ""
        if "time" in storage.histories():
            history = storage.history("time")
            text += f"time: {history.global_avg():.4f}  last_time: {history.latest():.4f}  "
        if "data_time" in storage.histories():
            history = storage.history("data_time")
            average = history.avg(storage.count_samples("data_time", self._window_size))
            text += f"data_time: {average:.4f}  last_data_time: {history.latest():.4f}  "
        return text

    @staticmethod
    def _lr(storage: EventStorage) -> str:
        if "lr" not in storage.histories():
            return "N/A"
        return f"{storage.history('lr').latest():.5g}"


def _peak_memory() -> str:
    if not torch.cuda.is_available():
        return ""
    return f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M"
