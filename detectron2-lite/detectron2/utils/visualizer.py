"""Boxes, masks and labels drawn on an image, with Pillow alone."""

import os
from collections.abc import Sequence
from enum import Enum, unique
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    Instances,
    PolygonMasks,
    ROIMasks,
    polygons_to_bitmask,
)
from detectron2.structures.masks import compressed_rle
from detectron2.utils.drawing import Color, distinct_color, rgb, rgba, text_labels, text_tile

__all__ = ["ColorMode", "VisImage", "Visualizer"]

_SMALL_AREA = 1000  # square pixels; a label would cover an object as small as this
_SMALL_HEIGHT = 40


@unique
class ColorMode(Enum):
    """How instances are coloured."""

    IMAGE = 0
    """Every instance has a colour of its own."""
    SEGMENTATION = 1
    """Instances of a class have nearly the same colour, from `metadata.thing_colors`."""
    IMAGE_BW = 2
    """As IMAGE, and the image is grey where there is no mask."""


class VisImage:
    """An image that is being drawn on.

    Args:
        img: (H, W, 3) RGB, uint8.
        scale: size of the picture in sizes of the image.
    """

    def __init__(self, img: np.ndarray, scale: float = 1.0) -> None:
        self.img = img
        self.scale = scale
        self.height, self.width = img.shape[:2]
        # the hundredth saves the last pixel of products such as 0.29 * 100
        size = [max(1, int(side * scale + 0.01)) for side in (self.width, self.height)]
        self.canvas = Image.fromarray(img).resize(size, Image.Resampling.BILINEAR)

    def get_image(self) -> np.ndarray:
        """A copy of the picture, (H * scale, W * scale, 3) RGB, uint8."""
        return np.array(self.canvas)

    def save(self, filepath: str | os.PathLike) -> None:
        """Write the picture; the file name's ending gives the format."""
        self.canvas.save(filepath)


class Visualizer:
    """Draws detections or annotations. Every method returns the picture as far as it is drawn.

    Coordinates are in pixels of the image, whatever the scale of the picture.

    Args:
        img_rgb: (H, W, 3) RGB in [0, 255].
        metadata: of the dataset; gives `thing_classes` for labels and `thing_colors`.
        scale: size of the picture in sizes of the image.
        instance_mode: how instances are coloured.
        font_size_scale: factor of the size of labels.

    Raises:
        ValueError: `img_rgb` has another shape.
    """

    def __init__(
        self,
        img_rgb: np.ndarray,
        metadata: Any = None,
        scale: float = 1.0,
        instance_mode: ColorMode = ColorMode.IMAGE,
        font_size_scale: float = 1.0,
    ) -> None:
        self.img = np.asarray(img_rgb).clip(0, 255).astype(np.uint8)
        if self.img.ndim != 3 or self.img.shape[2] != 3:
            raise ValueError(f"img_rgb must be (H, W, 3) in RGB, got shape {self.img.shape}")
        self.metadata = metadata
        self.output = VisImage(self.img, scale)
        self._instance_mode = instance_mode
        side = (self.output.height * self.output.width) ** 0.5
        # Upstream's rule, in points.
        self._font_size = max(side // 90, 10 // scale) * font_size_scale
        self._line_width = max(1, round(max(self._font_size / 4, 1) * scale))
        self._num_colors = 0
        self._jitter = np.random.default_rng(0)  # leaves the random numbers of a training alone

    def get_output(self) -> VisImage:
        """The picture as far as it is drawn."""
        return self.output

    def draw_instance_predictions(self, predictions: Instances, jittering: bool = True) -> VisImage:
        """Draw detections.

        Args:
            predictions: any of `pred_boxes`, `pred_classes`, `scores` and `pred_masks`, (N, H, W)
                bool in the size of the image, or ROIMasks.
            jittering: whether instances of a class differ a little in SEGMENTATION mode.
        """
        found = predictions.get_fields()
        classes = found["pred_classes"].tolist() if "pred_classes" in found else None
        names, scores = self._meta("thing_classes"), found.get("scores")
        masks = found.get("pred_masks")
        if isinstance(masks, ROIMasks):
            masks = masks.to_bitmasks(found["pred_boxes"], *self.img.shape[:2])
        if self._instance_mode is ColorMode.IMAGE_BW:
            self._grey_outside([] if masks is None else self._bitmaps(masks))
        return self.overlay_instances(
            boxes=found.get("pred_boxes"),
            labels=text_labels(classes, scores, names),
            masks=masks,
            assigned_colors=self._class_colors(classes, jittering),
            alpha={ColorMode.SEGMENTATION: 0.8, ColorMode.IMAGE_BW: 0.3}.get(
                self._instance_mode, 0.5
            ),
        )

    def draw_dataset_dict(self, dic: dict[str, Any]) -> VisImage:
        """Draw the annotations of an image, crowds among them.

        Args:
            dic: standard dataset dict whose `annotations` are in pixels of the image.
        """
        annos = dic.get("annotations", [])
        if not annos:
            return self.output
        classes = [anno["category_id"] for anno in annos]
        boxes = [
            BoxMode.convert(anno["bbox"], anno["bbox_mode"], BoxMode.XYXY_ABS) for anno in annos
        ]
        crowd = [anno.get("iscrowd", 0) for anno in annos]
        has_masks = all("segmentation" in anno for anno in annos)
        return self.overlay_instances(
            boxes=boxes,
            labels=text_labels(classes, None, self._meta("thing_classes"), crowd),
            masks=[anno["segmentation"] for anno in annos] if has_masks else None,
            assigned_colors=self._class_colors(classes, jittering=True),
        )

    def overlay_instances(
        self,
        *,
        boxes: Boxes | np.ndarray | Tensor | Sequence | None = None,
        labels: Sequence[str] | None = None,
        masks: BitMasks | PolygonMasks | np.ndarray | Tensor | Sequence | None = None,
        keypoints: None = None,
        assigned_colors: Sequence[Color] | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw N instances, large ones below small ones and labels above all.

        Args:
            boxes: (N, 4) corners x0, y0, x1, y1.
            labels: N texts.
            masks: (N, H, W) nonzero inside, or per instance polygons, an RLE dict or such a mask.
            keypoints: must be None.
            assigned_colors: N colours; by default every instance gets a new one.
            alpha: opacity of masks, 0 to 1.

        Raises:
            NotImplementedError: for keypoints.
            ValueError: masks have another shape, or the arguments differ in length.
            AssertionError: boxes have another shape.
        """
        if keypoints is not None:
            raise NotImplementedError(
                "keypoints are not part of detectron2-lite; install upstream Detectron2 for them"
            )
        corners = None if boxes is None else _corners(boxes)
        bitmaps = None if masks is None else self._bitmaps(masks)
        given = dict(boxes=corners, masks=bitmaps, labels=labels, assigned_colors=assigned_colors)
        lengths = {name: len(values) for name, values in given.items() if values is not None}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"boxes, masks, labels and colours must be as many, got {lengths}")
        count = max(lengths.values(), default=0)
        colors = self._new_colors(count) if assigned_colors is None else assigned_colors
        order = np.argsort(-_areas(corners, bitmaps, count), kind="stable")
        for i in order:
            if bitmaps is not None:
                self.draw_binary_mask(bitmaps[i], colors[i], alpha=alpha, area_threshold=0)
            if corners is not None:
                self.draw_box(corners[i], edge_color=colors[i])
        for i in order if labels is not None else []:
            if corners is not None:
                place = self._label_corner(corners[i])
                self.draw_text(labels[i], place, color=colors[i], horizontal_alignment="left")
            elif bitmaps is not None and bitmaps[i].any():
                self.draw_text(labels[i], _middle(bitmaps[i]), color=colors[i])
        return self.output

    def draw_box(
        self,
        box_coord: Sequence[float],
        alpha: float = 0.5,
        edge_color: Color = "g",
        line_style: str = "-",
    ) -> VisImage:
        """Draw the outline of a box.

        Args:
            box_coord: x0, y0, x1, y1.
            alpha: opacity, 0 to 1.
            edge_color: colour of the line.
            line_style: for upstream's calls; lines are always solid.
        """
        x0, y0, x1, y1 = (float(v) * self.output.scale for v in box_coord)
        if x1 >= x0 and y1 >= y0:
            self._pen().rectangle(
                (x0, y0, x1, y1), outline=rgba(edge_color, alpha), width=self._line_width
            )
        return self.output

    def draw_text(
        self,
        text: str,
        position: Sequence[float],
        *,
        font_size: float | None = None,
        color: Color = "g",
        horizontal_alignment: str = "center",
        rotation: float = 0,
    ) -> VisImage:
        """Write on a dark ground; a text that would leave the picture is moved inside.

        Args:
            text: what to write.
            position: x and y of the upper side of the text.
            font_size: in points of the image; by default from the size of the image.
            color: mixed with white, to be read well.
            horizontal_alignment: which part of the text is at x: "left", "center" or "right".
            rotation: in degrees, counter-clockwise.

        Raises:
            KeyError: unknown alignment.
        """
        tile = text_tile(text, (font_size or self._font_size) * self.output.scale, color)
        if rotation:
            tile = tile.rotate(rotation, Image.Resampling.BICUBIC, expand=True)
        canvas = self.output.canvas
        x, y = (float(v) * self.output.scale for v in position)
        x -= {"left": 0.0, "center": 0.5, "right": 1.0}[horizontal_alignment] * tile.width
        corner = (
            int(max(0, min(x, canvas.width - tile.width))),
            int(max(0, min(y, canvas.height - tile.height))),
        )
        # The second time as the mask, which is its own opacity.
        canvas.paste(tile, corner, tile)
        return self.output

    def draw_polygon(
        self, segment: np.ndarray, color: Color, edge_color: Color | None = None, alpha: float = 0.5
    ) -> VisImage:
        """Fill a polygon.

        Args:
            segment: (n, 2) points x, y.
            color: of the inside.
            edge_color: of the outline; by default `color`.
            alpha: opacity of the inside, 0 to 1.
        """
        points = (np.asarray(segment, dtype=float).reshape(-1, 2) * self.output.scale).tolist()
        self._pen().polygon(
            [tuple(point) for point in points],
            fill=rgba(color, alpha),
            outline=rgba(edge_color or color, 1.0),
        )
        return self.output

    def draw_binary_mask(
        self,
        binary_mask: np.ndarray,
        color: Color | None = None,
        *,
        edge_color: Color | None = None,
        text: str | None = None,
        alpha: float = 0.5,
        area_threshold: float = 10,
    ) -> VisImage:
        """Fill a mask and draw its outline.

        Args:
            binary_mask: (H, W), nonzero inside, in the size of the image.
            color: of the inside; by default a new one.
            edge_color: of the outline; by default `color`.
            text: written in the middle of the mask.
            alpha: opacity of the inside, 0 to 1.
            area_threshold: a mask of fewer pixels is not drawn.

        Raises:
            ValueError: the mask has not the size of the image.
        """
        bitmap = self._bitmap(binary_mask)
        if not bitmap.any() or bitmap.sum() < area_threshold:
            return self.output
        color = self._new_colors(1)[0] if color is None else color
        canvas, inside = self.output.canvas, self._scaled(bitmap)
        # A small mask may vanish in a smaller picture.
        left, top, right, bottom = inside.getbbox() or (0, 0, 1, 1)
        # one pixel of nothing around, so that an object at the border has its outline there too
        box = (left - 1, top - 1, right + 1, bottom + 1)
        inside = inside.crop(box)
        # What the mask loses when it is made thinner by a pixel is its outline.
        core = np.asarray(inside.filter(ImageFilter.MinFilter(3)))
        outline = Image.fromarray(np.asarray(inside) - core)
        canvas.paste(rgb(color), box, inside.point(lambda value: round(value * alpha)))
        canvas.paste(rgb(edge_color or color), box, outline)
        if text is not None:
            self.draw_text(text, _middle(bitmap), color=color)
        return self.output

    def draw_soft_mask(
        self,
        soft_mask: np.ndarray,
        color: Color | None = None,
        *,
        text: str | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Fill a mask, the more opaque the more probable a pixel is.

        Args:
            soft_mask: (H, W) probabilities in [0, 1], in the size of the image.
            color: by default a new one.
            text: written in the middle of what is more probable than not.
            alpha: opacity at probability 1, 0 to 1.

        Raises:
            ValueError: the mask has not the size of the image.
        """
        likely = self._bitmap(np.asarray(soft_mask) > 0.5)
        color = self._new_colors(1)[0] if color is None else color
        self.output.canvas.paste(rgb(color), (0, 0), self._scaled(np.clip(soft_mask, 0, 1) * alpha))
        if text is not None and likely.any():
            self.draw_text(text, _middle(likely), color=color)
        return self.output

    def _label_corner(self, corners: np.ndarray) -> tuple[float, float]:
        """The upper left corner of a box, or a corner outside of a small one."""
        x0, y0, x1, y1 = corners.tolist()
        scale = self.output.scale
        area, height = (x1 - x0) * (y1 - y0), y1 - y0
        if area >= _SMALL_AREA * scale and height >= _SMALL_HEIGHT * scale:
            return x0, y0
        # Below a small object; beside one that stands on the lower border.
        return (x1, y0) if y1 >= self.output.height - 5 else (x0, y1)

    def _grey_outside(self, bitmaps: Sequence[np.ndarray]) -> None:
        outside = ~np.any([np.zeros(self.img.shape[:2], dtype=bool), *bitmaps], axis=0)
        canvas = self.output.canvas
        canvas.paste(canvas.convert("L").convert("RGB"), (0, 0), self._scaled(outside))

    def _scaled(self, opacity: np.ndarray) -> Image.Image:
        """(H, W) numbers in [0, 1] in the size of the picture, as Pillow takes a mask."""
        # A mask times uint8 stays of one byte per pixel, and there may be hundreds of them.
        levels = (opacity * np.uint8(255)).round().astype(np.uint8)
        return Image.fromarray(levels).resize(self.output.canvas.size)

    def _bitmaps(self, masks: Any) -> list[np.ndarray]:
        """Masks of any accepted kind as (H, W) bool arrays."""
        masks = masks.tensor if isinstance(masks, BitMasks) else masks
        masks = masks.cpu().numpy() if isinstance(masks, Tensor) else masks
        return [self._bitmap(mask) for mask in masks]

    def _bitmap(self, mask: Any) -> np.ndarray:
        height, width = self.img.shape[:2]
        if isinstance(mask, dict):
            mask = mask_util.decode(compressed_rle(mask))
        elif isinstance(mask, list):
            mask = polygons_to_bitmask([np.asarray(polygon) for polygon in mask], height, width)
        bitmap = np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask) != 0
        if bitmap.shape != (height, width):
            raise ValueError(
                f"a mask must have the size of the image, {(height, width)}, got {bitmap.shape}"
            )
        return bitmap

    def _new_colors(self, count: int) -> list[Color]:
        """Colours that differ from each other and from those before them."""
        first = self._num_colors
        self._num_colors += count
        return [distinct_color(i) for i in range(first, first + count)]

    def _class_colors(self, classes: Sequence[int] | None, jittering: bool) -> list[Color] | None:
        """In SEGMENTATION mode the colour of each instance's class, if the metadata has them."""
        palette = self._meta("thing_colors")
        if self._instance_mode is not ColorMode.SEGMENTATION or not palette or classes is None:
            return None
        colors = np.array([palette[k] for k in classes], dtype=float).reshape(-1, 3) / 255
        if jittering:
            colors += self._jitter.uniform(-0.15, 0.15, colors.shape)
        return colors.clip(0, 1).tolist()

    def _meta(self, key: str) -> Any:
        return getattr(self.metadata, key, None)

    def _pen(self) -> ImageDraw.ImageDraw:
        """Draws half transparent colours onto what is there."""
        return ImageDraw.Draw(self.output.canvas, "RGBA")


def _corners(boxes: Boxes | np.ndarray | Tensor | Sequence) -> np.ndarray:
    if not isinstance(boxes, Boxes):
        boxes = Boxes(boxes if isinstance(boxes, Tensor) else np.asarray(boxes))
    return boxes.tensor.detach().cpu().numpy()


def _areas(
    corners: np.ndarray | None, bitmaps: Sequence[np.ndarray] | None, count: int
) -> np.ndarray:
    """(N,) areas of the boxes or else of the masks."""
    if corners is not None:
        return np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    # Labels alone have no area, and stay in order.
    return np.array([bitmap.sum() for bitmap in bitmaps or np.zeros(count)], dtype=float)


def _middle(bitmap: np.ndarray) -> tuple[float, float]:
    """Median x and y of the pixels of a mask."""
    y, x = np.nonzero(bitmap)
    return float(np.median(x)), float(np.median(y))
