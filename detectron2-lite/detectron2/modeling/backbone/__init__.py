from detectron2.modeling.backbone.backbone import Backbone
from detectron2.modeling.backbone.fpn import FPN
from detectron2.modeling.backbone.resnet import (
    BasicStem,
    BottleneckBlock,
    ResNet,
    ResNetBlockBase,
    make_stage,
)
