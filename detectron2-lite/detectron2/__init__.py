"""detectron2-lite: the part of the Detectron2 API that LazyConfig detectors use."""

from detectron2 import _missing  # explains the names that lite leaves out
from detectron2._version import __version__
