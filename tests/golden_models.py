"""Reads `golden/` and compares tensors with its summaries (golden/README.md)."""

import gzip
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from golden_data import fill, image

from detectron2.structures import ImageList, Instances
from mimdet.modeling.postprocessing import image_masks

GOLDEN = Path(__file__).parent / "golden"
CONFIGS = Path(__file__).parents[1] / "configs"

_MEAN = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
_STD = torch.tensor([58.395, 57.12, 57.375])[:, None, None]

__all__ = [
    "CONFIGS",
    "assert_detections",
    "assert_summary",
    "detector_inputs",
    "fill",
    "image",
    "load",
    "names_sha256",
    "padded_batch",
]


def load(name: str):
    """The content of a golden file, compressed or not."""
    content = (GOLDEN / name).read_bytes()
    return json.loads(gzip.decompress(content) if name.endswith(".gz") else content)


def padded_batch(case: dict) -> ImageList:
    """The normalised, zero-padded batch of a backbone record."""
    height, width = case["padded"]
    tensors, sizes = [], [tuple(size) for size in case["image_sizes"]]
    for k, (h, w) in enumerate(sizes):
        x = (image(case["image_index_first"] + k, h, w).float() - _MEAN) / _STD
        tensors.append(F.pad(x, (0, width - w, 0, height - h)))
    return ImageList(torch.stack(tensors), sizes)


def assert_summary(summary: dict, tensor: torch.Tensor, name: str = "") -> None:
    """A tensor equals the stored summary: 5e-4 + 1e-3 |b| on values, 1e-4 of |x| on sums."""
    x = tensor.detach().double().numpy()
    assert list(x.shape) == summary["shape"], name
    flat = x.reshape(-1)
    np.testing.assert_allclose(
        flat[summary["flat_index"]], summary["flat_value"], atol=5e-4, rtol=1e-3, err_msg=name
    )
    assert abs(flat.sum() - summary["sum"]) <= 1e-4 * summary["absmean"] * flat.size, name
    for key, actual in (("mean", flat.mean()), ("std", flat.std()), ("absmean", abs(flat).mean())):
        assert abs(actual - summary[key]) <= 1e-4 * summary["absmean"] + 1e-6, f"{name} {key}"
    if "corner" in summary:
        np.testing.assert_allclose(x[-1, 0, -4:, -4:], summary["corner"], atol=5e-4, rtol=1e-3)


def detector_inputs(record: dict) -> list[dict]:
    """What the detector of a record was given."""
    return [
        dict(image=image(record["image_index_first"] + k, *size), height=hw[0], width=hw[1])
        for k, (size, hw) in enumerate(
            zip(record["image_sizes"], record["height_width"], strict=True)
        )
    ]


def assert_detections(
    instances: Instances,
    wanted: dict,
    *,
    box_atol: float = 1e-2,
    score_atol: float = 1e-4,
    area_atol: float = 2,
) -> None:
    """The detections of one image are the stored ones, boxes and mask areas in pixels."""
    n = len(wanted["boxes"])
    assert (list(instances.image_size), len(instances)) == (wanted["image_size"], wanted["n"])
    np.testing.assert_allclose(instances.pred_boxes.tensor[:n], wanted["boxes"], atol=box_atol)
    np.testing.assert_allclose(instances.scores[:n], wanted["scores"], atol=score_atol)
    assert abs(instances.scores.sum().item() - wanted["scores_sum"]) <= 1e-4 * wanted["scores_sum"]
    assert instances.pred_classes[:n].tolist() == wanted["classes"]
    if "mask_shape" in wanted:
        masks = image_masks(instances)
        assert list(masks.shape) == wanted["mask_shape"]
        areas = masks.flatten(1).sum(1)[: len(wanted["mask_area"])]
        np.testing.assert_allclose(areas, wanted["mask_area"], atol=area_atol, rtol=5e-3)


def names_sha256(names: Iterable[str]) -> str:
    """The hash by which golden files name a set of parameters."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
