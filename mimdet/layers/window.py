"""Non-overlapping square windows of a token map, as attention within windows needs them.

Shape letters: B batch, H W tokens of the map, w side of a window, C channels.
"""

import torch.nn.functional as F
from einops import rearrange
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
    H, W = x.shape[1:3]
    pad_h, pad_w = -H % window_size, -W % window_size
    if pad_h or pad_w:
        x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
        if padding is not None:
            # F.pad has one number for all channels, so the token is written over its zeros.
            x[:, H:] = padding
            x[:, :H, W:] = padding
    size = dict(i=window_size, j=window_size)
    windows = rearrange(x, "B (rows i) (columns j) C -> (B rows columns) i j C", **size)
    return windows, (H + pad_h, W + pad_w)


def window_unpartition(windows: Tensor, padded_hw: tuple[int, int], hw: tuple[int, int]) -> Tensor:
    """Put windows back into a map and crop the padding: the inverse of `window_partition`.

    Args:
        windows: (B * n, w, w, C).
        padded_hw: (H, W) of the padded map, a multiple of w.
        hw: (H, W) of the map without padding.

    Returns:
        (B, H, W, C).
    """
    rows, columns = (side // windows.shape[1] for side in padded_hw)
    size = dict(rows=rows, columns=columns)
    x = rearrange(windows, "(B rows columns) i j C -> B (rows i) (columns j) C", **size)
    return x[:, : hw[0], : hw[1]]
