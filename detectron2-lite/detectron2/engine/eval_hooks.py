"""Hooks for the evaluation of a training, and for the checkpoint that it finds best."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from detectron2.checkpoint import Checkpointer
from detectron2.engine.trainer_base import HookBase
from detectron2.utils import comm

logger = logging.getLogger(__name__)


class _AtEvaluation(HookBase):
    """Does something where an evaluation is due.

    A training that has failed, even in its last iteration, is not evaluated: a rank that failed
    would wait for the others, which are still in that iteration and wait for it.
    """

    def __init__(self, period: int, run_after_train: bool = True):
        self._period = period
        self._run_after_train = run_after_train

    def _run(self) -> None:
        raise NotImplementedError

    def after_step(self) -> None:
        """Run if a period has ended; the last iteration is left to `after_train`."""
        next_iter = self.trainer.iter + 1
        is_end = self._period > 0 and next_iter % self._period == 0
        if is_end and next_iter != self.trainer.max_iter:
            self._run()

    def after_train(self) -> None:
        """Run for the final model; after a failure `iter` is that of the failed iteration."""
        if self._run_after_train and self.trainer.iter >= self.trainer.max_iter:
            self._run()


class EvalHook(_AtEvaluation):
    """Runs an evaluation periodically and after training, on all ranks.

    Args:
        eval_period: iterations between two evaluations; 0 evaluates only after training.
        eval_function: returns nested metrics, as in `{"bbox": {"AP": 38.1}}`, stored as scalars
            `bbox/AP`. May return None or {}.
        eval_after_train: evaluate also when training is complete.
    """

    def __init__(
        self,
        eval_period: int,
        eval_function: Callable[[], Mapping[str, Any] | None],
        eval_after_train: bool = True,
    ):
        super().__init__(eval_period, eval_after_train)
        self._function = eval_function

    def _run(self) -> None:
        # Imported late: it brings torchvision, which every spawned process would wait for.
        from detectron2.evaluation.testing import flatten_results_dict

        results = self._function()
        if results:
            assert isinstance(results, Mapping), (
                f"eval_function must return a dict, got {type(results).__name__}: {results!r}"
            )
            metrics = {name: _metric(name, v) for name, v in flatten_results_dict(results).items()}
            self.trainer.storage.put_scalars(smoothing_hint=False, **metrics)
        # Ranks without results wait for the one that computes them: later iterations are timed.
        comm.synchronize()


class BestCheckpointer(_AtEvaluation):
    """Saves `{file_prefix}.pth` whenever the evaluation has found a better model.

    Register it behind the `EvalHook`. A resumed run does not know the best value of the run before.

    Args:
        eval_period: period of the `EvalHook`; 0 compares only after training.
        checkpointer: what saves.
        val_metric: name of the stored metric, as in "bbox/AP50".
        mode: "max" or "min": which values are better.
        file_prefix: name of the file without suffix.

    Raises:
        AssertionError: unknown `mode`.
    """

    def __init__(
        self,
        eval_period: int,
        checkpointer: Checkpointer,
        val_metric: str,
        mode: str = "max",
        file_prefix: str = "model_best",
    ):
        assert mode in ("max", "min"), f'mode must be "max" or "min", got {mode!r}'
        super().__init__(eval_period)
        self._checkpointer = checkpointer
        self._val_metric = val_metric
        self._sign = 1 if mode == "max" else -1
        self._file_prefix = file_prefix
        self.best_metric: float | None = None
        self.best_iter: int | None = None

    def _run(self) -> None:
        latest = self.trainer.storage.latest().get(self._val_metric)
        if latest is None:
            logger.warning(
                f"No value of {self._val_metric!r} is stored, so no best checkpoint is kept; the "
                "metric must be one that the EvalHook, registered before, returns"
            )
            return
        value, iteration = float(latest[0]), latest[1]
        what = f"latest eval score for {self._val_metric} is {value:.5f}"
        if math.isnan(value):
            logger.info(f"Not saving as {what}")
            return
        if self.best_metric is None:
            self._save(value, iteration)
            logger.info(f"Saved first model at {value:.5f} @ {iteration} steps")
            return
        best = f"{self.best_metric:.5f} @ iteration {self.best_iter}"
        if self._sign * value > self._sign * self.best_metric:
            self._save(value, iteration)
            logger.info(f"Saved best model as {what}, better than {best}")
        else:
            logger.info(f"Not saving as {what}, not better than {best}")

    def _save(self, value: float, iteration: int) -> None:
        self.best_metric, self.best_iter = value, iteration
        self._checkpointer.save(self._file_prefix, iteration=iteration)


def _metric(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as e:
        raise ValueError(
            f"eval_function must return a nested dict of numbers, got {name} = {value!r} "
            f"({type(value).__name__})"
        ) from e
