"""Learning-rate schedules and optimizer parameter groups."""

from detectron2._missing import missing_names

from .build import get_default_optimizer_params
from .lr_scheduler import LRMultiplier, LRScheduler, WarmupParamScheduler

__all__ = ["LRMultiplier", "LRScheduler", "WarmupParamScheduler", "get_default_optimizer_params"]

__getattr__ = missing_names(
    __name__, "WarmupCosineLR WarmupMultiStepLR build_lr_scheduler build_optimizer"
)
