"""detectron2-lite: the part of the Detectron2 API that LazyConfig detectors use."""

from detectron2._missing import missing_names
from detectron2._version import __version__

__all__ = ["__version__"]

__getattr__ = missing_names(__name__, "export model_zoo projects tracking")
