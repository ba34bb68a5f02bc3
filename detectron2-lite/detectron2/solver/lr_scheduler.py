"""Learning-rate schedules as functions of training progress."""

from typing import Any

from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class WarmupParamScheduler(CompositeParamScheduler):
    """A schedule with a warm-up in front of it.

    Progress is the share of training done, in [0, 1). The warm-up starts at `warmup_factor` times
    the first value of `scheduler` and reaches the value that `scheduler` has where it takes over.

    Args:
        scheduler: what follows the warm-up.
        warmup_factor: start of the warm-up, relative to `scheduler(0)`; 0 starts from zero.
        warmup_length: share of training that the warm-up takes, in [0, 1], for instance
            `250 / max_iter`.
        warmup_method: "linear", or "constant" (the start value until `scheduler` takes over).
        rescale_interval: False: `scheduler` keeps its own clock, so the warm-up hides its
            beginning. True: the whole of `scheduler` is squeezed into the rest of training.

    Raises:
        ValueError: unknown `warmup_method`, or `warmup_length` out of range.

    Reference: Goyal et al. 2017, arXiv 1706.02677, section 2.2 (gradual warm-up).
    """

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ):
        if not 0 <= warmup_length <= 1:
            raise ValueError(
                "warmup_length is a share of training and must be in [0, 1], "
                f"got {warmup_length}; divide warm-up iterations by max_iter"
            )
        start = warmup_factor * scheduler(0.0)
        if warmup_method == "linear":
            # What the schedule has where it takes over: by its own clock it is further on by then.
            end = scheduler(0.0) if rescale_interval else scheduler(warmup_length)
            warmup = LinearParamScheduler(start, end)
        elif warmup_method == "constant":
            warmup = ConstantParamScheduler(start)
        else:
            raise ValueError(f"warmup_method must be 'linear' or 'constant', got {warmup_method!r}")
        super().__init__(
            [warmup, scheduler],
            interval_scaling=["rescaled", "rescaled" if rescale_interval else "fixed"],
            lengths=[warmup_length, 1 - warmup_length],
        )


class LRMultiplier(LRScheduler):
    """Multiplies the initial learning rate of every parameter group by a scheduled factor.

    In iteration i of `max_iter` a group trains with `initial_lr * multiplier(i / max_iter)`. Call
    `step()` after each iteration.

    Args:
        optimizer: the optimizer whose learning rates are set.
        multiplier: factor as a function of progress in [0, 1].
        max_iter: number of iterations of the whole training, positive.
        last_iter: the last iteration that is done; -1 at the start of training. Other values need
            `initial_lr` in each parameter group, which a restored optimizer has.

    Raises:
        ValueError: `multiplier` is not a fvcore `ParamScheduler`, or `max_iter` is not positive.
    """

    def __init__(
        self, optimizer: Optimizer, multiplier: ParamScheduler, max_iter: int, last_iter: int = -1
    ):
        if not isinstance(multiplier, ParamScheduler):
            raise ValueError(
                "multiplier must be a fvcore ParamScheduler, "
                f"got {type(multiplier).__name__}: {multiplier!r}"
            )
        if max_iter <= 0:
            raise ValueError(f"max_iter must be positive, got {max_iter}")
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict[str, Any]:
        """The base learning rates and the number of steps done; the schedule is not stored."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[float]:
        """Learning rate of each parameter group for the iteration that comes next."""
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [base_lr * factor for base_lr in self.base_lrs]
