"""Learning-rate schedules, as multipliers of the optimiser's learning rate."""

from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler


def multistep(max_iter, milestones, warmup_iters, warmup_factor=0.0):
    """Linear warm-up to 1, then a tenth at each milestone (all in iterations)."""
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[10.0**-k for k in range(len(milestones) + 1)],
            milestones=milestones,
            num_updates=max_iter,
        ),
        warmup_length=warmup_iters / max_iter,
        warmup_method="linear",
        warmup_factor=warmup_factor,
    )


def cosine(max_iter, warmup_iters, warmup_factor=0.0, end_value=0.0, rescale_interval=False):
    """Linear warm-up, then half a cosine from 1 to `end_value`.

    With `rescale_interval` the whole of it, else as far as it has got by the end of the warm-up.
    """
    return L(WarmupParamScheduler)(
        scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=end_value),
        warmup_length=warmup_iters / max_iter,
        warmup_method="linear",
        warmup_factor=warmup_factor,
        rescale_interval=rescale_interval,
    )
