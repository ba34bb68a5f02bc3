"""Where the time of a training goes, and how much memory it takes."""

import resource
import sys
import time
from typing import Any

import torch

from detectron2.engine import HookBase

_PARTS = ("data", "forward", "backward", "optimizer")

# What `ru_maxrss` counts in: bytes on macOS, KiB elsewhere.
_GIB = 2**30 if sys.platform == "darwin" else 2**20


class Costs(HookBase):
    """Stores seconds per part of an iteration, and the largest memory so far, as scalars.

    They are of this process. ``seconds/data`` ends when the model is called, ``seconds/backward``
    begins when it returns. With `train.accumulation_steps` the backward passes of all pieces but
    the last one count as forward. On a GPU it is the device's own clock that is read, an iteration
    later, so that nothing waits for it: ``seconds/data`` is then what the device waited for.

    Register it first: what other hooks do before the update, such as clipping, is the optimiser's.

    Args:
        device: of the model.
    """

    def __init__(self, device: torch.device | str):
        self._is_on_gpu = torch.device(device).type == "cuda"
        self._marks: list[Any] | None = None  # of the running iteration
        self._finished: list[Any] | None = None  # of the one before

    def before_train(self) -> None:
        """Let the model tell when it begins and ends."""
        model = self.trainer.model
        self._handles = [
            model.register_forward_pre_hook(lambda *_: self._mark()),
            model.register_forward_hook(lambda *_: self._mark()),
        ]

    def after_train(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()

    def before_step(self) -> None:
        """Start the clock."""
        self._marks = []
        self._mark()

    def after_backward(self) -> None:
        """The update begins."""
        self._mark()

    def after_step(self) -> None:
        """Store what the iteration before has taken."""
        self._mark()
        storage = self.trainer.storage
        # Where the device is not there yet, these seconds are left out instead of waited for.
        if self._finished and (not self._is_on_gpu or self._finished[-1].query()):
            ends = zip(_PARTS, self._finished, self._finished[1:], strict=False)
            for part, begin, end in ends:
                storage.put_scalar(f"seconds/{part}", self._seconds(begin, end))
        # A batch that is left out has no backward pass, and its parts are not known.
        is_whole = len(self._marks) == len(_PARTS) + 1
        # None: an evaluation that follows calls the model too, and is not to be marked.
        self._finished, self._marks = self._marks if is_whole else None, None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _GIB
        storage.put_scalar("memory/process_gib", peak, smoothing_hint=False)
        if self._is_on_gpu:
            peak = torch.cuda.max_memory_allocated() / 2**30
            storage.put_scalar("memory/gpu_gib", peak, smoothing_hint=False)

    def _mark(self) -> None:
        if self._marks is None:
            return
        if not self._is_on_gpu:
            self._marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._marks.append(event)

    def _seconds(self, begin: Any, end: Any) -> float:
        return begin.elapsed_time(end) / 1000 if self._is_on_gpu else end - begin
