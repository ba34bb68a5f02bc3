"""The label maps of the toy dataset, made by tools/make_toy_dataset.py; crops of 64 pixels.

Small images and batches, for training in a minute on two CPU cores; `toy.root` says where it lies.
"""

from detectron2.config import LazyCall as L
from mimdet.data.datasets import load_sem_seg_folder
from mimdet.data.toy import SEM_SEG_CLASSES

from .ade20k import dataloader

toy = dict(root="output/toy")

for _split, _name in ((dataloader.train, "train"), (dataloader.test, "val")):
    _split.dataset = L(load_sem_seg_folder)(
        name=f"toy_sem_seg_{_name}",
        image_root=f"${{toy.root}}/{_name}",
        sem_seg_root=f"${{toy.root}}/sem_seg/{_name}",
        classes=list(SEM_SEG_CLASSES),
    )
dataloader.evaluator.dataset_name = "${..test.dataset.name}"

_resize, _crop = dataloader.train.mapper.augmentations[:2]
_resize.update(short_edge_length=96, max_size=384, min_ratio=0.75, max_ratio=1.5)
_crop.crop_size = (64, 64)
dataloader.test.mapper.augmentations[0].update(short_edge_length=96, max_size=384)
dataloader.train.total_batch_size = 8
dataloader.train.num_workers = 0
dataloader.test.num_workers = 0
