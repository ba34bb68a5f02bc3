from .detection_checkpoint import Checkpointer, DetectionCheckpointer, PeriodicCheckpointer

__all__ = ["Checkpointer", "DetectionCheckpointer", "PeriodicCheckpointer"]
