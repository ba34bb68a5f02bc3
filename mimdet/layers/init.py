"""Initial weights of transformers, for ``Module.apply``."""

from torch import nn


def init_transformer_weights(module: nn.Module) -> None:
    """Initialise a Linear or LayerNorm the way MAE does.

    Linear: Xavier uniform weights, zero bias. LayerNorm: one and zero. Others are left alone.

    Reference:
        He et al. 2021, arXiv 2111.06377, appendix A.1.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def init_linear(module: nn.Module) -> None:
    """Initialise a Linear: normal of std 0.02, cut at 2, and zero bias. Others are left alone."""
    if isinstance(module, nn.Linear):
        # torch's, not timm's: the two draw other numbers from the same seed
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
