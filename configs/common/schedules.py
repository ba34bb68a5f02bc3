"""Learning-rate schedules, as multipliers of the optimiser's learning rate.

The functions named after a data set give the number of iterations too: `train.max_iter,
lr_multiplier = ...`.
"""

from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from mimdet.solver.schedule import PolynomialDecay, WarmupFactor


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


def polynomial(max_iter, warmup_iters, warmup_factor=0.0, power=1.0, end_value=0.0):
    """A power of the share of training that is left, times a linear warm-up."""
    return L(WarmupFactor)(
        scheduler=L(PolynomialDecay)(power=power, end_value=end_value),
        warmup_length=warmup_iters / max_iter,
        warmup_factor=warmup_factor,
    )


def coco_1x(warmup_factor):
    """Detectron2's 12 epochs of COCO at batch 16 -> number of iterations, multiplier."""
    return 90000, multistep(90000, [60000, 80000], warmup_iters=1000, warmup_factor=warmup_factor)


def coco_3x(warmup_factor):
    """Detectron2's 36 epochs of COCO at batch 16 -> number of iterations, multiplier."""
    drops = [210000, 250000]
    return 270000, multistep(270000, drops, warmup_iters=1000, warmup_factor=warmup_factor)


def coco_cosine(epochs):
    """Epochs of COCO at batch 64, a quarter of one for warm-up -> iterations, multiplier."""
    max_iter = 118000 * epochs // 64
    warmup_iters = max_iter * 0.25 / epochs
    return max_iter, cosine(max_iter, warmup_iters=warmup_iters, warmup_factor=0.001)


def imagenet_cosine(epochs, batch_size, warmup_epochs, end_value=0.0):
    """Epochs of ImageNet-1k -> number of iterations, multiplier."""
    epoch = 1281167 // batch_size
    return epochs * epoch, cosine(
        epochs * epoch, warmup_epochs * epoch, end_value=end_value, rescale_interval=True
    )
