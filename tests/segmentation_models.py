"""Models, inputs and comparisons of `golden/segmentation` (its README has the rules)."""

import gzip
import json
import math
import zlib
from collections.abc import Callable

import numpy as np
import torch
from golden_models import GOLDEN, image
from torch import nn

from detectron2.layers import ShapeSpec
from mimdet.modeling.backbone.beit import BEiTViT
from mimdet.modeling.segmentation.fcn import FCNHead
from mimdet.modeling.segmentation.sem_seg_heads import SemSegHeads
from mimdet.modeling.segmentation.upernet import UPerNetHead

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def load(name: str):
    """A json or json.gz file of `golden/segmentation`."""
    content = (GOLDEN / "segmentation" / name).read_bytes()
    return json.loads(gzip.decompress(content) if name.endswith(".gz") else content)


def arrays(name: str) -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "segmentation" / name))


class Model(nn.Module):
    """Backbone and heads, for what is compared before a segmentor comes in."""

    def __init__(self, backbone: nn.Module, sem_seg_head: SemSegHeads):
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head


def build(config: dict, norm: str = "BN", dropout: float = 0.0) -> Model:
    """The model of a record's `config`; without drop path and, by default, dropout."""
    config = {"channels": 768, "aux_channels": 256, "num_classes": 150} | config
    names = ("img_size", "embed_dim", "depth", "num_heads", "out_indices", "init_values")
    names += ("use_abs_pos_emb", "use_rel_pos_bias")
    backbone = BEiTViT(**{name: config[name] for name in names if name in config}, norm=norm)
    shapes: dict[str, ShapeSpec] = backbone.output_shape()
    widths = [shape.channels for shape in shapes.values()]
    classes, options = config["num_classes"], {"norm": norm, "dropout": dropout}
    decode = UPerNetHead(widths, config["channels"], classes, **options)
    auxiliary = FCNHead(widths[-1], config["aux_channels"], classes, **options)
    return Model(backbone, SemSegHeads(decode, auxiliary))


def published_name(name: str) -> str:
    """The name of one of our entries in the released files."""
    name = name.removeprefix("sem_seg_head.")
    of_unit = any(part in name for part in ("psp_", "bottleneck", "_convs.", ".convs."))
    if not of_unit:
        return name
    if ".norm." in name:
        return name.replace(".norm.", ".bn.")
    module, _, entry = name.rpartition(".")
    return f"{module}.conv.{entry}"


@torch.no_grad()
def fill(module: nn.Module, name_of: Callable[[str], str] = published_name) -> nn.Module:
    """Give every entry the value that the fill rule derives from its published name."""
    for ours, value in module.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.from_numpy(fill_value(name_of(ours), tuple(value.shape))))
    return module


def fill_value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    x = rng.standard_normal(shape).astype(np.float32)
    if len(shape) >= 2:
        return x / np.float32(math.sqrt(math.prod(shape[1:])))
    if name.endswith("running_var"):
        return 1 + np.float32(0.1) * np.abs(x)
    if not name.endswith("running_mean") and (name.endswith("weight") or "gamma" in name):
        return 1 + np.float32(0.1) * x
    return np.float32(0.1) * x


def wave(index: int, height: int, width: int) -> torch.Tensor:
    """Image `index` of the wave rule: (3, height, width) uint8."""
    c, y, x = np.meshgrid(np.arange(3), np.arange(height), np.arange(width), indexing="ij")
    a, b = 0.05 * (c + 1) + 0.01 * index, 0.08 / (c + 1) + 0.013 * index
    u = 127.5 + 60 * np.sin(a * x + 0.7 * b * y + c) + 60 * np.cos(b * y - 0.3 * a * x + 2 * c)
    return torch.from_numpy(np.rint(u).clip(0, 255).astype(np.uint8))


def label_map(index: int, height: int, width: int, classes: int, cell: int = 8) -> torch.Tensor:
    """Label map `index`: (height, width) int64 in cells, with 255 for one cell in classes + 1."""
    shape = math.ceil(height / cell), math.ceil(width / cell)
    cells = np.random.RandomState(2000 + index).randint(0, classes + 1, shape)
    cells[cells == classes] = 255
    return torch.from_numpy(cells.repeat(cell, 0).repeat(cell, 1)[:height, :width].copy())


def pixels(kind: str, index: int, height: int, width: int) -> torch.Tensor:
    """Image `index` of a rule: (3, height, width) uint8."""
    return {"wave": wave, "random": image}[kind](index, height, width)


def batch(case: dict) -> torch.Tensor:
    """The normalised images of a record, (B, 3, H, W) float32."""
    images = [pixels(case["image_kind"], i, *case["image_size"]) for i in case["images"]]
    mean, std = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (MEAN, STD))
    return ((torch.stack(images).double() - mean) / std).float()


def assert_summary(summary: dict, tensor: torch.Tensor, name: str = "") -> None:
    """A tensor equals the stored summary: 2e-5 on values, 1e-6 of the absolute sum on sums."""
    x = tensor.detach().double().numpy()
    assert list(x.shape) == summary["shape"], name
    actual = x.reshape(-1)[summary["flat_index"]]
    np.testing.assert_allclose(actual, summary["flat_value"], atol=2e-5, rtol=2e-5, err_msg=name)
    assert abs(x.sum() - summary["sum"]) <= 1e-6 * summary["abs_sum"], name
    assert abs(abs(x).sum() - summary["abs_sum"]) <= 1e-6 * summary["abs_sum"], name
