"""Colours and labels of what a `Visualizer` draws."""

import colorsys
from collections.abc import Sequence
from typing import TypeAlias

from PIL import Image, ImageColor, ImageDraw, ImageFont

Color: TypeAlias = str | Sequence[float]
"""A name, "#rrggbb", or red, green and blue in [0, 1]."""

_LETTERS = dict(
    b="blue", g="green", r="red", c="cyan", m="magenta", y="yellow", k="black", w="white"
)
# Multiples of it, modulo 1, are spread evenly over the circle of hues, however many there are.
_GOLDEN_RATIO = 0.618034
_PIXELS_PER_POINT = 100 / 72  # font sizes are points at 100 dots per inch


def distinct_color(index: int) -> tuple[float, float, float]:
    """The colour of this number; those of neighbouring numbers differ much."""
    return colorsys.hsv_to_rgb(index * _GOLDEN_RATIO % 1, 0.85 - 0.25 * (index % 2), 1.0)


def rgb(color: Color) -> tuple[int, int, int]:
    """Red, green and blue in 0..255.

    Raises:
        ValueError: a name that Pillow does not know, or a number outside of [0, 1].
    """
    if isinstance(color, str):
        return ImageColor.getrgb(_LETTERS.get(color, color))[:3]
    if not all(0 <= value <= 1 for value in color):
        raise ValueError(
            f"a colour must be a name or red, green and blue in [0, 1], got {tuple(color)}"
        )
    red, green, blue = (round(255 * float(value)) for value in color[:3])
    return red, green, blue


def rgba(color: Color, alpha: float) -> tuple[int, int, int, int]:
    """Red, green, blue and opacity in 0..255; `alpha` is in [0, 1]."""
    return *rgb(color), round(255 * alpha)


def text_labels(
    classes: Sequence[int] | None,
    scores: Sequence[float] | None,
    class_names: Sequence[str] | None,
    is_crowd: Sequence[int] | None = None,
) -> list[str] | None:
    """One label such as "cat 88%" or "cat|crowd" per instance.

    Args:
        classes: class indices; None where only the scores are known.
        scores: in [0, 1].
        class_names: by class index; without them the label has the index.
        is_crowd: nonzero for crowds.

    Returns:
        N labels; None if there is neither a class nor a score.
    """
    parts = []
    if classes is not None:
        parts.append([class_names[k] if class_names else str(k) for k in classes])
    if scores is not None:
        parts.append([f"{float(score):.0%}" for score in scores])
    if not parts:
        return None
    labels = map(" ".join, zip(*parts, strict=True))
    if is_crowd is None:
        return list(labels)
    return [x + "|crowd" if crowd else x for x, crowd in zip(labels, is_crowd, strict=True)]


def text_tile(text: str, points: float, color: Color) -> Image.Image:
    """`text` of a size in points and a pale `color`, on black that is nearly opaque."""
    size = max(1.0, points * _PIXELS_PER_POINT)
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    pad = max(1, round(size / 8))
    width, height = int(right - left) + 2 * pad, int(bottom - top) + 2 * pad
    tile = Image.new("RGBA", (width, height), (0, 0, 0, 204))
    pale = tuple((value + 2 * 255) // 3 for value in rgb(color))
    ImageDraw.Draw(tile).text((pad - left, pad - top), text, fill=pale, font=font)
    return tile
