"""Pretraining ViT-B: MAE on a quarter of 224x224 pixels, and FastMIM on all of 128x128."""

import torch
from torch import Tensor, nn

from benchmarks.measure import Row, cpu_ms
from detectron2.config import LazyConfig, instantiate

_BATCH = 8
_MAX_REPEATS = 3  # a run takes ten seconds and more


def measure(repeats: int) -> list[Row]:
    """CPU time of forward and backward pass, per image."""
    ways = [_step(f"configs/pretrain/{name}.py") for name in ("mae_vit_base", "fastmim_vit_base")]
    plain, ours = (t / _BATCH for t in cpu_ms(*ways, min(repeats, _MAX_REPEATS)))
    rates = [f"{1000 / ms:.2f}" for ms in (plain, ours)]
    what = (
        f"pretraining ViT-B, batch {_BATCH}: MAE at 224 / FastMIM at 128; images per CPU second: "
    )
    return [Row(what + " / ".join(rates), plain, ours, "ms/image", aim=1.5)]


def _step(config: str):
    torch.manual_seed(0)
    model: nn.Module = instantiate(LazyConfig.load(config).model).train()
    batch: list[dict[str, Tensor]] = [
        {"image": torch.randn(3, model.img_size, model.img_size)} for _ in range(_BATCH)
    ]

    def run() -> None:
        sum(model(batch).values()).backward()
        model.zero_grad()

    return run
