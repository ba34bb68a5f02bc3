"""What a training step of a toy detector launches, and how often it waits for the device."""

import pytest
from config_files import CONFIGS

from benchmarks.launches import Launches
from benchmarks.training_step import SYSTEMS, launches
from detectron2.config import LazyConfig

pytestmark = pytest.mark.lite  # upstream's heads wait for each image


def launches_of(system: str, batch_size: int) -> Launches:
    """Those of one forward and backward pass on random images with two objects each."""
    return launches(LazyConfig.load(str(CONFIGS / "toy" / f"{SYSTEMS[system]}.py")), batch_size)


@pytest.mark.parametrize(
    "system, bound", [("MIMDet", 6), ("ViTDet, Cascade", 10), ("MPViT-T, RetinaNet", 1)]
)
def test_a_step_waits_no_more_often_for_two_images_than_for_one(system, bound):
    one, two = (launches_of(system, size).waits for size in (1, 2))
    assert one.total() == two.total() == bound, (one, two)


def test_rpn_and_roi_heads_launch_few_operators():
    operators = launches_of("MIMDet", 2).operators
    # Those that fill new tensors included.
    assert 0 < operators["proposal_generator"] + operators["roi_heads"] <= 385
