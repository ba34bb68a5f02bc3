from fvcore.common.checkpoint import Checkpointer

from detectron2.checkpoint.detection_checkpoint import DetectionCheckpointer
from detectron2.checkpoint.periodic import PeriodicCheckpointer

__all__ = ["Checkpointer", "DetectionCheckpointer", "PeriodicCheckpointer"]
