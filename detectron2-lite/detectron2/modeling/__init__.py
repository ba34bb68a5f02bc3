from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import FPN, Backbone, ResNet, ResNetBlockBase, make_stage
from detectron2.modeling.meta_arch import GeneralizedRCNN, RetinaNet, SemanticSegmentor
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from detectron2.modeling.roi_heads import (
    BaseMaskRCNNHead,
    FastRCNNOutputLayers,
    ROIHeads,
    StandardROIHeads,
)
