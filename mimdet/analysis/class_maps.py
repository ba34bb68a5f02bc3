"""Pictures of class maps: the colours of classes over a grey image, and a legend beside it."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import nn

from detectron2.data import detection_utils
from mimdet.analysis.pictures import (
    Panel,
    class_color,
    enlargement,
    font_that_fits,
    side_by_side,
    text_size,
)

_OPACITY = 0.5  # of the colours
_DIMMED = 0.3  # what is left of the light of pixels that belong to no class


def draw_class_map(image: np.ndarray, class_map: np.ndarray, names: Sequence[str]) -> Image.Image:
    """Draw the classes of an image's pixels, with a legend of those that cover most of it.

    All pictures of one size and one list of names have one size.

    Args:
        image: (H, W, 3) uint8, RGB; enlarged if it is small.
        class_map: (H, W) numbers of classes; numbers from ``len(names)`` on are of no class.
        names: names by number.
    """
    picture = _overlay(image, class_map, len(names))
    pixels = _pixels(class_map, len(names))
    shown = [(k, f"{pixels[k] / class_map.size:.0%}") for k in _by_area(pixels)]
    return _beside([picture, _legend(shown, names, picture.height, text_size(picture))])


@torch.no_grad()
def draw_class_map_comparison(
    model: nn.Module, dataset_dict: dict, model_input: dict, names: Sequence[str]
) -> Image.Image:
    """Draw one image twice: its label map on the left, the predicted classes on the right.

    The legend has the IoU of each class in this image, those that cover most of it first. Pixels
    that do not count are dark on the left.

    Args:
        model: a segmentor; put into evaluation mode.
        dataset_dict: entry of the data set, with `file_name` and `sem_seg_file_name`.
        model_input: the same image as the mapper of an evaluation makes it.
        names: names of the classes by number.
    """
    image = detection_utils.read_image(dataset_dict["file_name"], format="RGB")
    truth = detection_utils.read_image(dataset_dict["sem_seg_file_name"], format="L")[:, :, 0]
    found = class_map_of(model.eval()([model_input])[0]["sem_seg"])
    counted = truth < len(names)
    right = np.mean(truth[counted] == found[counted]) if counted.any() else None
    panels = [
        Panel(_overlay(image, truth, len(names)), "Ground truth", _counted(truth, len(names))),
        Panel(
            _overlay(image, found, len(names)),
            "Predictions",
            "no pixel counts" if right is None else f"{right:.1%} of the pixels right",
        ),
    ]
    size = text_size(panels[0].picture)
    joined = side_by_side(panels)
    shown = [(k, f"IoU {iou:.0%}") for k, iou in _ious(truth, found, len(names)).items()]
    return _beside([joined, _legend(shown, names, joined.height, size)])


def class_map_of(output: torch.Tensor) -> np.ndarray:
    """The classes (H, W) of a segmentor's `sem_seg`, which may be scores (K, H, W)."""
    classes = output.argmax(dim=0) if output.ndim == 3 else output
    return classes.cpu().numpy()


def _pixels(class_map: np.ndarray, num_classes: int) -> np.ndarray:
    """Number of pixels of each class, (K,)."""
    counts = np.bincount(class_map.ravel(), minlength=num_classes)
    return counts[:num_classes]


def _by_area(pixels: np.ndarray) -> list[int]:
    """The classes that have pixels, the largest first."""
    order = np.argsort(-pixels, kind="stable")
    return order[pixels[order] > 0].tolist()


def _ious(truth: np.ndarray, found: np.ndarray, num_classes: int) -> dict[int, float]:
    """Class -> intersection over union, over pixels that count, by falling area."""
    counted = truth < num_classes
    truth, found = truth[counted], found[counted]
    true, predicted = _pixels(truth, num_classes), _pixels(found, num_classes)
    hit = _pixels(truth[truth == found], num_classes)
    union = true + predicted - hit
    return {k: hit[k] / union[k] for k in _by_area(union)}


def _counted(truth: np.ndarray, num_classes: int) -> str:
    classes = np.count_nonzero(_pixels(truth, num_classes))
    told = f"{classes} class{'' if classes == 1 else 'es'}" if classes else "no classes"
    ignored = np.mean(truth >= num_classes)
    return f"{told}, {ignored:.0%} of the pixels do not count" if ignored else told


def _overlay(image: np.ndarray, class_map: np.ndarray, num_classes: int) -> Image.Image:
    """The image, in grey, in the colours of its classes; enlarged if it is small.

    Its own colours would mix with theirs, so that none would be that of the legend.
    """
    grey = np.asarray(Image.fromarray(image).convert("L"))[:, :, None]
    # One more colour, black, for whatever is no class.
    names = [*map(class_color, range(num_classes)), "black"]
    colors = np.array([ImageColor.getrgb(name) for name in names], dtype=np.float32)
    opacity = np.full((num_classes + 1, 1), _OPACITY, dtype=np.float32)
    opacity[-1] = 1 - _DIMMED
    numbers = np.minimum(class_map, num_classes)
    # Mixed as a table of what the colour adds and one of what is left of the image.
    added, left = (colors * opacity)[numbers], (1 - opacity)[numbers]
    mixed = Image.fromarray((grey * left + added).round().astype(np.uint8))
    scale = enlargement(*mixed.size)
    return mixed.resize((mixed.width * scale, mixed.height * scale), Image.Resampling.NEAREST)


def _legend(
    shown: Sequence[tuple[int, str]], names: Sequence[str], height: int, size: int
) -> Image.Image:
    """The colours of classes with a word on each; those that find no room are counted.

    Args:
        shown: number of a class, and what is said of it.
        names: of all classes; the widest decides on the width, up to a limit.
        height: in pixels.
        size: of the text in pixels.
    """
    row, swatch = round(1.5 * size), size
    font = ImageFont.load_default(size)
    # Of the synonyms of a class, which ADE20K separates by commas, the first will do.
    names = [name.split(",")[0].strip() for name in names]
    widest = max(font.getlength(f"{name}  IoU 100%") for name in names)
    text_width = min(round(widest), 16 * size)
    legend = Image.new("RGB", (text_width + 3 * swatch, height), "white")
    pen = ImageDraw.Draw(legend)
    white = Image.new("RGB", (1, 1), "white")
    rows = max(height // row, 1)
    fitting = shown if len(shown) <= rows else shown[: rows - 1]
    for place, (number, said) in enumerate(fitting):
        x, y = swatch // 2, place * row + (row - swatch) // 2
        box = (x, y, x + swatch - 1, y + swatch - 1)
        # as it looks on a white image
        color = Image.blend(white, Image.new("RGB", (1, 1), class_color(number)), _OPACITY)
        pen.rectangle(box, fill=color.getpixel((0, 0)), outline="dimgrey")
        text = f"{names[number]}  {said}"
        font = font_that_fits(text, size, text_width)
        pen.text((2 * swatch, y + swatch // 2), text, fill="black", font=font, anchor="lm")
    if len(fitting) < len(shown):
        y = len(fitting) * row + row // 2
        more = f"and {len(shown) - len(fitting)} more"
        pen.text((2 * swatch, y), more, fill="dimgrey", font=font, anchor="lm")
    return legend


def _beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one height in a row."""
    joined = Image.new("RGB", (sum(p.width for p in pictures), pictures[0].height), "white")
    x = 0
    for picture in pictures:
        joined.paste(picture, (x, 0))
        x += picture.width
    return joined
