"""Reads `golden/` and knows how its weights and inputs are made (see golden/README.md)."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from detectron2.modeling import Backbone
from detectron2.structures import Boxes, Instances, PolygonMasks

GOLDEN = Path(__file__).parent / "golden"


def load(name: str) -> tuple[dict, dict]:
    """The arrays of `name.npz` and the content of `name.json`; {} for a missing file."""
    arrays, meta = GOLDEN / f"{name}.npz", GOLDEN / f"{name}.json"
    return (
        dict(np.load(arrays)) if arrays.exists() else {},
        json.loads(meta.read_text()) if meta.exists() else {},
    )


@torch.no_grad()
def fill(module: nn.Module) -> nn.Module:
    """Give every weight of `module` the value that the fill rule derives from its name."""
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    for name, value in module.state_dict().items():
        skipped = name.endswith(("num_batches_tracked", "relative_position_index"))
        if name in frozen or not value.is_floating_point() or skipped:
            continue
        rng = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
        x = rng.standard_normal(tuple(value.shape)).astype(np.float32)
        if value.ndim >= 2:
            x = x / math.sqrt(math.prod(value.shape[1:]))
        elif name.endswith("running_var"):
            x = 1 + 0.1 * np.abs(x)
        elif name.endswith("running_mean"):
            x = 0.1 * x
        elif name.endswith("weight") or "gamma" in name:
            x = 1 + 0.1 * x
        else:
            x = 0.1 * x
        value.copy_(torch.as_tensor(x))
    return module


def image(index: int, height: int, width: int) -> torch.Tensor:
    """Image `index` of the image rule: (3, height, width) uint8."""
    rng = np.random.RandomState(1000 + index)
    return torch.from_numpy(rng.randint(0, 256, (3, height, width)).astype(np.uint8))


def feature(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    """A float32 tensor of the feature rule."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def state_dict_shapes(module: nn.Module) -> list[list]:
    """[[name, shape], ...] in state-dict order, as the json files hold it."""
    return [[name, list(value.shape)] for name, value in module.state_dict().items()]


def ellipse_polygons(boxes: np.ndarray) -> PolygonMasks:
    """One 12-point polygon per box, the ground truth where boxes come without masks."""
    angle = 2 * np.pi * np.arange(12) / 12
    polygons = []
    for x0, y0, x1, y1 in np.asarray(boxes, dtype=np.float64):
        x = (x0 + x1) / 2 + (x1 - x0) / 2 * np.cos(angle)
        y = (y0 + y1) / 2 + (y1 - y0) / 2 * np.sin(angle)
        polygons.append([np.stack([x, y], axis=1).reshape(-1)])
    return PolygonMasks(polygons)


def ground_truth(image_size, boxes, classes, *, masks: bool = True) -> Instances:
    """Training targets with boxes, classes and (where wanted) ellipse polygons."""
    instances = Instances(tuple(image_size))
    instances.gt_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.as_tensor(classes, dtype=torch.int64)
    if masks:
        instances.gt_masks = ellipse_polygons(np.asarray(boxes).reshape(-1, 4))
    return instances


class TinyBackbone(Backbone):
    """Four plain convolutions with outputs res2..res5 (README, "TinyBackbone")."""

    def __init__(self):
        super().__init__()
        self.conv2 = nn.Conv2d(3, 8, 7, stride=4, padding=3)
        self.conv3 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.conv4 = nn.Conv2d(12, 16, 3, stride=2, padding=1)
        self.conv5 = nn.Conv2d(16, 24, 3, stride=2, padding=1)
        self._out_features = ["res2", "res3", "res4", "res5"]
        self._out_feature_channels = {"res2": 8, "res3": 12, "res4": 16, "res5": 24}
        self._out_feature_strides = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}

    def forward(self, x):
        features = {}
        for k in (2, 3, 4, 5):
            x = torch.relu(getattr(self, f"conv{k}")(x))
            features[f"res{k}"] = x
        return features


def as_numpy(value) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def assert_array(arrays: dict, name: str, actual, *, atol=1e-4, rtol=1e-4) -> None:
    """`actual` equals the stored array `name`, which may be stored whole or as a summary.

    The default tolerance is that of the README: |a - b| <= 1e-4 + 1e-4 |b|. Bools and integers
    must be equal.
    """
    actual = as_numpy(actual)
    if name in arrays:
        _assert_close(actual, arrays[name], atol, rtol, name)
        return
    assert list(actual.shape) == arrays[f"{name}#shape"].tolist(), name
    if f"{name}#bits" in arrays:
        np.testing.assert_array_equal(np.packbits(actual.reshape(-1)), arrays[f"{name}#bits"], name)
        return
    step = int(arrays[f"{name}#step"])
    _assert_close(actual.reshape(-1)[::step], arrays[f"{name}#flat"], atol, rtol, name)
    total, magnitude = float(arrays[f"{name}#sum"]), float(arrays[f"{name}#abssum"])
    assert abs(actual.astype(np.float64).sum() - total) <= 1e-4 * magnitude + 1e-6, name


def _assert_close(actual: np.ndarray, expected: np.ndarray, atol, rtol, name: str) -> None:
    assert actual.shape == expected.shape, f"{name}: {actual.shape} instead of {expected.shape}"
    if expected.dtype.kind in "biu" and actual.dtype.kind in "biu":
        np.testing.assert_array_equal(actual, expected, name)
    else:
        np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol, err_msg=name)


def assert_grad_norms(expected: dict, module_or_grads) -> None:
    """L2 norms of gradients: within 1e-3 of themselves plus 1e-5 of the largest of the case."""
    grads = module_or_grads
    if isinstance(grads, nn.Module):
        grads = {name: p.grad for name, p in grads.named_parameters()}
    slack = 1e-5 * max(expected.values())
    for name, norm in expected.items():
        actual = float(grads[name].norm())
        assert abs(actual - norm) <= 1e-3 * norm + slack, f"{name}: {actual} instead of {norm}"
