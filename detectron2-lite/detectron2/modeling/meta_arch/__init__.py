"""Whole detectors."""

from detectron2.modeling.meta_arch.rcnn import GeneralizedRCNN

__all__ = ["GeneralizedRCNN"]
