"""From the checkpoint of a pretraining run to files for others: weights only."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mimdet.checkpoint.average import averaged_weights
from mimdet.checkpoint.convert.mae import strip_prefixes

_DECODER = ("mask_token", "decoder_")


def full_weights(checkpoint: Any, averaged: bool = False) -> dict[str, Tensor]:
    """The weights of a checkpoint, encoder and decoder, as the model names them.

    Args:
        checkpoint: what a run has saved.
        averaged: take the moving average of the weights (``train.ema``) in their place.

    Raises:
        ValueError: if the checkpoint is not of pretraining, or has no average.
    """
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"a checkpoint must be a dict, got {type(checkpoint).__name__}")
    weights = checkpoint.get("model", {})
    if averaged:
        weights = averaged_weights(checkpoint)
        if weights is None:
            raise ValueError("there are no averaged weights: the run had no train.ema.decay")
    if "mask_token" not in weights:
        raise ValueError(
            "a checkpoint of pretraining must be given, with a mask_token among its weights; this "
            f"one has {', '.join(list(weights)[:3]) or 'none'}"
        )
    return dict(weights)


def encoder_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of full weights those of the encoder, by the names of the backbone itself.

    Of MAE these are the public encoder-only files; Swin and PVTv2 get timm's names.
    """
    encoder = {name: v for name, v in weights.items() if not name.startswith(_DECODER)}
    return strip_prefixes(encoder)
