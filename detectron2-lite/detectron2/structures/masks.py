from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from faster_coco_eval.mask_api_new_cpp import toUncompressedRLE
from torch import Tensor

from detectron2.layers.mask_ops import bitmask_as_runs, paste_masks_as_runs, paste_masks_in_image
from detectron2.layers.roi_align import ROIAlign
from detectron2.structures.boxes import Boxes, TensorRows, as_index, moved
from detectron2.utils.memory import retry_if_cuda_oom

Polygons = Sequence[np.ndarray]

# A crop needs float32 copies of full-size masks, four times their memory: made for this many
# masks at a time.
_CROP_CHUNK = 32


# C code counts fifths of pixels by 32-bit integers, and reserves memory for each on an outline.
_FARTHEST = 1e8
_LONGEST = 2e7


def is_too_far(polygon: np.ndarray) -> bool:
    """Whether rasterising a polygon could end the process: it reaches too far, or is not finite.

    Args:
        polygon: flat array x0, y0, x1, y1, ... in pixels.
    """
    points = polygon.reshape(-1, 2)
    if not np.abs(points).max() <= _FARTHEST:  # so that it holds for NaN as well
        return True
    # pycocotools sets max(|dx|, |dy|) points on an edge, five for each pixel.
    steps = np.abs(np.diff(points, axis=0, append=points[:1]))
    return bool(steps.max(axis=1).sum() > _LONGEST)


def polygons_to_bitmask(polygons: Polygons, height: int, width: int) -> np.ndarray:
    """Rasterise the union of polygons.

    Args:
        polygons: flat arrays x0, y0, x1, y1, ... in absolute pixels.
        height: of the result.
        width: of the result.

    Returns:
        (height, width) bool; all False without polygons.

    Raises:
        ValueError: if a coordinate is too far away, or is not finite.
    """
    return _rasterize([polygons], height, width)[0]


def _rasterize(instances: Sequence[Polygons], height: int, width: int) -> np.ndarray:
    """(N, height, width) bool, one mask per instance, decoded in one call."""
    masks = np.zeros((len(instances), height, width), dtype=bool)
    drawn = [i for i, polygons in enumerate(instances) if len(polygons) > 0]
    if drawn:
        _check_reach(instances, height, width)
        rles = [
            mask_util.merge(mask_util.frPyObjects(list(instances[i]), height, width)) for i in drawn
        ]
        masks[drawn] = mask_util.decode(rles).transpose(2, 0, 1)  # (H, W, n) -> (n, H, W)
    return masks


def _check_reach(instances: Sequence[Polygons], height: int, width: int) -> None:
    polygons = [np.asarray(polygon) for instance in instances for polygon in instance]
    # An outline is no longer than this: so nearly always one look at all of them is enough.
    # 2n numbers are n points, and so n edges of at most twice the largest coordinate.
    if np.abs(np.concatenate(polygons)).max() * max(map(len, polygons)) <= _LONGEST:
        return
    for index, instance in enumerate(instances):
        for polygon in instance:
            if is_too_far(np.asarray(polygon)):
                raise ValueError(
                    f"a polygon of instance {index} reaches from {np.min(polygon):g} to "
                    f"{np.max(polygon):g} in a mask of {height} x {width} pixels, too far to be "
                    "rasterised; correct its coordinates"
                )


def compressed_rle(rle: dict[str, Any]) -> dict[str, Any]:
    """An RLE whose `counts` are text or bytes; they may be a list of run lengths before."""
    return mask_util.frPyObjects(rle, *rle["size"]) if isinstance(rle["counts"], list) else rle


def run_lengths(rle: dict[str, Any]) -> np.ndarray:
    """(R,) int64 numbers of pixels that are off, on, off, ... in an RLE of either form.

    Args:
        rle: its `counts` are text, bytes or a list.

    Raises:
        RuntimeError, TypeError, ValueError: if they are damaged. A sum that is too small is not
            found.
    """
    counts = rle["counts"]
    if not isinstance(counts, list):
        counts = toUncompressedRLE([rle])[0]["counts"]
    return np.array(counts, dtype=np.int64)


class BitMasks(TensorRows):
    """Instance masks as bitmaps of the whole image.

    Args:
        tensor: (N, H, W) tensor or array, nonzero where a pixel belongs to the instance.

    Raises:
        AssertionError: for another number of dimensions.
    """

    def __init__(self, tensor: Tensor | np.ndarray) -> None:
        tensor = torch.as_tensor(tensor).to(torch.bool)
        assert tensor.dim() == 3, f"bit masks must be (N, H, W), got {tuple(tensor.shape)}"
        self.tensor = tensor
        self.image_size = (tensor.shape[1], tensor.shape[2])

    def to(self, *args: Any, **kwargs: Any) -> "BitMasks":
        """New masks whose tensor went through `torch.Tensor.to`."""
        return BitMasks(moved(self.tensor, *args, **kwargs))

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)}, image_size={self.image_size})"

    def nonempty(self) -> Tensor:
        """(N,) bool, True where a mask has a pixel."""
        return self.tensor.flatten(1).any(dim=1)

    @staticmethod
    def from_polygon_masks(
        polygon_masks: "PolygonMasks | list[list[np.ndarray]]", height: int, width: int
    ) -> "BitMasks":
        """Rasterise polygons on an image of the given size.

        Args:
            polygon_masks: the polygons of N instances.
            height: of the image.
            width: of the image.
        """
        if isinstance(polygon_masks, PolygonMasks):
            polygon_masks = polygon_masks.polygons
        return BitMasks(torch.from_numpy(_rasterize(polygon_masks, height, width)))

    def get_bounding_boxes(self) -> Boxes:
        """The tight box of each mask, on the CPU; zeros for an empty mask."""
        columns, rows = self.tensor.any(dim=1), self.tensor.any(dim=2)  # (N, W), (N, H)
        (x0, x1), (y0, y1) = _first_and_end(columns), _first_and_end(rows)
        return Boxes(torch.stack([x0, y0, x1, y1], dim=1).cpu())

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Crop each mask by its own box and resize the crop to a square.

        Args:
            boxes: (N, 4) in absolute pixels.
            mask_size: side S of the results.

        Returns:
            (N, S, S) bool on the device of the masks.

        Raises:
            AssertionError: if there is not one box per mask.
        """
        _assert_one_box_per_mask(boxes, self)
        if len(self) == 0:
            return torch.empty((0, mask_size, mask_size), dtype=torch.bool, device=self.device)
        # As many samples as a cell has pixels; from a mean of one half on, the cell belongs to the
        # mask.
        roi_align = ROIAlign((mask_size, mask_size), 1.0, sampling_ratio=0, aligned=True)
        crops = []
        boxes = boxes.to(device=self.device, dtype=torch.float32)
        for masks, rois in zip(
            self.tensor.split(_CROP_CHUNK), boxes.split(_CROP_CHUNK), strict=True
        ):
            index = torch.arange(len(rois), device=self.device, dtype=torch.float32)
            rois = torch.cat([index[:, None], rois], dim=1)  # (n, 5), box i on mask i
            crops.append(roi_align(masks[:, None].float(), rois)[:, 0] >= 0.5)
        return torch.cat(crops)

    @staticmethod
    def cat(bitmasks_list: Sequence["BitMasks"]) -> "BitMasks":
        """Join masks of one image size.

        Raises:
            AssertionError: for an empty list or something that is not `BitMasks`.
        """
        _assert_list_of(BitMasks, bitmasks_list)
        return BitMasks(torch.cat([masks.tensor for masks in bitmasks_list], dim=0))

    def to_rle(self) -> list[dict[str, Any]]:
        """N dicts with `size` [height, width] and `counts` in bytes; masks on the CPU.

        They are those of `pycocotools.mask.encode`, in about a quarter of its time where masks
        are smaller than their image.
        """
        return _rles([bitmask_as_runs(mask) for mask in self.tensor.numpy()], *self.image_size)


def _first_and_end(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """Per row of (N, L) bools the first True and one past the last; 0 and 0 without any."""
    length = occupied.shape[1]
    position = torch.arange(length, device=occupied.device)
    first = torch.where(occupied, position, length).amin(dim=1)
    end = torch.where(occupied, position + 1, 0).amax(dim=1)
    return torch.where(end > 0, first, 0), end


class PolygonMasks:
    """Instance masks as polygons, one or more per instance; always on the CPU.

    Args:
        polygons: per instance a list of polygons, each a flat array or tensor x0, y0, x1, y1, ...
            in absolute pixels. An instance may have none.

    Raises:
        ValueError: if a list is something else, or a polygon has an odd number of coordinates or
            less than three points.
    """

    def __init__(self, polygons: list[list[Tensor | np.ndarray]]) -> None:
        if not isinstance(polygons, list):
            raise ValueError(
                "polygons must be a list with one list of polygons per instance, "
                f"got {type(polygons).__name__}"
            )
        self._all = [_checked_polygons(p, index) for index, p in enumerate(polygons)]
        self._chosen: Tensor | None = None  # (N,) positions among `_all`; None for all of them

    @property
    def polygons(self) -> list[list[np.ndarray]]:
        """Per instance a list of flat float64 arrays."""
        if self._chosen is None:
            return self._all
        return [self._all[i] for i in self._chosen.tolist()]

    def to(self, *args: Any, **kwargs: Any) -> "PolygonMasks":
        """The masks themselves: polygons stay on the CPU."""
        return self

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return torch.device("cpu")

    def __len__(self) -> int:
        return len(self._all if self._chosen is None else self._chosen)

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """Yield the list of polygons of each instance."""
        return iter(self.polygons)

    def __getitem__(self, item: Any) -> "PolygonMasks":
        """Select instances.

        Args:
            item: an index, a slice, a list of indices, or a tensor or array of indices or bools.

        Raises:
            ValueError: for anything else.
        """
        index = as_index(item)
        if index is not None:
            return self._of([self.polygons[index]])
        # Rows on a device are not read yet: the host would wait for the sampling that makes them.
        # Bools must be, or the number of instances would not be known.
        if isinstance(item, Tensor) and item.device.type != "cpu" and item.dtype == torch.int64:
            return self._choose(item)
        if isinstance(item, slice) and self._chosen is not None:
            return self._choose(item)
        item = item.cpu().numpy() if isinstance(item, Tensor) else item
        try:
            positions = np.arange(len(self))[item]  # by the rules of numpy, which are torch's
        except IndexError as e:
            raise ValueError(f"{len(self)} polygon masks cannot be indexed by {item!r}: {e}") from e
        return self._of([self.polygons[i] for i in positions])

    @staticmethod
    def _of(polygons: list[list[np.ndarray]]) -> "PolygonMasks":
        """Masks of polygons that have been checked."""
        masks = PolygonMasks([])
        masks._all = polygons
        return masks

    def _choose(self, positions: Tensor | slice) -> "PolygonMasks":
        """The instances at (n,) positions on a device, read when somebody needs the polygons."""
        chosen = self._of(self._all)
        chosen._chosen = positions if self._chosen is None else self._chosen[positions]
        return chosen

    def __repr__(self) -> str:
        return f"PolygonMasks(num_instances={len(self)})"

    def nonempty(self) -> Tensor:
        """(N,) bool, True where an instance has a polygon."""
        return torch.tensor([len(polygons) > 0 for polygons in self.polygons], dtype=torch.bool)

    def area(self) -> Tensor:
        """(N,) float64 sums of the areas of the polygons in square pixels.

        Overlaps count twice, holes are not subtracted.
        """
        areas = [
            sum(polygon_area(p[0::2], p[1::2]) for p in polygons) for polygons in self.polygons
        ]
        return torch.tensor(areas, dtype=torch.float64)

    def get_bounding_boxes(self) -> Boxes:
        """The tight box of each instance, on the CPU.

        As in upstream Detectron2 the maxima are at least 0, and an instance without polygons has
        the box [inf, inf, 0, 0].
        """
        boxes = torch.zeros(len(self), 4)
        boxes[:, :2] = torch.inf
        for box, polygons in zip(boxes, self.polygons, strict=True):
            for polygon in polygons:
                points = torch.from_numpy(polygon.reshape(-1, 2)).float()  # (points, 2)
                box[:2] = torch.minimum(box[:2], points.amin(dim=0))
                box[2:] = torch.maximum(box[2:], points.amax(dim=0))
        return Boxes(boxes)

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Rasterise each instance on a square grid laid over its own box.

        Args:
            boxes: (N, 4) in absolute pixels. Sides count as at least 0.1 pixel.
            mask_size: side S of the results.

        Returns:
            (N, S, S) bool on the device of `boxes`.

        Raises:
            AssertionError: if there is not one box per instance.
            ValueError: if a coordinate is too far from its box, or is not finite.
        """
        _assert_one_box_per_mask(boxes, self)
        # The scale is computed in float32 and applied in float64, like upstream Detectron2 does.
        boxes = boxes.detach()
        if self._chosen is None:
            corners, polygons_of = boxes.cpu().numpy(), self._all
        else:  # one transfer of both; positions are below 2^24, so float32 holds them exactly
            dtype = torch.promote_types(boxes.dtype, torch.float32)
            chosen = self._chosen.to(boxes.device)[:, None]
            both = torch.cat([boxes.to(dtype), chosen], dim=1).cpu()
            corners = both[:, :4].to(boxes.dtype).numpy()
            polygons_of = [self._all[int(i)] for i in both[:, 4].tolist()]
        sides = np.maximum(corners[:, 2:] - corners[:, :2], 0.1)
        scaled = [
            [_scale_polygon(polygon, origin, mask_size / side) for polygon in polygons]
            for polygons, origin, side in zip(polygons_of, corners[:, :2], sides, strict=True)
        ]
        masks = torch.from_numpy(_rasterize(scaled, mask_size, mask_size))
        return masks.to(boxes.device, non_blocking=boxes.is_cuda)

    @staticmethod
    def cat(polymasks_list: Sequence["PolygonMasks"]) -> "PolygonMasks":
        """Join masks.

        Raises:
            AssertionError: for an empty list or something that is not `PolygonMasks`.
        """
        _assert_list_of(PolygonMasks, polymasks_list)
        if any(masks._chosen is None for masks in polymasks_list):
            return PolygonMasks([polygons for masks in polymasks_list for polygons in masks])
        joined, chosen = PolygonMasks([]), []
        for masks in polymasks_list:
            start = len(joined._all)
            chosen.append(masks._chosen + start if start else masks._chosen)
            joined._all = joined._all + masks._all
        joined._chosen = torch.cat(chosen)
        return joined


def _checked_polygons(polygons: Any, index: int) -> list[np.ndarray]:
    """The polygons of instance `index` as float64 arrays."""
    if not isinstance(polygons, list):
        raise ValueError(
            f"the polygons of an instance must be a list, got {type(polygons).__name__} "
            f"(instance {index})"
        )
    arrays = [
        np.asarray(p.cpu() if isinstance(p, Tensor) else p, dtype=np.float64) for p in polygons
    ]
    for array in arrays:
        if array.ndim != 1 or array.size % 2 != 0 or array.size < 6:
            raise ValueError(
                f"Cannot create a polygon from {array.size} coordinates of shape {array.shape} "
                f"(instance {index}); it must be x0, y0, x1, y1, ... with at least 3 points"
            )
    return arrays


def rasterize_polygons_within_box(
    polygons: Polygons, box: np.ndarray | Tensor, mask_size: int
) -> Tensor:
    """Rasterise the polygons of one instance, see `PolygonMasks.crop_and_resize`.

    Args:
        polygons: flat arrays x0, y0, x1, y1, ... in absolute pixels.
        box: (4,) in absolute pixels.
        mask_size: side S of the result.

    Returns:
        (S, S) bool.
    """
    boxes = torch.as_tensor(box, dtype=torch.float32)[None]
    return PolygonMasks([list(polygons)]).crop_and_resize(boxes, mask_size)[0]


def polygon_area(x: np.ndarray, y: np.ndarray) -> float:
    """Area of the polygon with corners (x, y), each (n,), by the shoelace formula."""
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))


def _scale_polygon(polygon: np.ndarray, origin: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """`polygon` with its points moved by -`origin` and multiplied by `scale`, both (2,)."""
    return ((polygon.reshape(-1, 2) - origin) * scale).reshape(-1)


class ROIMasks(TensorRows):
    """Instance masks in the frames of their boxes.

    Args:
        tensor: (N, M, M) probabilities.

    Raises:
        ValueError: for another number of dimensions.
    """

    def __init__(self, tensor: Tensor) -> None:
        if tensor.dim() != 3:
            raise ValueError(f"masks of regions must be (N, M, M), got {tuple(tensor.shape)}")
        self.tensor = tensor

    def to(self, device: torch.device | str) -> "ROIMasks":
        """The masks on `device`."""
        return ROIMasks(self.tensor.to(device))

    def __repr__(self) -> str:
        return f"ROIMasks(num_instances={len(self)})"

    def to_bitmasks(
        self, boxes: Boxes, height: int, width: int, threshold: float = 0.5
    ) -> BitMasks:
        """Paste the masks into an image; on the CPU if the GPU has not enough memory.

        Args:
            boxes: the N boxes of the masks, in absolute pixels of that image.
            height: of the image.
            width: of the image.
            threshold: least probability of a pixel that belongs to the instance.
        """
        paste = retry_if_cuda_oom(paste_masks_in_image)
        return BitMasks(paste(self.tensor, boxes.tensor, (height, width), threshold=threshold))

    def to_rle(
        self, boxes: Boxes, height: int, width: int, threshold: float = 0.5
    ) -> list[dict[str, Any]]:
        """Paste the masks into an image as run lengths, without its bitmaps; on the CPU.

        Args:
            boxes: the N boxes of the masks, in absolute pixels of that image.
            height: of the image.
            width: of the image.
            threshold: least probability of a pixel that belongs to the instance.

        Returns:
            N dicts with `size` [height, width] and `counts` in bytes, those that
            `pycocotools.mask.encode` makes of `to_bitmasks`.
        """
        runs = paste_masks_as_runs(self.tensor, boxes.tensor, (height, width), threshold)
        return _rles(runs, height, width)


def _rles(runs: list[np.ndarray], height: int, width: int) -> list[dict[str, Any]]:
    """Run lengths of N masks as compressed RLEs; pycocotools takes no empty list."""
    rles = [{"size": [height, width], "counts": counts} for counts in runs]
    return mask_util.frPyObjects(rles, height, width) if rles else []


def _assert_one_box_per_mask(boxes: Tensor, masks: BitMasks | PolygonMasks) -> None:
    assert len(boxes) == len(masks), (
        f"there must be one box per mask, got {len(boxes)} boxes and {len(masks)} masks"
    )


def _assert_list_of(kind: type, values: Any) -> None:
    assert (
        isinstance(values, (list, tuple))
        and len(values) > 0
        and all(isinstance(value, kind) for value in values)
    ), f"{kind.__name__}.cat needs a list of {kind.__name__} that is not empty, got {values!r}"
