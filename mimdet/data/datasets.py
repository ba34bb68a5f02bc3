"""The public place of the loaders of folders, which configs name."""

from mimdet.data.coco.register import load_coco_folder
from mimdet.data.sem_seg import load_sem_seg_folder

__all__ = ["load_coco_folder", "load_sem_seg_folder"]
