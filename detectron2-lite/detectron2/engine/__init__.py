"""Training loop, hooks, and the set-up of a run."""

from detectron2._missing import missing_names

from . import hooks
from .defaults import create_ddp_model, default_argument_parser, default_setup, default_writers
from .hooks import (
    BestCheckpointer,
    CallbackHook,
    EvalHook,
    IterationTimer,
    LRScheduler,
    PeriodicCheckpointer,
    PeriodicWriter,
)
from .launch import launch
from .train_loop import AMPTrainer, HookBase, SimpleTrainer, TrainerBase

__all__ = [
    "AMPTrainer",
    "BestCheckpointer",
    "CallbackHook",
    "EvalHook",
    "HookBase",
    "IterationTimer",
    "LRScheduler",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "SimpleTrainer",
    "TrainerBase",
    "create_ddp_model",
    "default_argument_parser",
    "default_setup",
    "default_writers",
    "hooks",
    "launch",
]

__getattr__ = missing_names(
    __name__,
    "AutogradProfiler DefaultPredictor DefaultTrainer PreciseBN TorchMemoryStats TorchProfiler",
)
