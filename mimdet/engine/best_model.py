"""The best model of a training by its evaluations, and an end where they do not get better."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detectron2.engine import HookBase
from detectron2.utils import comm
from mimdet.checkpoint.saving import WholeCheckpointer

logger = logging.getLogger(__name__)

NAME = "model_best"


class EarlyStop(BaseException):
    """Ends a training that goes well: no error, so Detectron2 has nothing to log."""


def check_early_stop(cfg: DictConfig) -> None:
    """Refuse a patience that is none, or that has no metric.

    Raises:
        ValueError: naming the key.
    """
    patience = OmegaConf.select(cfg, "train.early_stop.patience")
    if patience is None:
        return
    if type(patience) is not int or patience < 1:
        raise ValueError(
            f"train.early_stop.patience must be a number of evaluations from 1, or null to train "
            f"to the end, got {patience!r}"
        )
    if not cfg.train.get("best_metric"):
        raise ValueError(
            "train.early_stop.patience needs the metric that is to get better, such as "
            "train.best_metric=bbox/AP"
        )


class BestModel(HookBase):
    """Saves `model_best.pth` when an evaluation is the best so far; may end the training.

    Unlike Detectron2's BestCheckpointer it leaves `last_checkpoint` to the periodic checkpoints,
    and knows after a resume what came before: from `metrics.json`, because a checkpoint is saved
    before the evaluation of its iteration. Register it behind the `EvalHook`.

    Args:
        checkpointer: that of the training.
        metric: the evaluation's result by which models are compared, such as ``bbox/AP``; more is
            better.
        patience: evaluations without a better one after which training ends; None for never.
    """

    def __init__(self, checkpointer: WholeCheckpointer, metric: str, patience: int | None = None):
        self._checkpointer = checkpointer
        self._metric = metric
        self._patience = patience
        self._values: list[float] = []

    def before_train(self) -> None:
        """Remember the evaluations of the run that goes on."""
        if self.trainer.start_iter > 0:
            file = Path(self._checkpointer.save_dir, "metrics.json")
            self._values = comm.all_gather(_earlier(file, self._metric, self.trainer.start_iter))[0]

    def see(self, results: Mapping[str, Any]) -> None:
        """Compare the results of an evaluation; to be called on all processes.

        Args:
            results: of the main process; others may have none.
        """
        value: Any = results
        for part in self._metric.split("/"):
            value = value.get(part) if isinstance(value, Mapping) else None
        # Only the main process has results, and all must end together.
        value = comm.all_gather(value)[0]
        if value is None:
            logger.warning(f"the evaluation has no {self._metric} (train.best_metric)")
            return
        is_best = value > max(self._values, default=-math.inf)  # of NaN, the AP of nothing, never
        self._values.append(-math.inf if math.isnan(value) else float(value))
        if is_best and comm.is_main_process():
            self._save(value)

    def _save(self, value: float) -> None:
        before = self._checkpointer.has_checkpoint() and self._checkpointer.get_checkpoint_file()
        # After the last iteration the trainer's number is already that of the next one.
        iteration = min(self.trainer.iter, self.trainer.max_iter - 1)
        self._checkpointer.save(NAME, iteration=iteration)
        # Killed before this, a run has model_best.pth for its newest checkpoint, which is as good.
        if before:
            self._checkpointer.tag_last_checkpoint(Path(before).name)
        logger.info(f"{NAME}.pth: {self._metric} {value:.4g}, the best so far")

    def after_step(self) -> None:
        """End the training if it has not become better for too long.

        Raises:
            EarlyStop: on all processes; the model is saved as ``model_final.pth`` before.
        """
        is_last = self.trainer.iter + 1 >= self.trainer.max_iter
        if self._patience is None or is_last or self._since_best() < self._patience:
            return
        if comm.is_main_process():
            self._checkpointer.save("model_final", iteration=self.trainer.iter)
        comm.synchronize()
        logger.info(
            f"Training ends after iteration {self.trainer.iter}: {self._since_best()} evaluations "
            f"without more than {max(self._values):.4g} of {self._metric} "
            "(train.early_stop.patience)"
        )
        raise EarlyStop

    def _since_best(self) -> int:
        """Evaluations after the best one."""
        if not self._values:
            return 0
        return len(self._values) - 1 - self._values.index(max(self._values))


def _earlier(metrics_file: Path, metric: str, before: int) -> list[float]:
    """The values of a metric that a run has written, of iterations below `before`."""
    if not (comm.is_main_process() and metrics_file.exists()):
        return []
    found: dict[int, float] = {}
    for line in metrics_file.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the last line of a run that was killed while it wrote
            continue
        if metric in entry and entry["iteration"] < before:
            value = entry[metric]
            found[entry["iteration"]] = -math.inf if value is None else value
    return [found[iteration] for iteration in sorted(found)]
