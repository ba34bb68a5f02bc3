"""Tiny pretraining models, the golden images, and the names of the seed's checkpoints."""

import re
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from golden_models import GOLDEN, fill, image
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from mimdet.modeling.backbone.cmt import CMT
from mimdet.modeling.backbone.timm_backbone import TimmBackbone
from mimdet.pretraining.fastmim import FastMIM
from mimdet.pretraining.mae import MAE, ViTEncoder
from mimdet.pretraining.targets import HOGTarget, PixelTarget

PRETRAINING = GOLDEN / "pretraining"

_MEAN = np.array([0.485, 0.456, 0.406])[:, None, None]
_STD = np.array([0.229, 0.224, 0.225])[:, None, None]

# --- Images ---------------------------------------------------------------------------------------


def wave(index: int, size: int) -> Tensor:
    """Image `index` of the wave rule: (3, size, size) uint8."""
    y, x = np.mgrid[:size, :size].astype(float)
    channels = []
    for c in range(3):
        a, b = 0.05 * (c + 1) + 0.01 * index, 0.08 / (c + 1) + 0.013 * index
        first, second = np.sin(a * x + 0.7 * b * y + c), np.cos(b * y - 0.3 * a * x + 2 * c)
        channels.append(127.5 + 60 * first + 60 * second)
    return torch.from_numpy(np.rint(np.stack(channels)).clip(0, 255).astype(np.uint8))


def images(kind: str, indices: list[int], size: int) -> Tensor:
    """uint8 images of the golden files, (B, 3, size, size)."""
    return torch.stack([wave(i, size) if kind == "wave" else image(i, size, size) for i in indices])


def dyadic(u: Tensor) -> Tensor:
    """Values that float32 and sums of a few of them hold exactly."""
    return (u.float() - 128) / 64


def imagenet(u: Tensor) -> Tensor:
    """Normalised by ImageNet's statistics, rounded once."""
    return torch.from_numpy(((u.numpy() / 255 - _MEAN) / _STD).astype(np.float32))


# --- Golden values --------------------------------------------------------------------------------


def assert_summary(summary: dict, tensor: Tensor) -> None:
    """rtol 1e-4 and atol 1e-5 on values; 1e-3 sqrt(numel) on sums, as the golden files ask."""
    x = tensor.detach().double().numpy()
    assert list(x.shape) == summary["shape"]
    np.testing.assert_allclose(x.reshape(-1)[:8], summary["head"], rtol=1e-4, atol=1e-5)
    sums = {"sum": x.sum(), "abs_sum": abs(x).sum(), "sq_sum": (x * x).sum()}
    for name, actual in sums.items():
        np.testing.assert_allclose(actual, summary[name], rtol=1e-4, atol=1e-3 * x.size**0.5)


def assert_gradients(expected: dict[str, float], model: nn.Module, seed_name: Callable) -> None:
    """Every trainable parameter has a gradient, of the stored norm."""
    trained = {seed_name(n): p for n, p in model.named_parameters() if p.requires_grad}
    norms = {name: p.grad.norm().item() for name, p in trained.items()}
    assert norms.keys() == expected.keys()
    for name, norm in expected.items():
        np.testing.assert_allclose(norms[name], norm, rtol=1e-4, atol=1e-5, err_msg=name)


class _Renamed:
    """What `fill` reads of a module, under other names."""

    def __init__(self, module: nn.Module, rename: Callable[[str], str]):
        self.module, self.rename = module, rename

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        return ((self.rename(n), p) for n, p in self.module.named_parameters())

    def state_dict(self) -> dict[str, Tensor]:
        return {self.rename(n): v for n, v in self.module.state_dict().items()}


def filled(model: nn.Module, seed_name: Callable[[str], str] = str) -> nn.Module:
    """`model` with the weights that the fill rule gives to the seed's names."""
    fill(_Renamed(model, seed_name))
    return model.eval()


# --- The seed's names -----------------------------------------------------------------------------


def vit_name(name: str) -> str:
    """Our name -> that of the seed's FastMIM ViT, which has no encoder level."""
    return name.removeprefix("encoder.")


def swin_name(name: str) -> str:
    name = name.replace("encoder.model.", "encoder.")
    return re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name)


def pvtv2_name(name: str) -> str:
    def stage(match: re.Match) -> str:
        k, part = int(match[1]) + 1, match[2]
        return {"downsample": f"patch_embed{k}", "blocks": f"block{k}", "norm": f"norm{k}"}[part]

    name = name.replace("encoder.model.", "encoder.")
    name = name.replace("encoder.patch_embed.", "encoder.patch_embed1.")
    name = re.sub(r"stages\.(\d)\.(downsample|blocks|norm)", stage, name)
    return name.replace("mlp.dwconv.", "mlp.dwconv.dwconv.")


SEED_NAMES = {"vit": vit_name, "swin": swin_name, "pvtv2": pvtv2_name, "cmt": str}

# --- Tiny models ----------------------------------------------------------------------------------

_eps_1e6 = partial(nn.LayerNorm, eps=1e-6)


def tiny_mae(**changes) -> MAE:
    config = dict(img_size=64, embed_dim=48, depth=2, num_heads=4)
    config |= dict(decoder_embed_dim=32, decoder_depth=2, decoder_num_heads=4)
    return MAE(**(config | changes))


def encoder(arch: str, c: dict) -> nn.Module:
    """The encoder of a golden case's `config`."""
    if arch == "vit":
        sizes = {k: c[k] for k in ("img_size", "patch_size", "embed_dim", "depth", "num_heads")}
        return ViTEncoder(**sizes)
    if arch == "cmt":
        sizes = dict(embed_dims=c["embed_dims"], depths=c["depths"], num_heads=c["num_heads"])
        sizes |= dict(sr_ratios=c["sr_ratios"], stem_channels=c["stem_channel"])
        sizes |= dict(img_size=c["img_size"])
        return CMT(out_features=["c5"], final_norm=True, **sizes)
    if arch == "swin":
        keys = ("img_size", "embed_dim", "depths", "num_heads", "window_size")
        model = SwinTransformer(**{k: c[k] for k in keys}, drop_path_rate=0.0)
    else:
        keys = ("embed_dims", "depths", "num_heads", "sr_ratios", "mlp_ratios")
        model = PyramidVisionTransformerV2(**{k: c[k] for k in keys})
    return TimmBackbone(model, out_features=["c5"], norm="final")


def tiny_fastmim(arch: str, c: dict, mask_ratio: float = 0.75) -> FastMIM:
    """The model of a golden case's `config`."""
    stride = 16 if arch == "vit" else 32
    normalize = c["norm_pix_loss"]
    target = (
        HOGTarget(normalize=normalize)
        if c["mim_loss"] == "HOG"
        else PixelTarget(min(stride, c["block_size"]), normalize)
    )
    return FastMIM(
        encoder(arch, c),
        target,
        img_size=c["img_size"],
        block_size=c["block_size"],
        mask_ratio=mask_ratio,
        decoder_embed_dim=c["decoder_embed_dim"],
        decoder_depth=c["decoder_depth"],
        norm_layer=_eps_1e6 if arch == "vit" else nn.LayerNorm,
    )
