from detectron2.data.datasets import builtin as _builtin  # registers the built-in names
from detectron2.data.datasets.coco import (
    convert_to_coco_json,
    load_coco_json,
    register_coco_instances,
)
from detectron2.data.datasets.lvis import load_lvis_json, register_lvis_instances
from detectron2.data.datasets.sem_seg import load_sem_seg
