"""ImageNet-1k for classification; `imagenet.root` says where its train/ and val/ folders lie.

Any folder with one folder per class in train/ and val/ will do, and ``synthetic:N`` for N generated
pictures. The augmentation is that of DeiT (Touvron et al. 2020, arXiv 2012.12877), with which MAE
and FastMIM fine-tune.
"""

from timm.data import create_transform

from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader
from mimdet.data.imagenet import ImageMapper, ImageTrainLoader, load_labelled_images
from mimdet.data.mixup import MixupCollate
from mimdet.evaluation.imagenet import ImageNetEvaluator

imagenet = dict(root="${oc.env:DETECTRON2_DATASETS,datasets}/imagenet")

dataloader = dict(
    train=L(ImageTrainLoader)(
        dataset=L(load_labelled_images)(root="${imagenet.root}", split="train"),
        mapper=L(ImageMapper)(
            transform=L(create_transform)(
                input_size=224,
                is_training=True,
                auto_augment="rand-m9-mstd0.5-inc1",
                color_jitter=None,
                interpolation="bicubic",
                re_prob=0.25,
                re_mode="pixel",
                re_count=1,
            ),
            skip_unreadable=True,
        ),
        collate_fn=L(MixupCollate)(
            num_classes="${model.network.num_classes}",
            mixup_alpha=0.8,
            cutmix_alpha=1.0,
            prob=1.0,
            switch_prob=0.5,
            label_smoothing="${model.label_smoothing}",
        ),
        total_batch_size=1024,
        num_workers=10,
    ),
    test=L(build_detection_test_loader)(
        dataset=L(load_labelled_images)(root="${imagenet.root}", split="val"),
        mapper=L(ImageMapper)(
            transform=L(create_transform)(
                input_size="${....train.mapper.transform.input_size}",
                is_training=False,
                interpolation="bicubic",
                crop_pct=224 / 256,  # shorter side 256, centre crop 224; 1.0 for larger inputs
            ),
            skip_unreadable=False,
        ),
        batch_size=64,  # on each process
        num_workers=10,
    ),
    evaluator=L(ImageNetEvaluator)(),
)
