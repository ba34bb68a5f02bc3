"""The moving average of the weights that a checkpoint may hold, and the choice between the two."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

AVERAGE_KEYS = ("trainer", "hooks", "EMA")
"""Where a checkpoint keeps the moving average of the weights, by their names in the model.

It is the state of the hook `mimdet.engine.hooks.EMA`: Detectron2's trainer saves a hook's state
under the name of its class, and reads it from there when a run is resumed.
"""

CHOICES = ("ema", "raw")
"""The moving average, or the weights that were trained."""


def averaged_weights(checkpoint: Any) -> Mapping[str, Tensor] | None:
    """The moving average that a checkpoint holds, None if it has none."""
    found = checkpoint
    for key in AVERAGE_KEYS:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found or None


def check_choice(choice: str | None) -> None:
    """Refuse a ``train.eval_weights`` that is neither of `CHOICES` nor None.

    Raises:
        ValueError: naming the key.
    """
    if choice is not None and choice not in CHOICES:
        raise ValueError(
            f"train.eval_weights must be one of {CHOICES}, or None for the average where the file "
            f"has one, got {choice!r}"
        )


def choose_weights(checkpoint: Any, choice: str | None, path: str) -> str:
    """Which of `CHOICES` is taken from a checkpoint.

    Args:
        checkpoint: what the file holds.
        choice: of `CHOICES`; None takes the average if there is one.
        path: the file, for messages.

    Raises:
        ValueError: if the average is asked for and there is none.
    """
    has_average = averaged_weights(checkpoint) is not None
    if choice == "ema" and not has_average:
        raise ValueError(
            f"{path} has no average of its weights: the run had no train.ema.decay; choose raw "
            "instead of ema, or leave the choice to the file"
        )
    return choice or ("ema" if has_average else "raw")
