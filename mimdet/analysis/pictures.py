"""What all pictures share: panels with titles, text that can be read, colours, names of files."""

import colorsys
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

GAP = 8  # pixels between two panels
_SMALLEST_SIDE = 320  # smaller images are enlarged to this
_LARGEST_SIDE = 4096  # unless the other side gets longer than this; JPEG ends at 65500
_SMALLEST_TEXT = 13  # pixels
_GOLDEN_RATIO = 0.618034


class Panel(NamedTuple):
    """One of the pictures that are shown side by side.

    Attributes:
        picture: the panel without its title.
        title: what it is.
        detail: a second line, in grey.
    """

    picture: Image.Image
    title: str
    detail: str


def enlargement(width: int, height: int) -> int:
    """The factor by which an image is enlarged to be looked at."""
    wanted = round(_SMALLEST_SIDE / min(width, height))
    return max(1, min(wanted, _LARGEST_SIDE // max(width, height)))


def text_size(picture: Image.Image) -> int:
    """The size of text on a picture in pixels: it can be read in a smaller copy as well."""
    return max(_SMALLEST_TEXT, min(picture.size) // 28)


def side_by_side(panels: Sequence[Panel]) -> Image.Image:
    """Join panels of one size to a picture, with a title above each of them."""
    width, height = panels[0].picture.size
    size = text_size(panels[0].picture)
    bar = title_height(panels[0].picture)
    joined = Image.new("RGB", ((width + GAP) * len(panels) - GAP, bar + height), "white")
    pen = ImageDraw.Draw(joined)
    for k, panel in enumerate(panels):
        x = k * (width + GAP)
        joined.paste(panel.picture, (x, bar))
        for line, (text, color) in enumerate([(panel.title, "black"), (panel.detail, "dimgrey")]):
            font = font_that_fits(text, size, width - 4)
            pen.text((x + 2, (1.35 * line + 0.2) * size), text, fill=color, font=font)
    return joined


def title_height(picture: Image.Image) -> int:
    """The height in pixels of the titles above a panel."""
    return 3 * text_size(picture)


def class_color(number: int) -> str:
    """The colour of a class, "#rrggbb": neighbours differ in hue, others in brightness as well."""
    # Steps of the golden ratio stay spread over the circle, whatever the number of classes.
    hue, value = number * _GOLDEN_RATIO % 1, (1.0, 0.7, 0.85)[number % 3]
    channels = colorsys.hsv_to_rgb(hue, 0.85, value)
    return "#" + "".join(f"{round(255 * share):02x}" for share in channels)


def name_of(number: int, names: Sequence[str]) -> str:
    """What a class is called: its number, where there are fewer names."""
    return names[number] if number < len(names) else f"class {number}"


def font_that_fits(text: str, size: int, width: int) -> ImageFont.FreeTypeFont:
    """The default font, at most of `size`, in which the text is not wider than `width`."""
    fonts = (ImageFont.load_default(smaller) for smaller in range(size, 1, -1))
    return next((f for f in fonts if f.getlength(text) <= width), ImageFont.load_default(1))


def picture_paths(
    output: str | os.PathLike, files: Sequence[str], suffix: str = ".png"
) -> list[Path]:
    """Choose a path for a picture of each image file, all of them different.

    Below `output` are the folders in which the images differ, wherever they lie. The suffix takes
    the place of that of the images, or follows it where two images differ in it alone.

    Args:
        output: folder of the pictures.
        files: paths of the images, absolute or relative; the same one may be there twice.
        suffix: of the pictures.

    Raises:
        ValueError: if a picture would take the place of one of the images.
    """
    images = [os.path.abspath(file) for file in files]
    common = os.path.commonpath([os.path.dirname(image) for image in images]) if images else ""
    inside = [os.path.relpath(image, common) for image in images]
    names = [os.path.splitext(name)[0] for name in inside]
    # Without regard to case, as some file systems do not tell names apart by it.
    if len({name.casefold() for name in names}) < len(names):
        names = inside
    times: Counter[str] = Counter()
    paths = []
    for name in names:
        times[name] += 1
        number = f".{times[name]}" if times[name] > 1 else ""
        paths.append(Path(output) / f"{name}{number}{suffix}")
    originals = set(map(os.path.realpath, images))
    if taken := [path for path in paths if os.path.realpath(path) in originals]:
        raise ValueError(
            f"the pictures must not take the place of images, as {taken[0]} would; choose another "
            "folder (--output)"
        )
    return paths
