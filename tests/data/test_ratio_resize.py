"""The random resize by a continuous ratio, against mmsegmentation's sizes."""

import json
from pathlib import Path

import numpy as np
import pytest

from detectron2.data.transforms import AugInput
from mimdet.data.ratio_resize import RandomRatioResize

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/segmentation/pipeline.json").read_text())[
    "resize_h_w_ratio_scale_newh_neww"
]
RESIZE = RandomRatioResize(short_edge_length=512, max_size=2048)


def test_sizes_are_those_of_mmsegmentation():
    assert len(GOLDEN) == 72
    for height, width, ratio, _, _, *expected in GOLDEN:
        assert RESIZE.output_shape(height, width, ratio) == tuple(expected), (height, width, ratio)


def test_the_ratio_is_drawn_from_the_whole_range_and_not_from_steps():
    np.random.seed(0)
    image = np.zeros((683, 512, 3), dtype=np.uint8)
    heights = [RESIZE.get_transform(image).new_h for _ in range(400)]
    assert 342 <= min(heights) < 360 and 1340 < max(heights) <= 1366
    assert 0.95 < np.mean(heights) / (1.25 * 683) < 1.05  # uniform in the ratio
    assert len(set(heights)) > 300


def test_labels_follow_the_image_and_keep_their_values():
    labels = np.repeat(np.array([[0, 255], [7, 3]], dtype=np.uint8), 8, axis=0).repeat(8, axis=1)
    given = AugInput(np.zeros((16, 16, 3), dtype=np.uint8), sem_seg=labels)
    np.random.seed(1)
    RandomRatioResize(short_edge_length=24, max_size=96)(given)
    assert given.sem_seg.shape == given.image.shape[:2] != (16, 16)
    assert set(np.unique(given.sem_seg)) == {0, 3, 7, 255}


@pytest.mark.parametrize("ratios", [(0.0, 1.0), (2.0, 0.5), (-1.0, 1.0)])
def test_a_range_without_ratios_is_refused(ratios):
    with pytest.raises(ValueError, match="ratios must be above 0, the smaller one first"):
        RandomRatioResize(512, 2048, *ratios)
