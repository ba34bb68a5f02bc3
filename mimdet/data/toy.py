"""A small made-up dataset in COCO format and as label maps: textured shapes on clutter.

It stands in for COCO where no data can be had: four classes, several overlapping objects per
image annotated by the polygons of their visible parts, some crowds annotated by RLE, and images
without objects. Label maps, for semantic segmentation, have a class for the background, one for
disks and one for all other shapes, and crowds as pixels that do not count. The same arguments give
the same bytes.
"""

import json
import math
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as mask_util
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

CLASSES = ("disk", "box", "triangle", "star")
# The shapes with corners are one class: to tell them apart takes a segmentor without pretraining
# longer than the minutes that a toy may take.
SEM_SEG_CLASSES = ("background", "disk", "polygon")
IGNORED = 255  # label of pixels that do not count

_SIZES = ((96, 128), (128, 96), (112, 112), (120, 128))  # (height, width) in pixels
_SUPERSAMPLING = 4  # shapes are drawn this much larger and averaged, for smooth edges
_MIN_VISIBLE = 0.5  # share of an object that later ones must leave uncovered
_CROWD_EVERY = 8  # every eighth image holds a crowd
_EMPTY_EVERY = 25  # every 25th image holds no object


@dataclass(frozen=True)
class ToyDataset:
    """What a toy dataset is made from; two equal ones have the same bytes.

    Attributes:
        num_train: images of the training split.
        num_val: images of the validation split.
        seed: seeds everything random; any integer from 0.
    """

    num_train: int = 600
    num_val: int = 100
    seed: int = 0


def make_toy_dataset(root: str | os.PathLike, spec: ToyDataset = ToyDataset()) -> bool:
    """Write a toy dataset, unless the same one is already there.

    The folder gets ``train/*.jpg``, ``val/*.jpg``, ``annotations/instances_{train,val}.json``,
    ``sem_seg/{train,val}/*.png`` with labels of `SEM_SEG_CLASSES`, and ``toy.json`` with `spec`. It
    appears whole or not at all.

    Args:
        root: the folder to make.
        spec: size and seed.

    Returns:
        False if `root` already held this dataset and nothing was written.

    Raises:
        ValueError: if a split has no image or the seed is negative.
        FileExistsError: if `root` holds something else.
    """
    root = Path(root)
    if min(spec.num_train, spec.num_val) < 1:
        raise ValueError(f"a toy dataset needs at least one image per split, got {spec}")
    if spec.seed < 0:
        raise ValueError(f"the seed of a toy dataset must be at least 0, got {spec}")
    if root.exists():
        if _read_spec(root) == _content(spec):
            return False
        raise FileExistsError(
            f"{root} exists and is not the toy dataset {spec}, or one with other label maps; "
            "remove it or choose another folder"
        )
    # Beside `root`, because a rename is one step within a file system only.
    temporary = root.with_name(root.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "annotations").mkdir(parents=True)
    for split, num_images in (("train", spec.num_train), ("val", spec.num_val)):
        content = _make_split(temporary, split, num_images, [spec.seed, split == "val"])
        path = temporary / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(content))
    (temporary / "toy.json").write_text(json.dumps(_content(spec)))
    os.replace(temporary, root)
    return True


def make_labelled_image(seed: list[int], label: int, side: int = 128) -> np.ndarray:
    """A picture of one shape, for classification: (side, side, 3) uint8.

    Args:
        seed: numbers from 0; the same give the same picture.
        label: index of the shape in `CLASSES`.
        side: height and width in pixels.
    """
    rng = np.random.default_rng(seed)
    canvas = _background(rng, side, side)
    radius = rng.uniform(0.2, 0.4) * side
    center = rng.uniform(radius, side - radius, 2)
    outline = _outline(rng, CLASSES[label], center, radius)
    _paint(canvas, _coverage(outline, side, side), _texture(rng, side, side))
    return canvas.astype(np.uint8)


def _content(spec: ToyDataset) -> dict:
    # early datasets had no label maps, or others
    return {**asdict(spec), "label_maps": list(SEM_SEG_CLASSES)}


def _read_spec(root: Path) -> dict | None:
    path = root / "toy.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _make_split(root: Path, split: str, num_images: int, seed: list[int]) -> dict:
    """Write the images and label maps of one split and return its COCO dictionary."""
    folder, label_folder = root / split, root / "sem_seg" / split
    folder.mkdir()
    label_folder.mkdir(parents=True)
    images, annotations = [], []
    for index in range(num_images):
        rng = np.random.default_rng([*seed, index])  # an image does not depend on the others
        pixels, objects, labels = _make_image(rng, index)
        name = f"{index:06d}.jpg"
        Image.fromarray(pixels).save(folder / name, quality=95)
        Image.fromarray(labels).save(label_folder / f"{index:06d}.png")
        height, width = pixels.shape[:2]
        images.append(dict(id=index + 1, file_name=name, height=height, width=width))
        for annotation in objects:
            annotations.append(dict(annotation, id=len(annotations) + 1, image_id=index + 1))
    categories = [dict(id=k + 1, name=name) for k, name in enumerate(CLASSES)]
    return dict(images=images, annotations=annotations, categories=categories)


def _make_image(rng: np.random.Generator, index: int) -> tuple[np.ndarray, list[dict], np.ndarray]:
    """One image (height, width, 3) uint8, annotations of its objects, labels (height, width)."""
    height, width = _SIZES[rng.integers(len(_SIZES))]
    canvas = _background(rng, height, width)
    labels = np.zeros((height, width), dtype=np.uint8)  # background
    if index % _EMPTY_EVERY == _EMPTY_EVERY - 1:
        return canvas.astype(np.uint8), [], labels
    annotations = []
    if index % _CROWD_EVERY == _CROWD_EVERY - 1:
        annotations.append(_paint_crowd(rng, canvas, labels))
    shapes = _place_shapes(rng, height, width)
    for category, outline in shapes:
        coverage = _coverage(outline, height, width)
        _paint(canvas, coverage, _texture(rng, height, width))
        labels[coverage[:, :, 0] > 0.5] = 1 if CLASSES[category] == "disk" else 2
    for k, (category, outline) in enumerate(shapes):
        visible = _visible_part(outline, [later for _, later in shapes[k + 1 :]])
        annotations.append(_polygon_annotation(category, visible))
    return canvas.astype(np.uint8), annotations, labels


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A dim gradient with faint lines and blots and pixel noise, float (height, width, 3)."""
    corners = rng.uniform(40, 140, (2, 2, 3)).astype(np.uint8)
    gradient = Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(gradient)
    for _ in range(rng.integers(6, 14)):
        x0, y0, x1, y1 = rng.uniform(-10, 140, 4)
        color = tuple(rng.integers(30, 170, 3).tolist())
        draw.line((x0, y0, x1, y1), fill=color, width=int(rng.integers(1, 4)))
    for _ in range(rng.integers(4, 10)):
        x, y, radius = *rng.uniform(0, 130, 2), rng.uniform(1, 4)
        color = tuple(rng.integers(30, 170, 3).tolist())
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    noisy = np.asarray(gradient, dtype=np.float64) + rng.normal(0, 6, (height, width, 1))
    return noisy.clip(0, 255)


def _place_shapes(rng: np.random.Generator, height: int, width: int) -> list[tuple[int, Polygon]]:
    """(class index, outline) of 2 to 5 shapes, each in the picture and mostly visible."""
    shapes: list[tuple[int, Polygon]] = []
    wanted = rng.integers(2, 6)
    for _ in range(20):
        if len(shapes) == wanted:
            break
        category = int(rng.integers(len(CLASSES)))
        radius = rng.uniform(9, 30)
        center = rng.uniform(radius * 0.8, (width - radius * 0.8, height - radius * 0.8))
        outline = _outline(rng, CLASSES[category], center, radius)
        frame = Polygon([(0, 0), (width, 0), (width, height), (0, height)])
        outline = outline.intersection(frame)
        outlines = [*(o for _, o in shapes), outline]
        shares = [_visible_part(o, outlines[k + 1 :]).area / o.area for k, o in enumerate(outlines)]
        if isinstance(outline, Polygon) and min(shares) >= _MIN_VISIBLE:
            shapes.append((category, outline))
    return shapes


def _outline(rng: np.random.Generator, name: str, center: np.ndarray, radius: float) -> Polygon:
    """The outline of a shape of class `name` in pixels, rotated and stretched at random."""
    num_corners = {"disk": 32, "box": 4, "triangle": 3, "star": 10}[name]
    angles = np.arange(num_corners) * 2 * math.pi / num_corners
    radii = np.where(np.arange(num_corners) % 2, 0.45, 1.0) if name == "star" else 1.0
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.reshape(radii, (-1, 1))
    if name == "box":
        quarter = math.pi / 4
        points = points @ _rotation(quarter)  # sides along the axes, so that stretching keeps them
    points = points * [1.0, rng.uniform(0.65, 1.0)] @ _rotation(rng.uniform(0, 2 * math.pi))
    return Polygon(points * radius + center)


def _rotation(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _visible_part(outline: BaseGeometry, later: list[BaseGeometry]) -> BaseGeometry:
    for cover in later:
        outline = outline.difference(cover)
    return outline


def _coverage(outline: Polygon, height: int, width: int) -> np.ndarray:
    """Share of each pixel that lies inside, (height, width, 1) in [0, 1]."""
    scale = _SUPERSAMPLING
    mask = Image.new("L", (width * scale, height * scale))
    points = [(x * scale, y * scale) for x, y in outline.exterior.coords]
    ImageDraw.Draw(mask).polygon(points, fill=255)
    return np.asarray(mask.reduce(scale), dtype=np.float64)[:, :, None] / 255


def _paint(canvas: np.ndarray, coverage: np.ndarray, texture: np.ndarray) -> None:
    canvas += coverage * (texture - canvas)


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Stripes or checks of two related colours with a little noise, (height, width, 3)."""
    color = rng.uniform(90, 255, 3)
    other = np.clip(color + rng.uniform(-60, 60, 3), 0, 255)
    y, x = np.mgrid[:height, :width]
    angle, period = rng.uniform(0, math.pi), rng.uniform(4, 12)
    wave = np.sin((x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / period)
    if rng.random() < 0.5:
        wave = wave * np.sin((y * math.cos(angle) - x * math.sin(angle)) * 2 * math.pi / period)
    texture = np.where(wave[:, :, None] > 0, color, other)
    return (texture + rng.normal(0, 5, (height, width, 1))).clip(0, 255)


def _polygon_annotation(category: int, visible: BaseGeometry) -> dict:
    """COCO annotation by the outer rings of the visible parts (holes are not annotated)."""
    parts = [p for p in getattr(visible, "geoms", [visible]) if p.area >= 1]
    rings = [np.round(np.asarray(p.exterior.coords)[:-1], 2) for p in parts]
    corners = np.concatenate(rings)
    x0, y0 = corners.min(axis=0)
    x1, y1 = corners.max(axis=0)
    return dict(
        category_id=category + 1,
        bbox=[round(float(v), 2) for v in (x0, y0, x1 - x0, y1 - y0)],
        segmentation=[ring.reshape(-1).tolist() for ring in rings],
        area=round(sum(p.area for p in parts), 2),
        iscrowd=0,
    )


def _paint_crowd(rng: np.random.Generator, canvas: np.ndarray, labels: np.ndarray) -> dict:
    """Paint a heap of small disks and annotate it as one crowd region, by RLE."""
    height, width = canvas.shape[:2]
    center = rng.uniform(15, (width - 15, height - 15))
    region = np.zeros((height, width), dtype=np.uint8)
    for _ in range(12):
        outline = _outline(rng, "disk", center + rng.normal(0, 7, 2), 3.0)
        coverage = _coverage(outline, height, width)
        _paint(canvas, coverage, _texture(rng, height, width))
        region |= (coverage[:, :, 0] > 0.5).astype(np.uint8)
    labels[region > 0] = IGNORED
    rle = mask_util.encode(np.asfortranarray(region))
    return dict(
        category_id=CLASSES.index("disk") + 1,
        bbox=[float(v) for v in mask_util.toBbox(rle)],
        segmentation=dict(size=[height, width], counts=_uncompressed_counts(region)),
        area=float(mask_util.area(rle)),
        iscrowd=1,
    )


def _uncompressed_counts(region: np.ndarray) -> list[int]:
    """COCO's run lengths of a binary mask, column by column, starting with zeros."""
    flat = region.reshape(-1, order="F")
    # A mask that begins with a one has a change at 0: the run of no zeros that has to come first.
    changes = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
    return np.diff([0, *changes, flat.size]).tolist()
