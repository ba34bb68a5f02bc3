from detectron2.modeling.backbone.backbone import Backbone
from detectron2.modeling.backbone.fpn import FPN

__all__ = ["FPN", "Backbone"]
