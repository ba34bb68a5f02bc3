"""Recipe values of pretraining and classification models, read from the built model.

Their releases name sizes by which timm or their own code builds a network, and no calls.
"""

from typing import Any

from torch import nn


def network_values(model: nn.Module) -> dict[str, Any]:
    """Sizes of a classifier or of a masked image model; {} for a detector."""
    parts = dict(model.named_children())
    if "network" in parts:
        return _classifier_values(model.network)
    if "target" in parts:
        return _pretraining_values(model)
    return {}


def _classifier_values(network: nn.Module) -> dict[str, Any]:
    pooled_by = network if hasattr(network, "global_pool") else network.head  # ViT, Swin
    return {
        "num_classes": network.num_classes,
        "global_pool": pooled_by.global_pool,
        **_encoder_values(network),
    }


def _pretraining_values(model: nn.Module) -> dict[str, Any]:
    encoder = getattr(model, "encoder", model)  # MAE is its own encoder
    return {
        "decoder_num_heads": model.decoder_blocks[0].attn.num_heads,
        "norm_target": model.target.normalize,
        "target": type(model.target).__name__.removesuffix("Target"),
        **_encoder_values(getattr(encoder, "model", encoder)),
    }


def _encoder_values(network: nn.Module) -> dict[str, Any]:
    (eps,) = {m.eps for m in network.modules() if isinstance(m, nn.LayerNorm)}
    rates = [m.drop_prob for m in network.modules() if hasattr(m, "drop_prob")]
    values = {
        "embed_dim": network.patch_embed.proj.out_channels,
        "drop_path_rate": max(rates, default=0.0),
        "norm_eps": eps,
    }
    if hasattr(network, "layers"):
        stages = [stage.blocks for stage in network.layers]
        return values | {
            "depths": [len(blocks) for blocks in stages],
            "num_heads": [blocks[0].attn.num_heads for blocks in stages],
            "window_size": stages[0][0].window_size[0],
        }
    mlp = network.blocks[0].mlp
    return values | {
        "depth": len(network.blocks),
        "num_heads": network.blocks[0].attn.num_heads,
        "mlp_ratio": mlp.fc1.out_features / mlp.fc1.in_features,
        "patch_size": network.patch_embed.proj.kernel_size[0],
    }
