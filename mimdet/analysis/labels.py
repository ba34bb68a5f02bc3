"""Labels of boxes that do not lie over each other."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image, ImageColor, ImageDraw, ImageFont


class Rectangle(NamedTuple):
    """A part of a picture, in pixels; the upper left corner belongs to it, the lower right not."""

    x0: float
    y0: float
    x1: float
    y1: float

    def meets(self, other: "Rectangle") -> bool:
        """Whether both have a point in common."""
        return (
            self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1
        )


def draw_labels(
    picture: Image.Image,
    boxes: Sequence[Rectangle],
    texts: Sequence[str],
    colors: Sequence[str],
    size: int,
) -> None:
    """Write a label at each box, the first ones first; one that finds no free place is left out.

    Args:
        picture: is drawn on.
        boxes: N, in pixels of the picture.
        texts: N.
        colors: N grounds of the labels, "#rrggbb".
        size: of the text in pixels.
    """
    font = ImageFont.load_default(size)
    pen = ImageDraw.Draw(picture)
    ascent, descent = font.getmetrics()
    taken: list[Rectangle] = []
    for box, text, color in zip(boxes, texts, colors, strict=True):
        width, height = font.getlength(text) + 6, ascent + descent
        places = _places(box, width, height, *picture.size)
        place = next((p for p in places if not any(map(p.meets, taken))), None)
        if place is not None:
            taken.append(place)
            pen.rectangle((place.x0, place.y0, place.x1 - 1, place.y1 - 1), fill=color)
            pen.text((place.x0 + 3, place.y0), text, fill=_readable_on(color), font=font)


def _places(
    box: Rectangle, width: float, height: float, picture_width: int, picture_height: int
) -> Iterator[Rectangle]:
    """Where a label may stand: at the corners of its box, outside before inside."""
    # Above, below, then inside at the upper and the lower edge.
    rows = (box.y0 - height, box.y1, box.y0, box.y1 - height)
    for y in rows:
        for x in (box.x0, box.x1 - width):
            x = max(0, min(x, picture_width - width))
            if 0 <= y <= picture_height - height:
                yield Rectangle(x, y, x + width, y + height)


def _readable_on(color: str) -> str:
    red, green, blue = ImageColor.getrgb(color)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601
    return "black" if luma > 140 else "white"
