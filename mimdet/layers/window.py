"""Non-overlapping square windows of a token map, as attention within windows needs them.

Shape letters: B batch, H W tokens of the map, w side of a window, C channels.
"""

import torch.nn.functional as F
from torch import Tensor


def window_partition(
    x: Tensor, window_size: int, padding: Tensor | None = None
) -> tuple[Tensor, tuple[int, int]]:
    """Cut a map into windows, padded at the bottom and the right where needed.

    Args:
        x: (B, H, W, C).
        window_size: side w of a window in tokens.
        padding: (C,) the token that pads; zeros by default.

    Returns:
        The windows (B * n, w, w, C), row-major within each image, and the padded (H, W).
    """
    B, H, W, C = x.shape
    pad_h, pad_w = -H % window_size, -W % window_size
    if pad_h or pad_w:
        x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
        if padding is not None:
            x[:, H:] = padding
            x[:, :H, W:] = padding
    H, W = H + pad_h, W + pad_w
    x = x.view(B, H // window_size, window_size, W // window_size, window_size, C)
    return x.transpose(2, 3).reshape(-1, window_size, window_size, C), (H, W)


def window_unpartition(windows: Tensor, padded_hw: tuple[int, int], hw: tuple[int, int]) -> Tensor:
    """Put windows back into a map and crop the padding: the inverse of `window_partition`.

    Args:
        windows: (B * n, w, w, C).
        padded_hw: (H, W) of the padded map, a multiple of w.
        hw: (H, W) of the map without padding.

    Returns:
        (B, H, W, C).
    """
    (H, W), (_, w, _, C) = padded_hw, windows.shape
    x = windows.view(-1, H // w, W // w, w, w, C).transpose(2, 3).reshape(-1, H, W, C)
    return x[:, : hw[0], : hw[1]]
