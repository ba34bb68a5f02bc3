from detectron2._missing import missing_names
from detectron2.modeling.backbone import FPN, Backbone
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.roi_heads import (
    BaseMaskRCNNHead,
    FastRCNNOutputLayers,
    ROIHeads,
    StandardROIHeads,
)

__all__ = [
    "FPN",
    "Backbone",
    "BaseMaskRCNNHead",
    "FastRCNNOutputLayers",
    "GeneralizedRCNN",
    "ROIHeads",
    "StandardROIHeads",
    "detector_postprocess",
]

__getattr__ = missing_names(
    __name__,
    {
        "BACKBONE_REGISTRY",
        "FCOS",
        "GeneralizedRCNNWithTTA",
        "META_ARCH_REGISTRY",
        "MViT",
        "PanopticFPN",
        "ProposalNetwork",
        "ROI_HEADS_REGISTRY",
        "Res5ROIHeads",
        "SemanticSegmentor",
        "SimpleFeaturePyramid",
        "SwinTransformer",
        "ViT",
        "build_backbone",
        "build_model",
        "build_resnet_backbone",
        "build_roi_heads",
        "get_vit_lr_decay_rate",
        "sem_seg_postprocess",
    },
)
