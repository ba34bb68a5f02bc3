from dataclasses import dataclass


@dataclass
class ShapeSpec:
    """What one module promises the next about a feature map; None where nothing is promised.

    Args:
        channels: number of channels.
        height: height in pixels of this map.
        width: width in pixels of this map.
        stride: how many input pixels one pixel of this map spans.
    """

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
