"""Counting operations and parameters."""

import pytest
import torch
from torch import nn

from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, Backbone, ResNet
from detectron2.modeling.backbone import BasicStem
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.structures import Boxes, Instances
from detectron2.utils.analysis import (
    FlopCountAnalysis,
    flop_count_operators,
    parameter_count,
    parameter_count_table,
)


class Detector(nn.Module):
    """A convolution and a linear layer between a list of dicts and Instances."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Sequential(nn.Linear(8, 4), nn.Dropout())

    def forward(self, batched_inputs):
        found = []
        for entry in batched_inputs:
            image = entry["image"].float()
            boxes = self.head(self.backbone(image).mean((1, 2))[None])
            instances = Instances(image.shape[1:], pred_boxes=Boxes(boxes), scores=boxes[:, 0])
            found.append({"instances": instances})
        return found


BATCH = [{"image": torch.zeros(3, 10, 20, dtype=torch.uint8), "file_name": "a.jpg"}]
CONV, LINEAR = 3 * 3 * 3 * 8 * 200, 8 * 4


def test_a_detector_is_counted_through_dicts_and_instances():
    analysis = FlopCountAnalysis(Detector(), (BATCH,))
    assert analysis.total() == CONV + LINEAR
    assert analysis.by_operator() == {"conv": CONV, "linear": LINEAR}
    assert analysis.by_module()["model.backbone"] == CONV
    assert analysis.by_module()["model.head"] == LINEAR


@pytest.mark.lite
def test_every_image_of_the_batch_is_counted():
    assert FlopCountAnalysis(Detector(), (BATCH * 3,)).total() == 3 * (CONV + LINEAR)


@pytest.mark.lite
def test_element_wise_operations_are_free_and_known():
    class Elementwise(nn.Module):
        def forward(self, x):
            return ((x + 1) * x / 3 - x).exp().sqrt().sigmoid().sum()

    analysis = FlopCountAnalysis(Elementwise(), (torch.ones(5),))
    assert analysis.total() == 0
    assert not analysis.unsupported_ops()


@pytest.mark.lite
def test_operators_come_in_multiples_of_1e9_and_leave_the_mode_of_each_module():
    model = Detector().train()
    model.backbone.eval()
    assert flop_count_operators(model, BATCH) == {"conv": CONV / 1e9, "linear": LINEAR / 1e9}
    assert model.training and model.head[1].training and not model.backbone.training


def resnet50_fpn() -> Backbone:
    names = ["res2", "res3", "res4", "res5"]
    stages = ResNet.make_default_stages(depth=50, stride_in_1x1=True, norm="FrozenBN")
    stem = BasicStem(in_channels=3, out_channels=64, norm="FrozenBN")
    return FPN(
        bottom_up=ResNet(stem=stem, stages=stages, out_features=names),
        in_features=names,
        out_channels=256,
        top_block=LastLevelMaxPool(),
    )


def test_a_resnet_50_with_fpn_has_the_operations_of_upstream():
    backbone = resnet50_fpn()
    assert backbone.output_shape()["p6"] == ShapeSpec(channels=256, stride=64)
    with torch.no_grad():
        analysis = FlopCountAnalysis(backbone, (torch.zeros(1, 3, 256, 256),))
        assert analysis.total() == 8_777_302_016
        assert analysis.by_operator() == {
            "conv": 8_748_269_568,
            "batch_norm": 27_656_192,
            "upsample_nearest2d": 1_376_256,
        }


@pytest.mark.lite
def test_the_count_does_not_depend_on_gradients():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    counts = []
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            counts.append(FlopCountAnalysis(model, (torch.zeros(1, 3, 8, 8),)).total())
    assert counts[0] == counts[1]


def test_parameters_are_counted_by_module():
    counts = parameter_count(Detector())
    assert counts["backbone"] == 3 * 3 * 3 * 8 + 8
    assert counts[""] == counts["backbone"] + 8 * 4 + 4
    table = parameter_count_table(Detector())
    assert "backbone.weight" in table and "(8, 3, 3, 3)" in table
