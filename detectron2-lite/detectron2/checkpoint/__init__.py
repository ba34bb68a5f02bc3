from fvcore.common.checkpoint import Checkpointer

from .detection_checkpoint import DetectionCheckpointer
from .periodic import PeriodicCheckpointer

__all__ = ["Checkpointer", "DetectionCheckpointer", "PeriodicCheckpointer"]
