"""Weights under the names of the unofficial ViTDet release, and its models at toy size."""

import math
import zlib
from functools import cache

import numpy as np
import torch
from golden_models import GOLDEN, fill, image, load

from detectron2.modeling import Backbone
from mimdet.modeling.backbone.vitae import NormedViT, PlainViTAE, ViTAE

VITDET = GOLDEN / "vitdet"
_MEAN = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
_STD = torch.tensor([58.395, 57.12, 57.375])[:, None, None]


@cache
def cases() -> dict[str, dict]:
    """The stored cases of that release."""
    return load("vitdet/unofficial_cases.json.gz")


def arrays(name: str) -> dict[str, torch.Tensor]:
    """The stored inputs and outputs of a case."""
    return {key: torch.from_numpy(x) for key, x in np.load(VITDET / f"{name}.npz").items()}


def normals(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The random numbers that belong to a name, unscaled."""
    rng = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


class _Shapes:
    """A state dict without its module, as far as `fill` looks at one."""

    def __init__(self, shapes: dict[str, list[int]]):
        self._values = {name: torch.zeros(shape) for name, shape in shapes.items()}

    def named_parameters(self) -> list:
        return []

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self._values


def filled(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """A state dict of these names, filled by the rule; `attn.w` unscaled."""
    values = fill(_Shapes(shapes)).state_dict()
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            values[name] = torch.tensor(0)
        elif name.endswith("attn.w"):
            values[name] = normals(name, tuple(shape))
    return values


def backbone_of(case: dict) -> Backbone:
    """The backbone of a stored case, as it is initialised."""
    config = case["config"]
    kind = config["type"]
    if kind == "ViTAE_S":
        return ViTAE(
            img_size=config["img_size"],
            embed_dims=config["embed_dims"],
            token_dims=config["token_dims"][:2],  # the third follows from its convolutions
            depth=config["NC_depth"][2],
            num_heads=config["NC_heads"][2],
            mlp_ratio=config["mlp_ratio"],
            drop_path_rate=config["drop_path_rate"],
            window_size=config["window_size"][0],
            global_block_indexes=config["globalBlock"],
            pcm_groups=config["NC_group"][2],
        )
    arguments = dict(
        img_size=config["img_size"],
        embed_dim=config["embed_dim"],
        depth=config["depth"],
        num_heads=config["num_heads"],
        drop_path_rate=config["drop_path_rate"],
        use_rel_pos=True,
        window_size=14,
        window_block_indexes=[i for i in range(config["depth"]) if (i + 1) % 3],
        pretrain_img_size=config["img_size"],
        pretrain_use_cls_token=False,
    )
    if kind == "ViTAE":
        return PlainViTAE(pcm_groups=math.ceil(config["embed_dim"] / 4), **arguments)
    return NormedViT(**arguments)


def batch_of(case: dict) -> torch.Tensor:
    """The normalised images of a stored case."""
    first, side = case["first_image"], case["side"]
    images = [image(first + k, side, side).float() for k in range(case.get("batch", 1))]
    return (torch.stack(images) - _MEAN) / _STD
