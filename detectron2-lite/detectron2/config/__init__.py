from detectron2.config.instantiate import instantiate
from detectron2.config.lazy import LazyCall, LazyConfig
