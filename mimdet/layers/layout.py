"""The two layouts of features, maps and tokens, and the way from one to the other.

A map (B, C, h, w) is what convolutions take, its tokens (B, L, C) with L = h * w are what
transformers take. Tokens are row-major: ``L = row * w + column``.

Shape letters: B batch, C channels, h w cells of a map, L tokens, K chosen ones, N heads, D channels
of a head.
"""

from collections.abc import Callable

from torch import Tensor


def map_to_tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, L, C), a view; contiguous if the map is channels-last."""
    return x.flatten(2).transpose(1, 2)


def tokens_to_map(tokens: Tensor, hw: tuple[int, int]) -> Tensor:
    """(B, L, C) -> (B, C, h, w), a view; channels-last if the tokens are contiguous."""
    return tokens.transpose(1, 2).unflatten(2, hw)


def over_channels(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer for the last dimension, such as LayerNorm, to the channels of a map."""
    return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """(B, L, N * D) -> (B, N, L, D), a view."""
    return tokens.unflatten(2, (num_heads, -1)).transpose(1, 2)


def token_index(ids: Tensor, channels: int) -> Tensor:
    """Places (B, K) of tokens -> (B, K, channels), the index that gather and scatter want."""
    return ids[:, :, None].expand(-1, -1, channels)
