"""Learning-rate schedules and optimizer parameter groups."""

from detectron2.solver.build import get_default_optimizer_params
from detectron2.solver.lr_scheduler import LRMultiplier, LRScheduler, WarmupParamScheduler
