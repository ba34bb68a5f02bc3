"""Learning-rate schedules, as multipliers of the optimiser's learning rate."""

from fvcore.common.param_scheduler import MultiStepParamScheduler

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
