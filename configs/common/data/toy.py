"""The toy dataset: coloured shapes in COCO format, made by tools/make_toy_dataset.py.

Small images and batches, for training in minutes on two CPU cores; `toy.root` says where it lies.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from mimdet.data.datasets import load_coco_folder

from .coco import dataloader

toy = dict(root="output/toy")

for _split, _name in ((dataloader.train, "train"), (dataloader.test, "val")):
    _split.dataset = L(load_coco_folder)(
        name=f"toy_{_name}",
        json_file=f"${{toy.root}}/annotations/instances_{_name}.json",
        image_root=f"${{toy.root}}/{_name}",
        filter_empty=_name == "train",
    )
dataloader.evaluator.dataset_name = "${..test.dataset.name}"

dataloader.train.mapper.augmentations = [
    L(T.RandomFlip)(horizontal=True),
    L(T.ResizeShortestEdge)(short_edge_length=(96, 112, 128), sample_style="choice"),
]
dataloader.test.mapper.augmentations = [L(T.ResizeShortestEdge)(short_edge_length=112)]
dataloader.train.total_batch_size = 8
dataloader.train.num_workers = 0
dataloader.test.num_workers = 0
