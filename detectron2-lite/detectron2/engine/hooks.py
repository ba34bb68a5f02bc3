"""Hooks for a trainer: timing, learning rate, checkpoints, evaluation, metric writers."""

import datetime
import functools
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from fvcore.common.param_scheduler import ParamScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler as TorchLRScheduler

from detectron2.checkpoint import PeriodicCheckpointer as PeriodicCheckpointerBase
from detectron2.engine.eval_hooks import BestCheckpointer, EvalHook
from detectron2.engine.trainer_base import HookBase, TrainerBase, call_all
from detectron2.solver import LRMultiplier
from detectron2.utils.events import EventWriter

__all__ = [
    "BestCheckpointer",
    "CallbackHook",
    "EvalHook",
    "IterationTimer",
    "LRScheduler",
    "PeriodicCheckpointer",
    "PeriodicWriter",
]

logger = logging.getLogger(__name__)


class CallbackHook(HookBase):
    """Calls plain functions.

    Args:
        before_train: called with the trainer in that phase; None does nothing.
        after_train: likewise.
        before_step: likewise.
        after_step: likewise.
    """

    def __init__(
        self,
        *,
        before_train: Callable[[TrainerBase], Any] | None = None,
        after_train: Callable[[TrainerBase], Any] | None = None,
        before_step: Callable[[TrainerBase], Any] | None = None,
        after_step: Callable[[TrainerBase], Any] | None = None,
    ):
        functions = {
            "before_train": before_train,
            "after_train": after_train,
            "before_step": before_step,
            "after_step": after_step,
        }
        for phase, function in functions.items():
            if function is not None:
                setattr(self, phase, functools.partial(self._call, function))

    def _call(self, function: Callable[[TrainerBase], Any]) -> None:
        function(self.trainer)


class IterationTimer(HookBase):
    """Stores the seconds that each iteration takes as scalar `time`, and logs a summary at the end.

    Register it first: then the time that other hooks take after a step is not part of `time`.

    Args:
        warmup_iter: timing starts with this iteration of the run, counted from 1, because the
            first ones are slower.
    """

    def __init__(self, warmup_iter: int = 3):
        self._warmup_iter = warmup_iter
        self.before_train()  # after_train is called even if another hook ends training before

    def before_train(self) -> None:
        """Start the clocks."""
        self._timed_iterations = 0
        self._timed_seconds = 0.0
        self._timing_start = time.perf_counter()

    def before_step(self) -> None:
        """Note when the iteration starts."""
        self._step_start = time.perf_counter()

    def after_step(self) -> None:
        """Store the seconds of the iteration once the warm-up is over."""
        now = time.perf_counter()
        # From the start of this run: a resumed one warms up again.
        if self.trainer.iter - self.trainer.start_iter + 1 < self._warmup_iter:
            self._timing_start = now
            return
        self._timed_iterations += 1
        self._timed_seconds += now - self._step_start
        self.trainer.storage.put_scalars(time=now - self._step_start)

    def after_train(self) -> None:
        """Log the speed and the share of time spent outside the iterations."""
        total = time.perf_counter() - self._timing_start
        if self._timed_iterations > 0:
            logger.info(
                f"Overall training speed: {self._timed_iterations} iterations in "
                f"{_duration(self._timed_seconds)} "
                f"({self._timed_seconds / self._timed_iterations:.4f} s / it)"
            )
        on_hooks = total - self._timed_seconds
        logger.info(f"Total training time: {_duration(total)} ({_duration(on_hooks)} on hooks)")


class LRScheduler(HookBase):
    """Sets the learning rates for the next iteration and stores the current one as scalar `lr`.

    `lr` is that of the parameter group with the most parameters, or the most common one if every
    group has a single parameter.

    A resumed run continues with the base learning rates of the checkpoint. When the configuration
    asks for others, a warning tells both.

    Args:
        optimizer: whose learning rates are set; None takes that of the trainer.
        scheduler: a torch scheduler, or a fvcore `ParamScheduler` (a factor of the base learning
            rate as a function of training progress); None takes `trainer.scheduler`.
    """

    def __init__(
        self,
        optimizer: Optimizer | None = None,
        scheduler: TorchLRScheduler | ParamScheduler | None = None,
    ):
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._configured_lrs: list[float] | None = None

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer whose learning rates are set."""
        return self._optimizer or self.trainer.optimizer

    @property
    def scheduler(self) -> TorchLRScheduler | ParamScheduler:
        """The scheduler; a `ParamScheduler` is wrapped in an `LRMultiplier` by `before_train`."""
        return self._scheduler or self.trainer.scheduler

    def before_train(self) -> None:
        """Bind the schedule to the length of this training and to the iteration it starts from."""
        if isinstance(self.scheduler, ParamScheduler):
            # fvcore refuses a progress above 1, which a run resumed with fewer iterations would
            # have.
            done = min(self.trainer.iter, self.trainer.max_iter)
            self._scheduler = LRMultiplier(
                self.optimizer, self.scheduler, self.trainer.max_iter, last_iter=done - 1
            )
        if self._configured_lrs is not None:
            self._report_base_lrs(self._configured_lrs)
        self._group_id = _representative_group(self.optimizer)

    def after_step(self) -> None:
        """Store the learning rate of this iteration and set those of the next."""
        # Read before the step: the rate that this iteration has trained with.
        lr = self.optimizer.param_groups[self._group_id]["lr"]
        self.trainer.storage.put_scalar("lr", lr, smoothing_hint=False)
        self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of the torch scheduler; {} before training has wrapped a `ParamScheduler`."""
        if isinstance(self.scheduler, TorchLRScheduler):
            return self.scheduler.state_dict()
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a torch scheduler; a `ParamScheduler` follows from the iteration alone."""
        # The trainer restores its hooks before its optimizer: these are still the configured ones.
        self._configured_lrs = _base_lrs(self.optimizer)
        if isinstance(self.scheduler, TorchLRScheduler):
            self.scheduler.load_state_dict(state_dict)

    def _report_base_lrs(self, configured: list[float]) -> None:
        used = _base_lrs(self.optimizer)
        logger.info(f"Resuming with base learning rates {_distinct(used)}")
        if used != configured:
            logger.warning(
                f"The configured base learning rates {_distinct(configured)} have no effect: a "
                f"resumed run keeps those of its checkpoint, {_distinct(used)}"
            )


class PeriodicCheckpointer(PeriodicCheckpointerBase, HookBase):
    """The `detectron2.checkpoint.PeriodicCheckpointer`, of which it takes the arguments, as a hook.

    `max_iter` is that of the trainer. Weights that are not finite are never saved: the last good
    checkpoint stays, and `last_checkpoint` keeps naming it.
    """

    def before_train(self) -> None:
        """Take over the length of training.

        Raises:
            ValueError: the period is not positive.
        """
        if self.period < 1:
            raise ValueError(f"the period of checkpoints must be positive, got {self.period}")
        self.max_iter = self.trainer.max_iter

    def after_step(self) -> None:
        """Save what is due after this iteration.

        Raises:
            FloatingPointError: something is due, but a weight is infinite or NaN.
        """
        next_iter = self.trainer.iter + 1
        # When fvcore's `step` saves, and only then, because the check waits for the device.
        if next_iter % self.period == 0 or next_iter >= self.max_iter:
            _check_weights(self.checkpointer.model, self.trainer.iter)
        self.step(self.trainer.iter)


class PeriodicWriter(HookBase):
    """Lets writers write what the event storage holds.

    Register it last, so that the metrics of all hooks are in the same record.

    Args:
        writers: the writers, as `default_writers` makes them.
        period: iterations between two writes, positive; the last iteration is always written.

    Raises:
        AssertionError: an entry of `writers` is not an `EventWriter`.
        ValueError: `period` is not positive.
    """

    def __init__(self, writers: Sequence[EventWriter], period: int = 20):
        for writer in writers:
            assert isinstance(writer, EventWriter), (
                f"a writer must be an EventWriter, got {type(writer).__name__}: {writer!r}"
            )
        if period <= 0:
            raise ValueError(f"the period of writers must be positive, got {period}")
        self._writers = writers
        self._period = period

    def after_step(self) -> None:
        """Write if a period or the training ends."""
        next_iter = self.trainer.iter + 1
        if next_iter % self._period == 0 or next_iter == self.trainer.max_iter:
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        """Write what came after the last iteration, and close the writers."""
        call_all([call for writer in self._writers for call in (writer.write, writer.close)])


def _check_weights(model: nn.Module, iteration: int) -> None:
    """Refuse weights that are not finite, asking the device once."""
    names, weights = zip(*model.named_parameters(), strict=True)
    finite = torch.stack([weight.isfinite().all() for weight in weights]).tolist()
    bad = [name for name, is_finite in zip(names, finite, strict=True) if not is_finite]
    if bad:
        raise FloatingPointError(
            f"{len(bad)} of {len(names)} weights are infinite or NaN after iteration={iteration}, "
            f"{bad[0]} for instance: no checkpoint is saved. Training has diverged; lower the "
            "learning rate, warm up longer or clip gradients, and resume from the last checkpoint"
        )


def _representative_group(optimizer: Optimizer) -> int:
    """Index of the parameter group whose learning rate is logged."""
    groups = optimizer.param_groups
    sizes = [len(group["params"]) for group in groups]
    if max(sizes) > 1:
        return sizes.index(max(sizes))
    lrs = [group["lr"] for group in groups]
    return lrs.index(Counter(lrs).most_common(1)[0][0])


def _base_lrs(optimizer: Optimizer) -> list[float]:
    return [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]


def _distinct(values: Sequence[float]) -> list[float]:
    return sorted(set(values), reverse=True)


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=int(seconds)))
