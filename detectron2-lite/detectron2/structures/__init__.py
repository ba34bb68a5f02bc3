from detectron2._missing import missing_names
from detectron2.structures.boxes import Boxes, BoxMode, pairwise_ioa, pairwise_iou
from detectron2.structures.image_list import ImageList
from detectron2.structures.instances import Instances
from detectron2.structures.masks import BitMasks, PolygonMasks, ROIMasks, polygons_to_bitmask

__all__ = [
    "BitMasks",
    "BoxMode",
    "Boxes",
    "ImageList",
    "Instances",
    "PolygonMasks",
    "ROIMasks",
    "pairwise_ioa",
    "pairwise_iou",
    "polygons_to_bitmask",
]

__getattr__ = missing_names(
    __name__,
    """
    Keypoints RotatedBoxes heatmaps_to_keypoints keypoints pairwise_iou_rotated
    pairwise_point_box_distance rotated_boxes
    """,
)
