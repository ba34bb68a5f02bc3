"""The evaluator interface and the loop that feeds it."""

import datetime
import json
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from detectron2.utils.comm import get_world_size, is_main_process
from detectron2.utils.file_io import atomic_write
from detectron2.utils.logger import log_every_n_seconds

logger = logging.getLogger(__name__)

_MAX_WARMUP = 5  # first iterations pay for memory allocation and autotuning; they are not timed


class DatasetEvaluator:
    """Collects the predictions of a model on a data set and sums them up."""

    def reset(self) -> None:
        """Forget everything; called before a new round of evaluation."""

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Take one batch.

        Args:
            inputs: what the model received, one dict per image.
            outputs: what the model returned, one dict per image, in the same order.
        """

    def evaluate(self) -> dict[str, Any] | None:
        """Sum up what was processed.

        Returns:
            Metrics by task, as in `{"bbox": {"AP50": 80.0}}`; ranks other than the main process
            may return None or an empty dict.
        """


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators that act as one: each sees every batch, their results are merged.

    Args:
        evaluators: the evaluators, in the order in which they are called.
    """

    def __init__(self, evaluators: Sequence[DatasetEvaluator]):
        self._evaluators = evaluators

    def reset(self) -> None:
        """Reset each evaluator."""
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Hand the batch to each evaluator."""
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> dict[str, Any]:
        """Merge the results of all evaluators; empty on ranks other than the main process.

        Raises:
            AssertionError: two evaluators report the same task.
        """
        merged = OrderedDict()
        for evaluator in self._evaluators:
            results = evaluator.evaluate()
            if results is None or not is_main_process():
                continue
            for task, metrics in results.items():
                assert task not in merged, (
                    f"two evaluators report results for {task!r}, the second is "
                    f"{type(evaluator).__name__}; evaluate them one after the other"
                )
                merged[task] = metrics
        return merged


def inference_on_dataset(
    model: nn.Module | Callable[[list[dict]], list[dict]],
    data_loader: Iterable,
    evaluator: DatasetEvaluator | Sequence[DatasetEvaluator] | None,
    callbacks: Mapping[str, Callable[[], None]] | None = None,
) -> dict[str, Any]:
    """Run a model over a data loader without gradients and evaluate its outputs.

    The model is in eval mode meanwhile and goes back to its mode afterwards, also after an error.

    Args:
        model: maps a batch (a list of dicts) to one output dict per image.
        data_loader: yields batches and has a length.
        evaluator: one evaluator, a sequence of them, or None to only run (and time) the model.
        callbacks: functions by name: "on_start" and "on_end" run once around the loop,
            "before_inference" and "after_inference" around each call of the model.

    Returns:
        The evaluator's results; an empty dict where it returns None.
    """
    if evaluator is None or isinstance(evaluator, Sequence):
        evaluator = DatasetEvaluators(evaluator or [])
    logger.info(f"Start inference on {len(data_loader)} batches")
    evaluator.reset()
    mode = inference_context(model) if isinstance(model, nn.Module) else nullcontext()
    with mode, torch.no_grad():  # not inference_mode: its tensors could never enter autograd later
        _run(model, data_loader, evaluator, callbacks or {})
    results = evaluator.evaluate()
    return {} if results is None else results


@contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode for the duration of a `with` block, errors included."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _run(
    model: Callable[[Any], Any],
    data_loader: Iterable,
    evaluator: DatasetEvaluator,
    callbacks: Mapping[str, Callable[[], None]],
) -> None:
    """Feed each batch to the model and its outputs to the evaluator."""

    def call(name: str) -> None:
        callbacks.get(name, lambda: None)()

    times = _Times(len(data_loader))
    call("on_start")
    for index, inputs in enumerate(data_loader):
        times.start_iteration(index)
        call("before_inference")
        with times.measure("inference"):
            outputs = model(inputs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # the call returns before the GPU is done
        call("after_inference")
        with times.measure("eval"):
            evaluator.process(inputs, outputs)
        times.end_iteration(index)
    call("on_end")
    times.log_total()


def write_results(output_dir: str | None, name: str, content: Any) -> None:
    """Write a result file, whole or not at all: as JSON by its name, or by torch.

    Args:
        output_dir: is made where it is missing; None writes nothing.
        name: of the file.
        content: what goes into it.
    """
    if not output_dir:
        return
    os.makedirs(output_dir, exist_ok=True)
    path = os.path.join(output_dir, name)
    if name.endswith(".json"):
        logger.info(f"Saving results to {path}")
        with atomic_write(path) as f:
            json.dump(content, f)
    else:
        with atomic_write(path, "wb") as f:
            torch.save(content, f)


class _Times:
    """Seconds spent on loading, inference and evaluation, without the warm-up iterations.

    Args:
        total: number of batches.
    """

    def __init__(self, total: int):
        self._total = total
        # So that at least one batch is timed.
        self._warmup = max(0, min(_MAX_WARMUP, total - 1))
        self._restart()

    def _restart(self) -> None:
        self._spent = {"data": 0.0, "inference": 0.0, "eval": 0.0}
        self._start = self._iteration_end = time.perf_counter()

    def start_iteration(self, index: int) -> None:
        """Note that the batch with this index has arrived."""
        self._spent["data"] += time.perf_counter() - self._iteration_end
        if index == self._warmup:
            self._restart()

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add the duration of the `with` block to a phase."""
        start = time.perf_counter()
        yield
        self._spent[phase] += time.perf_counter() - start

    def end_iteration(self, index: int) -> None:
        """Note that a batch is done and log the progress every five seconds."""
        self._iteration_end = time.perf_counter()
        if index < 2 * self._warmup:
            return
        timed = index + 1 - self._warmup
        per_iteration = (self._iteration_end - self._start) / timed
        eta = datetime.timedelta(seconds=int(per_iteration * (self._total - index - 1)))
        data, inference, evaluation = (spent / timed for spent in self._spent.values())
        log_every_n_seconds(
            logging.INFO,
            f"Inference done {index + 1}/{self._total}. "
            f"Dataloading: {data:.4f} s/iter. "
            f"Inference: {inference:.4f} s/iter. "
            f"Eval: {evaluation:.4f} s/iter. "
            f"Total: {per_iteration:.4f} s/iter. "
            f"ETA={eta}",
            n=5,
            name=__name__,
        )

    def log_total(self) -> None:
        """Log the time of the whole loop and of the model alone."""
        timed = max(self._total - self._warmup, 1)
        devices = f"{get_world_size()} devices"
        total = time.perf_counter() - self._start
        compute = self._spent["inference"]
        logger.info(
            f"Total inference time: {datetime.timedelta(seconds=total)} "
            f"({total / timed:.6f} s / iter per device, on {devices})"
        )
        logger.info(
            "Total inference pure compute time: "
            f"{datetime.timedelta(seconds=int(compute))} "
            f"({compute / timed:.6f} s / iter per device, on {devices})"
        )
