"""Weights for an evaluation: the average of a file where it has one, and all of them from it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from mimdet.checkpoint.average import averaged_weights, check_choice, choose_weights
from mimdet.checkpoint.strict import StrictCheckpointer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluatedWeights:
    """Which weights are evaluated.

    Attributes:
        kind: "ema" or "raw".
        file: the checkpoint, as it was given; None for those of a training that goes on.
        iteration: after which they were saved, counted from 0; None if the file does not say.
    """

    kind: str
    file: str | None = None
    iteration: int | None = None


def load_for_evaluation(
    model: nn.Module,
    path: str,
    weights: str | None = None,
    allow_unexpected: Sequence[str] = (),
) -> EvaluatedWeights:
    """Load all weights of a model from a checkpoint, and log which they are.

    Unlike a training that starts, an evaluation has no use for weights at random: whatever
    ``train.allow_missing`` allows, every weight comes from the file.

    Args:
        model: on its device, not yet wrapped for distributed training.
        path: see `DetectionCheckpointer.load`.
        weights: "ema" or "raw" (``train.eval_weights``); None takes the average if there is one.
        allow_unexpected: `fnmatch` patterns of names in the file that the model need not have.

    Raises:
        AssertionError: if there is no such file.
        ValueError: if the file does not fit the model or has no average where "ema" is asked for,
            or `weights` is another word.
    """
    check_choice(weights)
    checkpointer = _EvaluationCheckpointer(model, weights, allow_unexpected)
    rest = checkpointer.load(path)
    return EvaluatedWeights(checkpointer.kind, path, rest.get("iteration"))


class _EvaluationCheckpointer(StrictCheckpointer):
    """Takes the average in the place of the model's weights, and gives no advice for training."""

    remedy = (
        "an evaluation takes every weight from the file, whatever train.allow_missing says; use "
        "the config that the file was trained with (what the file has besides may be named in "
        "train.allow_unexpected)"
    )

    def __init__(self, model: nn.Module, weights: str | None, allow_unexpected: Sequence[str]):
        super().__init__(model, allow_unexpected=allow_unexpected)
        self._weights = weights
        self.kind = "raw"

    def _load_file(self, f: str) -> Any:
        checkpoint = super()._load_file(f)
        self.kind = choose_weights(checkpoint, self._weights, f)
        average = averaged_weights(checkpoint)
        if self.kind == "ema":
            checkpoint["model"] = average
            logger.info(
                f"The averaged weights (EMA) of {f} are taken; train.eval_weights=raw takes the raw"
            )
        elif average is not None:
            logger.info(f"The raw weights of {f} are taken, not their average (train.eval_weights)")
        else:
            logger.info(f"The weights of {f} are taken; it has no average of them (train.ema)")
        return checkpoint
