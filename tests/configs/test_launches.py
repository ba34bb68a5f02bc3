"""What a training step of a toy detector launches, and how often it waits for the device.

On the CPU nothing waits; counted are the operators that would on a GPU: those whose result has a
size that depends on values, and numbers that the host reads.
"""

import collections

import pytest
import torch
from config_files import CONFIGS
from torch.utils._python_dispatch import TorchDispatchMode

from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

pytestmark = pytest.mark.lite  # upstream's heads wait for each image

WAITS = {"nonzero", "_local_scalar_dense", "nms", "bincount", "masked_select", "_unique2"}
VIEWS = set(
    "alias as_strided detach expand permute select slice split split_with_sizes squeeze t "
    "transpose unbind unsqueeze view _unsafe_view unfold empty empty_like new_empty".split()
)


class Launches(TorchDispatchMode):
    """Counts the operators of RPN and ROI heads, and all for which the host waits."""

    def __init__(self):
        super().__init__()
        self.operators, self.waits = 0, collections.Counter()
        self.in_heads = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[1]
        by_bools = name == "index" and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if by_bools or name in WAITS:
            self.waits[name] += 1
        self.operators += self.in_heads and name not in VIEWS
        return func(*args, **(kwargs or {}))

    def watch(self, model):
        """Count the operators of the parts that propose and that look at regions."""
        for part in ("proposal_generator", "roi_heads"):
            module = getattr(model, part, None)
            if module is not None:
                module.register_forward_pre_hook(lambda *_: setattr(self, "in_heads", True))
                module.register_forward_hook(lambda *_: setattr(self, "in_heads", False))


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch):
    """The ways that a GPU takes, and the reading of a list, which dispatches nothing on a CPU."""
    from detectron2.modeling import box_regression, matcher, sampling
    from detectron2.modeling.proposal_generator import proposal_utils
    from detectron2.structures import boxes

    for module in (matcher, boxes, box_regression):
        monkeypatch.setattr(module, "assert_all", lambda *args: None)
    for module in (sampling, proposal_utils):
        monkeypatch.setattr(module, "is_on_cpu", lambda tensor: False)


def launches(monkeypatch, config: str, batch_size: int) -> Launches:
    """Those of one forward and backward pass on random images with two objects each."""
    torch.manual_seed(0)
    model = instantiate(LazyConfig.load(str(CONFIGS / "toy" / f"{config}.py")).model).train()
    counted = Launches()
    counted.watch(model)
    read = torch.Tensor.tolist

    def tolist(tensor):
        counted.waits["tolist"] += 1
        return read(tensor)

    batch = [sample() for _ in range(batch_size)]
    with EventStorage(), monkeypatch.context() as patch, counted:
        patch.setattr(torch.Tensor, "tolist", tolist)
        losses = model(batch)
        sum(losses.values()).backward()
    return counted


def sample() -> dict:
    corners = torch.tensor([[5.0, 8.0, 70.0, 60.0], [40.0, 30.0, 120.0, 110.0]])
    polygons = [[box[[0, 1, 2, 1, 2, 3, 0, 3]].numpy()] for box in corners]
    instances = Instances(
        (128, 128),
        gt_boxes=Boxes(corners),
        gt_classes=torch.tensor([0, 2]),
        gt_masks=PolygonMasks(polygons),
    )
    return {"image": torch.randint(256, (3, 128, 128), dtype=torch.uint8), "instances": instances}


@pytest.mark.parametrize(
    "config, bound",
    [
        ("mimdet_mask_rcnn_fpn_sr_0p5_toy", 6),
        ("vitdet_cascade_mask_rcnn_toy", 10),
        ("retinanet_mpvit_tiny_toy", 1),
    ],
)
def test_a_step_waits_no_more_often_for_two_images_than_for_one(monkeypatch, config, bound):
    one, two = (launches(monkeypatch, config, size).waits for size in (1, 2))
    assert sum(one.values()) == sum(two.values()) == bound, (one, two)


def test_rpn_and_roi_heads_launch_few_operators(monkeypatch):
    counted = launches(monkeypatch, "mimdet_mask_rcnn_fpn_sr_0p5_toy", 2)
    # Those that fill new tensors included.
    assert 0 < counted.operators <= 385
