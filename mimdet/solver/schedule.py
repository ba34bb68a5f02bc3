"""Learning-rate schedules that neither Detectron2 nor fvcore has, as functions of progress."""

from fvcore.common.param_scheduler import ParamScheduler


class PolynomialDecay(ParamScheduler):
    """From 1 to `end_value` along a power of what is left of the training.

    fvcore's has no other end than 0.

    Args:
        power: 1 for a straight line.
        end_value: relative to the learning rate. A floor in absolute numbers would be another
            share for each group of a layer-wise decay.

    Reference:
        Chen et al. 2016 (DeepLab), arXiv 1606.00915, section 4.1 ("poly").
    """

    def __init__(self, power: float = 1.0, end_value: float = 0.0):
        self._power = power
        self._end_value = end_value

    def __call__(self, where: float) -> float:
        """The multiplier at a share of the training in [0, 1]."""
        return (1 - self._end_value) * (1 - where) ** self._power + self._end_value


class WarmupFactor(ParamScheduler):
    """A schedule times a warm-up factor that grows linearly to 1.

    Detectron2's `WarmupParamScheduler` goes in a line to the value of the schedule at the end of
    the warm-up instead. Where the schedule falls meanwhile, that is lower by up to the share of the
    warm-up (0.9 % with 1,500 of 160,000 iterations).

    Args:
        scheduler: runs from the first iteration on.
        warmup_factor: where the factor starts.
        warmup_length: share of training that the warm-up takes, in [0, 1], such as
            ``1500 / max_iter``.

    Raises:
        ValueError: if `warmup_length` is no such share.

    Reference:
        Goyal et al. 2017, arXiv 1706.02677, section 2.2, as a factor as in mmcv.
    """

    def __init__(self, scheduler: ParamScheduler, warmup_factor: float, warmup_length: float):
        if not 0 <= warmup_length <= 1:
            raise ValueError(
                f"warmup_length is a share of training and must be in [0, 1], got {warmup_length} "
                "(lr_multiplier.warmup_length); divide warm-up iterations by train.max_iter"
            )
        self._scheduler = scheduler
        self._warmup_factor = warmup_factor
        self._warmup_length = warmup_length

    def __call__(self, where: float) -> float:
        """The multiplier at a share of the training in [0, 1]."""
        value = self._scheduler(where)
        # Also what keeps a warm-up of length 0 from being divided by.
        if where >= self._warmup_length:
            return value
        rest = 1 - where / self._warmup_length
        return value * (1 - rest * (1 - self._warmup_factor))
