"""What is known of LVIS v1 without its files."""

import json
from importlib.resources import files

import pytest
import torch

from mimdet.data.lvis import get_lvis_v1_cls_weights


def test_weights_are_the_roots_of_the_published_image_counts():
    weights = get_lvis_v1_cls_weights()
    assert weights.shape == (1203,) and weights.dtype == torch.float32
    first = [8.0, 19.078784942626953, 43.71498489379883, 12.206555366516113, 5.385164737701416]
    assert weights[:5].tolist() == pytest.approx(first, rel=1e-6)
    assert weights.sum().item() == pytest.approx(14056.9140625, rel=1e-6)


def test_power_one_gives_the_counts_and_zero_equal_weights():
    counts = get_lvis_v1_cls_weights(power=1)
    assert counts[:3].tolist() == [64, 364, 1911] and counts.min() == 1
    assert torch.equal(get_lvis_v1_cls_weights(power=0), torch.ones(1203))


def test_the_file_says_whose_data_it_holds():
    content = json.loads((files("mimdet.data") / "lvis_v1_class_image_count.json").read_text())
    assert "LVIS" in content["note"] and "terms" in content["note"]
