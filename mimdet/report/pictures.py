"""Pictures inside a page: images as data URIs, boxes over them as SVG."""

import base64
import html
import io
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from PIL import Image, ImageOps

from mimdet.report.names import MISTAKES

# Of images that datasets have; others, such as EPS, start programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_SIDE = 480  # pixels of the longer side of an image in a page
_QUALITY = 80
_WIDTH = 320  # units of a drawing: about the pixels it is shown with
_LABELLED = 8  # with more boxes than that, only mistakes are labelled

# On photographs, whatever the page: sky blue and orange of Okabe and Ito, and grey.
_RIGHT, _WRONG, _IGNORED = "right", "wrong", "ignored"


class _Box(NamedTuple):
    """A box of a drawing: XYXY in pixels of the image, text, style, and what a pointer is told."""

    corners: list[float]
    label: str
    style: str
    kind: str


def data_uri(picture: Image.Image) -> str:
    """A picture as the text that an ``<img>`` can show."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def thumbnail(root: str | None, file_name: str) -> str | None:
    """An image of a dataset, small, as a data URI; None if it cannot be had.

    Args:
        root: folder of the images.
        file_name: below it. What leads out of it is not shown: the folder of a run may be a
            stranger's, and its page is passed on.
    """
    if not root:
        return None
    folder = Path(root).resolve()
    path = (folder / file_name).resolve()
    if not path.is_relative_to(folder):
        return None
    try:
        with Image.open(path, formats=_FORMATS) as image:
            # JPEG can be decoded at 1/2, 1/4 or 1/8 of its size: what is larger than is shown here.
            image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    upright.thumbnail((_SIDE, _SIDE))
    return data_uri(upright)


def truth_and_detections(entry: Mapping[str, Any], image: str | None, name: str) -> Markup:
    """Draw an image twice, side by side: its objects, and what was detected.

    Args:
        entry: from `mimdet.report.worst_images.describe_image`.
        image: a data URI; None draws the boxes alone.
        name: of the drawing, another one for each on the page.
    """
    truth, detections = _truth_boxes(entry), _detection_boxes(entry)
    size = entry["width"], entry["height"]
    first, again = _background(image, name)
    return Markup(
        f'<div class="pair"><div>{_drawing(size, truth, first)}<small>Truth: '
        f"{_number(len(truth), 'object')}, {entry['misses']} missed</small></div>"
        f"<div>{_drawing(size, detections, again)}<small>Detected: "
        f"{_told(entry, detections)}</small></div></div>"
    )


def two_models(
    entries: Sequence[Mapping[str, Any]], titles: Sequence[str], image: str | None, name: str
) -> Markup:
    """Draw what two models detected in one image, side by side, with the objects each missed.

    Args:
        entries: of each model, from `mimdet.report.worst_images.describe_image`.
        titles: their names.
        image: see `truth_and_detections`.
        name: likewise.
    """
    panels = []
    for entry, title, background in zip(entries, titles, _background(image, name), strict=True):
        detections = _detection_boxes(entry)
        missed = [
            box._replace(label=f"missed: {box.label}")
            for box in _truth_boxes(entry)
            if box.style == _WRONG
        ]
        drawing = _drawing((entry["width"], entry["height"]), [*detections, *missed], background)
        panels.append(
            f"<div>{drawing}<small>{html.escape(title)}: {_told(entry, detections)}, "
            f"{entry['misses']} missed</small></div>"
        )
    return Markup(f'<div class="pair">{"".join(panels)}</div>')


def _truth_boxes(entry: Mapping[str, Any]) -> list[_Box]:
    return [
        _Box(
            object_["box"],
            object_["class"],
            _IGNORED if object_["is_crowd"] else _WRONG if object_["is_missed"] else _RIGHT,
            "missed" if object_["is_missed"] else "",
        )
        for object_ in entry["truth"]
    ]


def _detection_boxes(entry: Mapping[str, Any]) -> list[_Box]:
    return [
        _Box(
            found["box"],
            f"{found['class']} {found['score']:.2f}",
            found["kind"] if found["kind"] in (_RIGHT, _IGNORED) else _WRONG,
            MISTAKES.get(found["kind"], found["kind"]),
        )
        for found in entry["detections"]
    ]


def _background(image: str | None, name: str) -> tuple[str, str]:
    """An image for a first drawing, and for a second one without its bytes once more."""
    if not image:
        return "", ""
    whole = f'<image id="{name}" href="{image}" width="100%" height="100%"/>'
    return whole, f'<use href="#{name}"/>'


def _told(entry: Mapping[str, Any], detections: list[_Box]) -> str:
    """The number of detections, and how many are false alarms of which kind."""
    kinds = Counter(box.kind for box in detections if box.style == _WRONG)
    told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    alarms = _number(entry["false_alarms"], "false alarm")
    return f"{len(detections)}, {alarms}{f' ({told})' if told else ''}"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _drawing(size: tuple[int, int], boxes: list[_Box], image: str) -> str:
    width, height = size
    scale = _WIDTH / max(width, 1)
    parts = [image or '<rect class="blank" width="100%" height="100%"/>']
    # Mistakes last, so that nothing hides them.
    for box in sorted(boxes, key=lambda box: box.style == _WRONG):
        x0, y0, x1, y1 = (scale * side for side in box.corners)
        place = f'x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}"'
        label = html.escape(box.label)
        told = f"<title>{label} {html.escape(box.kind)}</title>"
        parts.append(f'<g>{told}<rect class="under" {place}/><rect class="{box.style}" {place}/>')
        if box.style == _WRONG or len(boxes) <= _LABELLED:
            # Inside its box, or below the upper edge of the image.
            x, y = max(x0, 0) + 3, max(y0, 0) + 12
            parts.append(f'<text class="{box.style}" x="{x:.1f}" y="{y:.1f}">{label}</text>')
        parts.append("</g>")
    return (
        f'<svg class="boxes" viewBox="0 0 {_WIDTH} {scale * height:.1f}" role="img">'
        f"{''.join(parts)}</svg>"
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file; none if it is damaged: that costs pictures, not the page."""
    try:
        # Pickles, which would run code of whoever wrote the file, are refused by default.
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return {}


def kept_tokens(path: Path) -> list[dict[str, Any]]:
    """Images of ``kept_tokens_*.npz`` with what the encoder did not see greyed.

    Returns:
        Of each image ``picture``, a data URI, and ``share`` of its tokens that were kept.
    """
    drawn, arrays = [], _arrays(path)
    for k in range(sum(name.startswith("image_") for name in arrays)):
        image, kept = arrays[f"image_{k}"], arrays[f"kept_{k}"]
        height, width = image.shape[:2]
        rows, columns = arrays[f"tokens_{k}"]
        # The token in which each row and column of pixels lies. What is beyond the image pads.
        of_row = (np.arange(height) * rows / height).astype(int)
        of_column = (np.arange(width) * columns / width).astype(int)
        real = kept[: int(np.ceil(rows)), : int(np.ceil(columns))]
        seen = kept[np.ix_(of_row, of_column)]
        picture = _shown(_greyed(image, ~seen))
        drawn.append({"picture": picture, "share": float(real.mean())})
    return drawn


def _greyed(image: np.ndarray, hidden: np.ndarray, strength: float = 0.85) -> np.ndarray:
    """(H, W, 3) uint8 with grey laid over what `hidden` (H, W) marks."""
    grey = image * (1 - strength) + 128 * strength
    return np.where(hidden[..., None], grey, image).astype(np.uint8)


def _shown(pixels: np.ndarray, side: int = 320) -> str:
    """Pixels as a data URI; small ones enlarged, so that their edges stay sharp."""
    picture = Image.fromarray(pixels)
    factor = max(1, side // max(picture.size))
    if factor > 1:
        picture = picture.resize([factor * s for s in picture.size], Image.Resampling.NEAREST)
    return data_uri(picture)


def reconstruction_strips(paths: list[Path]) -> list[tuple[str, str]]:
    """What a masked autoencoder made of some images, as rows of pictures.

    Args:
        paths: of ``reconstructions_ITERATION.npz``, the oldest first.

    Returns:
        (title, data URI): the images, what the encoder sees, then each reconstruction.
    """
    strips = []
    for path in paths:
        if not (arrays := _arrays(path)):
            continue
        if not strips:
            images, removed = arrays["images"], arrays["removed"]
            strips.append(("The images", _strip(images)))
            strips.append(("What the encoder sees", _strip(_greyed(images, removed, 1.0))))
        iteration = int(path.stem.rpartition("_")[2]) + 1  # they are counted from 0 in names
        strips.append((f"After iteration {iteration}", _strip(arrays["reconstructions"])))
    return strips


def _strip(images: np.ndarray, side: int = 160) -> str:
    """(N, H, W, 3) uint8 -> one picture, side by side with gaps."""
    pictures = [Image.fromarray(image).resize((side, side)) for image in images]
    strip = Image.new("RGB", ((side + 4) * len(pictures) - 4, side), "white")
    for k, picture in enumerate(pictures):
        strip.paste(picture, (k * (side + 4), 0))
    return data_uri(strip)
