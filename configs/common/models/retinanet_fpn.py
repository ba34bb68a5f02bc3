"""RetinaNet with FPN on backbone maps c3..c5; a system puts its backbone into `bottom_up`.

Lin et al. 2017, arXiv 1708.02002.
"""

from omegaconf import MISSING

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, RetinaNet
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead

from .rcnn import pixels


def retinanet(bottom_up=MISSING, in_features=("c3", "c4", "c5"), in_channels=MISSING):
    """RetinaNet on a backbone, whose last map has `in_channels`."""
    return L(RetinaNet)(
        backbone=L(FPN)(
            bottom_up=bottom_up,
            in_features=in_features,
            out_channels=256,
            norm="",
            top_block=L(LastLevelP6P7)(
                in_channels=in_channels,
                out_channels="${..out_channels}",
                in_feature="${..in_features.2}",
            ),
        ),
        head=L(RetinaNetHead)(
            input_shape=[L(ShapeSpec)(channels="${....backbone.out_channels}") for _ in range(5)],
            num_classes="${..num_classes}",
            num_anchors=9,
            conv_dims=[256, 256, 256, 256],
            norm="",
            prior_prob=0.01,
        ),
        head_in_features=["p3", "p4", "p5", "p6", "p7"],
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=[[size * 2 ** (k / 3) for k in range(3)] for size in (32, 64, 128, 256, 512)],
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128],
            offset=0.0,
        ),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        anchor_matcher=L(Matcher)(
            thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True
        ),
        num_classes=80,
        focal_loss_alpha=0.25,
        focal_loss_gamma=2.0,
        test_score_thresh=0.05,
        **pixels(),
    )


model = retinanet()
