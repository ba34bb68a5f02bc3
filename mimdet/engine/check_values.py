"""Values that no run can work with, found by their keys before anything is read or built."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf


class _Rule(NamedTuple):
    """What must hold of a value; `holds` may raise instead of saying no."""

    must: str
    holds: Callable[[Any], Any]


def _is_number(value: Any) -> bool:
    # bool is an int to Python; NaN compares false with everything, so every range refuses it
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(least: int) -> _Rule:
    return _Rule(f"a whole number from {least}", lambda v: type(v) is int and v >= least)


_COUNT = _whole(1)
_SHARE = _Rule("a number above 0, up to 1", lambda v: _is_number(v) and 0 < v <= 1)


def _is_range_of_shares(value: Any) -> bool:
    low, high = value
    return _SHARE.holds(low) and _SHARE.holds(high) and low <= high


_SHARE_OR_RANGE = _Rule(
    f"{_SHARE.must}, or [lowest, highest] of two such numbers",
    lambda v: _is_range_of_shares(v) if isinstance(v, list) else _SHARE.holds(v),
)

# The rules of an evaluation are those of a training too.
_OF_EVALUATION = {
    "train.device": _Rule('a device that torch knows, such as "cuda" or "cpu"', torch.device),
    "train.eval_sample_ratio": _SHARE,
    "model.backbone.bottom_up.sample_ratio": _SHARE_OR_RANGE,
    "dataloader.test.num_workers": _whole(0),
}
_OF_TRAINING = {
    **_OF_EVALUATION,
    "train.max_iter": _COUNT,
    "train.accumulation_steps": _COUNT,
    "train.log_period": _COUNT,
    "train.checkpointer.period": _COUNT,
    "train.eval_period": _whole(0),  # 0: at the end alone
    "train.ema.decay": _Rule("a number between 0 and 1", lambda v: _is_number(v) and 0 < v < 1),
    # infinity only measures the norm
    "train.clip_grad.max_norm": _Rule("a number above 0", lambda v: _is_number(v) and v > 0),
    "dataloader.train.total_batch_size": _COUNT,
    "dataloader.train.num_workers": _whole(0),
    "optimizer.lr": _Rule(
        "a finite number from 0", lambda v: _is_number(v) and 0 <= v and math.isfinite(v)
    ),
}


# With None at one of these a run would fail where it is used; others mean their default by it.
_WITHOUT_DEFAULT = ("train.max_iter", "train.log_period", "train.checkpointer.period")


def check_values(cfg: DictConfig, eval_only: bool) -> list[str]:
    """One sentence for each value of `cfg` that its key cannot have.

    Keys that a config lacks, or has as None, are left to their defaults, if they have one; values
    that a call computes (a learning rate from the batch size) to who computes them.
    """
    errors = []
    for key, rule in (_OF_EVALUATION if eval_only else _OF_TRAINING).items():
        value = OmegaConf.select(cfg, key)
        if OmegaConf.is_list(value):
            value = list(value)
        is_absent = value is None and not (key in _WITHOUT_DEFAULT and _has(cfg, key))
        if is_absent or OmegaConf.is_dict(value) or _holds(rule, value):
            continue
        errors.append(f"{key} must be {rule.must}, got {value!r}")
    return errors


def _holds(rule: _Rule, value: Any) -> bool:
    try:
        return bool(rule.holds(value))
    except (RuntimeError, TypeError, ValueError):  # among them torch's to a device unknown to it
        return False


def _has(cfg: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    return name in (OmegaConf.select(cfg, parent) or ())
