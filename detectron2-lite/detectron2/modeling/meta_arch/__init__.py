"""Whole detectors."""

from detectron2._missing import missing_names
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.meta_arch.rcnn import GeneralizedRCNN
from detectron2.modeling.meta_arch.retinanet import RetinaNet

__all__ = ["DenseDetector", "GeneralizedRCNN", "RetinaNet"]

__getattr__ = missing_names(
    __name__,
    """
    FCOS META_ARCH_REGISTRY PanopticFPN ProposalNetwork SEM_SEG_HEADS_REGISTRY SemSegFPNHead
    SemanticSegmentor build_model build_sem_seg_head fcos panoptic_fpn semantic_seg
    """,
)
