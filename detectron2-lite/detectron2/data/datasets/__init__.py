from detectron2._missing import missing_names

from . import builtin as _builtin  # noqa: F401  registers the built-in names
from .coco import convert_to_coco_json, load_coco_json, register_coco_instances
from .lvis import load_lvis_json, register_lvis_instances

__all__ = [
    "convert_to_coco_json",
    "load_coco_json",
    "load_lvis_json",
    "register_coco_instances",
    "register_lvis_instances",
]

__getattr__ = missing_names(
    __name__,
    """
    builtin_meta cityscapes cityscapes_panoptic coco_panoptic load_sem_seg load_voc_instances
    pascal_voc register_coco register_coco_panoptic register_coco_panoptic_separated
    register_pascal_voc
    """,
)
