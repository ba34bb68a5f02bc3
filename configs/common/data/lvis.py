"""LVIS v1 instance segmentation; `DETECTRON2_DATASETS` says where the data lies.

Gupta et al. 2019, arXiv 1908.03195. Upstream Detectron2 needs the package `lvis` to evaluate.
"""

from detectron2.config import LazyCall as L
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.evaluation import LVISEvaluator
from mimdet.data.lvis import get_lvis_v1_cls_weights


def use_lvis(dataloader):
    """Turn a COCO dataloader to LVIS v1; images of rare categories come more often."""
    dataloader.train.dataset.names = "lvis_v1_train"
    dataloader.train.sampler = L(RepeatFactorTrainingSampler)(
        repeat_factors=L(RepeatFactorTrainingSampler.repeat_factors_from_category_frequency)(
            dataset_dicts="${dataloader.train.dataset}", repeat_thresh=0.001
        )
    )
    dataloader.test.dataset.names = "lvis_v1_val"
    dataloader.evaluator = L(LVISEvaluator)(
        dataset_name="${..test.dataset.names}", max_dets_per_image=300
    )


def use_lvis_classes(roi_heads):
    """Give a (Cascade) Mask R-CNN 1203 classes, of which 50 count in each step.

    The federated loss of Zhou et al. 2021, arXiv 2103.07461, section 5.3: classes in the images,
    and others drawn by the square root of how many images have them.
    """
    roi_heads.num_classes = 1203
    cascade = roi_heads.get("box_predictors")
    for predictor in cascade or [roi_heads.box_predictor]:
        predictor.update(
            test_score_thresh=0.02,
            test_topk_per_image=300,
            use_sigmoid_ce=True,
            use_fed_loss=True,
            get_fed_loss_cls_weights=get_lvis_v1_cls_weights,
            fed_loss_num_classes=50,
        )
