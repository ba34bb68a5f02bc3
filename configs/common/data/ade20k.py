"""ADE20K scene parsing: semantic segmentation of 150 classes, in crops of 512.

`DETECTRON2_DATASETS` says where ADEChallengeData2016 lies; tools/prepare_ade20k.py makes its label
maps. The steps are those of mmsegmentation's recipes; the model pads crops that are too small, by
the mean colour.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetMapper,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from mimdet.data.photometric import PhotometricDistortion
from mimdet.data.ratio_resize import RandomRatioResize
from mimdet.evaluation.sem_seg import SemSegEvaluator

dataloader = dict(
    train=L(build_detection_train_loader)(
        dataset=L(get_detection_dataset_dicts)(names="ade20k_sem_seg_train", filter_empty=False),
        mapper=L(DatasetMapper)(
            is_train=True,
            augmentations=[
                L(RandomRatioResize)(short_edge_length=512, max_size=2048),
                L(T.RandomCrop_CategoryAreaConstraint)(
                    crop_type="absolute",
                    crop_size=(512, 512),
                    single_category_max_area=0.75,
                    ignored_category=255,
                ),
                L(T.RandomFlip)(horizontal=True),
                L(PhotometricDistortion)(),
            ],
            image_format="RGB",
        ),
        total_batch_size=16,
        num_workers=4,
        aspect_ratio_grouping=False,  # all crops are square
    ),
    test=L(build_detection_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names="ade20k_sem_seg_val", filter_empty=False),
        mapper=L(DatasetMapper)(
            is_train=False,
            augmentations=[L(T.ResizeShortestEdge)(short_edge_length=512, max_size=2048)],
            image_format="${...train.mapper.image_format}",
        ),
        num_workers=4,
    ),
    evaluator=L(SemSegEvaluator)(dataset_name="${..test.dataset.names}"),
)
