"""The public place of `load_coco_folder`, which configs name."""

from mimdet.data.coco.register import load_coco_folder

__all__ = ["load_coco_folder"]
