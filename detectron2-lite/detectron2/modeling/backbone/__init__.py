from detectron2._missing import missing_names
from detectron2.modeling.backbone.backbone import Backbone
from detectron2.modeling.backbone.fpn import FPN
from detectron2.modeling.backbone.resnet import BasicStem, BottleneckBlock, ResNet, make_stage

__all__ = ["FPN", "Backbone", "BasicStem", "BottleneckBlock", "ResNet", "make_stage"]

__getattr__ = missing_names(
    __name__,
    """
    BACKBONE_REGISTRY DeformBottleneckBlock MViT ResNetBlockBase SimpleFeaturePyramid
    SwinTransformer ViT build_backbone build_resnet_backbone get_vit_lr_decay_rate mvit regnet swin
    vit
    """,
)
