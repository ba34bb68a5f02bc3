from detectron2._missing import missing_names
from detectron2.modeling.backbone import FPN, Backbone, ResNet, make_stage
from detectron2.modeling.meta_arch import GeneralizedRCNN, RetinaNet
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
    "ResNet",
    "RetinaNet",
    "StandardROIHeads",
    "detector_postprocess",
    "make_stage",
]

__getattr__ = missing_names(
    __name__,
    """
    ANCHOR_GENERATOR_REGISTRY BACKBONE_REGISTRY BaseKeypointRCNNHead DatasetMapperTTA FCOS
    GeneralizedRCNNWithTTA META_ARCH_REGISTRY MMDetBackbone MMDetDetector MViT
    PROPOSAL_GENERATOR_REGISTRY PanopticFPN ProposalNetwork ROI_BOX_HEAD_REGISTRY ROI_HEADS_REGISTRY
    ROI_KEYPOINT_HEAD_REGISTRY ROI_MASK_HEAD_REGISTRY RPN_HEAD_REGISTRY Res5ROIHeads ResNetBlockBase
    SEM_SEG_HEADS_REGISTRY SemanticSegmentor SimpleFeaturePyramid SwinTransformer ViT
    build_anchor_generator build_backbone build_box_head build_keypoint_head build_mask_head
    build_model build_proposal_generator build_resnet_backbone build_roi_heads build_rpn_head
    build_sem_seg_head get_vit_lr_decay_rate mmdet_wrapper sem_seg_postprocess
    test_time_augmentation
    """,
)
