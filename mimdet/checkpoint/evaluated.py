"""Weights for an evaluation: which of a checkpoint's it takes, and that it takes all of them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mimdet.checkpoint.strict import StrictCheckpointer

logger = logging.getLogger(__name__)

AVERAGE_KEYS = ("trainer", "hooks", "EMA")
"""Where a checkpoint keeps the moving average of the weights, by their names in the model.

It is the state of the hook `mimdet.engine.hooks.EMA`: Detectron2's trainer saves a hook's state
under the name of its class, and reads it from there when a run is resumed.
"""

CHOICES = ("ema", "raw")
"""Values of ``train.eval_weights``: the moving average, or the weights that were trained."""


@dataclass(frozen=True)
class EvaluatedWeights:
    """Which weights are evaluated.

    Attributes:
        kind: one of `CHOICES`.
        file: the checkpoint, as it was given; None for those of a training that goes on.
        iteration: after which they were saved, counted from 0; None if the file does not say.
    """

    kind: str
    file: str | None = None
    iteration: int | None = None


def averaged_weights(checkpoint: Any) -> Mapping[str, Tensor] | None:
    """The moving average that a checkpoint holds, None if it has none."""
    found = checkpoint
    for key in AVERAGE_KEYS:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found or None


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
        weights: of `CHOICES` (``train.eval_weights``); None takes the average if there is one.
        allow_unexpected: `fnmatch` patterns of names in the file that the model need not have.

    Raises:
        AssertionError: if there is no such file.
        ValueError: if the file does not fit the model or has no average where "ema" is asked for,
            or `weights` is another word.
    """
    if weights is not None and weights not in CHOICES:
        raise ValueError(
            f"train.eval_weights must be one of {CHOICES}, or None for the average where the file "
            f"has one, got {weights!r}"
        )
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
        average = averaged_weights(checkpoint)
        if average is None:
            if self._weights == "ema":
                raise ValueError(
                    f"train.eval_weights=ema needs the average of the weights, and {f} has none: "
                    "its run had no train.ema.decay; train.eval_weights=raw takes what it has"
                )
            logger.info(f"The weights of {f} are taken; it has no average of them (train.ema)")
        elif self._weights == "raw":
            logger.info(f"The raw weights of {f} are taken, not their average (train.eval_weights)")
        else:
            self.kind = "ema"
            checkpoint["model"] = average
            logger.info(
                f"The averaged weights (EMA) of {f} are taken; train.eval_weights=raw takes the raw"
            )
        return checkpoint
