"""Compilation of the part of a model that torch.compile traces without breaks: its blocks."""

import logging

import torch
from torch import nn

from mimdet.layers.block import Block

logger = logging.getLogger(__name__)

CHOICES = ("off", "blocks")


def compile_blocks(model: nn.Module, choice: str = "blocks", backend: str = "inductor") -> None:
    """Compile the transformer blocks of a model in place, for token maps of any size.

    Names of parameters stay, and activation checkpointing works around the compiled blocks. The
    rest of a detector, whose shapes depend on what it finds, runs as it is.

    Args:
        model: with blocks of `mimdet.layers.block`.
        choice: "blocks", or "off" to leave the model as it is.
        backend: of torch.compile; "eager" runs the traced operators one by one.

    Raises:
        ValueError: if the choice is another one, or the model has no such blocks.
    """
    if choice not in CHOICES:
        raise ValueError(f"train.compile must be one of {list(CHOICES)}, got {choice!r}")
    if choice == "off":
        return
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    if not blocks:
        raise ValueError(
            "train.compile=blocks needs the transformer blocks of MIMDet, Benchmarking-ViT, "
            "ViTDet, ViTAE or MAE, and this model has none; write train.compile=off"
        )
    # Blocks share their code, and with it the limit, but have graphs of their own: each drops paths
    # at its own rate. A few more are for training and evaluation, with and without windows.
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, 4 * len(blocks))
    for block in blocks:
        block.compile(dynamic=True, backend=backend)
    logger.info(f"{len(blocks)} transformer blocks are compiled when they first run")
