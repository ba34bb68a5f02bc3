import operator
from collections.abc import Iterator, Sequence
from enum import IntEnum, unique
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from detectron2.utils.checks import assert_all
from detectron2.utils.memory import retry_if_cuda_oom

BoxLike = TypeVar("BoxLike", list, tuple, np.ndarray, Tensor)
Rows = TypeVar("Rows", bound="TensorRows")


@unique
class BoxMode(IntEnum):
    """What the numbers of a box mean. ABS is in pixels, REL in [0, 1] of the image size."""

    XYXY_ABS = 0
    """x0, y0, x1, y1."""
    XYWH_ABS = 1
    """x0, y0, width, height."""
    XYXY_REL = 2
    """x0, y0, x1, y1; named but not converted."""
    XYWH_REL = 3
    """x0, y0, width, height; named but not converted."""
    XYWHA_ABS = 4
    """Centre x and y, width, height, counter-clockwise degrees; named but not converted."""

    @staticmethod
    def convert(box: BoxLike, from_mode: "BoxMode", to_mode: "BoxMode") -> BoxLike:
        """Convert between XYXY_ABS and XYWH_ABS.

        Args:
            box: one box as a list or tuple, or (N, 4) boxes as an array or tensor.
            from_mode: what `box` is.
            to_mode: what is wanted.

        Returns:
            The boxes in the type of `box`; `box` itself if the modes are equal, else a copy. A
            list or tuple with a float comes back rounded to float32, as in upstream Detectron2.

        Raises:
            AssertionError: for a REL mode, which needs an image size, or not 4 numbers per box.
            NotImplementedError: for any other pair.
        """
        if from_mode == to_mode:
            return box
        relative = (BoxMode.XYXY_REL, BoxMode.XYWH_REL)
        from_mode, to_mode = BoxMode(from_mode), BoxMode(to_mode)
        assert from_mode not in relative and to_mode not in relative, (
            f"relative boxes cannot be converted, got {from_mode.name} to {to_mode.name}; "
            "multiply by the image size first"
        )
        if BoxMode.XYWHA_ABS in (from_mode, to_mode):
            raise NotImplementedError(
                f"only XYXY_ABS and XYWH_ABS can be converted to each other, "
                f"got {from_mode.name} to {to_mode.name}"
            )
        boxes = box.clone() if isinstance(box, Tensor) else _as_array(box)
        assert boxes.shape[-1:] == (4,), f"a box must be 4 numbers, got {box!r}"
        if to_mode == BoxMode.XYXY_ABS:
            boxes[..., 2:] += boxes[..., :2]
        else:
            boxes[..., 2:] -= boxes[..., :2]
        return type(box)(boxes.tolist()) if isinstance(box, (list, tuple)) else boxes


def _as_array(box: list | tuple | np.ndarray) -> np.ndarray:
    """A copy in the type that `torch.tensor` takes, in which a single box needs more time."""
    array = np.array(box)
    if isinstance(box, np.ndarray) or any(isinstance(number, np.float64) for number in box):
        return array
    # torch makes float32 of Python's floats, but keeps the float64 of numpy's numbers.
    return array.astype(np.float32) if array.dtype == np.float64 else array


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """`tensor` on `device`; nobody waits for a copy to a GPU, whose later work comes after it."""
    return tensor.to(device=device, non_blocking=torch.device(device).type == "cuda")


def moved(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`tensor.to(...)`; where that names a device alone, nobody waits, see `send`."""
    is_device = len(args) == 1 and not kwargs and isinstance(args[0], str | torch.device)
    return send(tensor, *args) if is_device else tensor.to(*args, **kwargs)


class TensorRows:
    """What is held as the rows of one tensor: boxes, masks.

    Attributes:
        tensor: (N, ...).
    """

    tensor: Tensor

    @property
    def device(self) -> torch.device:
        """Where the tensor is."""
        return self.tensor.device

    def pin_memory(self: Rows) -> Rows:
        """The same in page-locked memory, see `Instances.pin_memory`."""
        return type(self)(self.tensor.pin_memory())

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        """Yield each row as a tensor."""
        yield from self.tensor

    def __getitem__(self: Rows, item: Any) -> Rows:
        """Select rows by an index, slice, or tensor or array of indices or bools.

        Raises:
            AssertionError: if the selection is not a list of rows.
        """
        return type(self)(select_rows(self.tensor, item))


class Boxes(TensorRows):
    """A list of boxes (x0, y0, x1, y1) in absolute pixels, held as one float32 tensor.

    Coordinates are continuous: an image spans [0, width] x [0, height], pixel i the interval
    [i, i + 1], and a box is x1 - x0 wide.

    Args:
        tensor: (N, 4) tensor, array or list of lists; anything empty gives (0, 4).

    Raises:
        AssertionError: for another shape.
    """

    def __init__(self, tensor: Tensor | np.ndarray | Sequence) -> None:
        tensor = torch.as_tensor(tensor, dtype=torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape(0, 4)
        assert tensor.dim() == 2 and tensor.shape[1] == 4, (
            f"boxes must be (N, 4), got {tuple(tensor.shape)}"
        )
        self.tensor = tensor

    def clone(self) -> "Boxes":
        """A copy with its own memory."""
        return Boxes(self.tensor.clone())

    def to(self, device: torch.device | str) -> "Boxes":
        """The boxes on `device`."""
        return Boxes(send(self.tensor, device))

    def area(self) -> Tensor:
        """(N,) areas in square pixels."""
        width, height = self._sizes()
        return width * height

    def clip(self, box_size: tuple[int, int]) -> None:
        """Cut the boxes at the borders of an image, in place.

        Args:
            box_size: (height, width) of the image.

        Raises:
            AssertionError: if a coordinate is infinite or NaN. On a GPU the check does not wait
                for the result and ends the process with a device-side assertion.
        """
        finite = torch.isfinite(self.tensor)
        assert_all(
            finite,
            "boxes must be finite; the model has diverged or its input holds NaN",
            lambda: str(self.tensor[~finite.all(dim=1)][:3].tolist()),
        )
        # A new tensor, as upstream makes one: whoever holds the old one keeps its boxes.
        self.tensor = clip_boxes_to_image(self.tensor, box_size)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """(N,) bool, True where both sides are longer than `threshold` pixels."""
        width, height = self._sizes()
        return (width > threshold) & (height > threshold)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: float = 0) -> Tensor:
        """Which boxes lie inside an image.

        Args:
            box_size: (height, width) of the image.
            boundary_threshold: pixels by which a box may reach over the border.

        Returns:
            (N,) bool.
        """
        height, width = box_size
        x0, y0, x1, y1 = self.tensor.unbind(dim=1)
        return (
            (x0 >= -boundary_threshold)
            & (y0 >= -boundary_threshold)
            # Strict at the far sides, as in upstream: a box that ends on the border is not inside.
            & (x1 < width + boundary_threshold)
            & (y1 < height + boundary_threshold)
        )

    def get_centers(self) -> Tensor:
        """(N, 2) centres, x then y."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply the x and y coordinates, in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    @classmethod
    def cat(cls, boxes_list: Sequence["Boxes"]) -> "Boxes":
        """One list of all boxes of `boxes_list`; no boxes for an empty list.

        Raises:
            AssertionError: if something in the list is not `Boxes`.
        """
        assert isinstance(boxes_list, (list, tuple)) and all(
            isinstance(boxes, Boxes) for boxes in boxes_list
        ), f"Boxes.cat needs a list of Boxes, got {boxes_list!r}"
        if len(boxes_list) == 0:
            return cls(torch.empty(0, 4))
        return cls(torch.cat([boxes.tensor for boxes in boxes_list], dim=0))

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"

    def _sizes(self) -> tuple[Tensor, Tensor]:
        """Widths and heights, each (N,)."""
        return (self.tensor[:, 2:] - self.tensor[:, :2]).unbind(dim=1)


def as_index(item: Any) -> int | None:
    """`item` as an int if it is one position (int, numpy integer, scalar tensor), else None."""
    if isinstance(item, Tensor) and (item.dim() > 0 or item.dtype == torch.bool):
        return None  # torch would turn any tensor of one element into a position
    try:
        return operator.index(item)
    except TypeError:
        return None


def select_rows(tensor: Tensor, item: Any) -> Tensor:
    """`tensor[item]` that keeps the number of dimensions, also for a single position."""
    index = as_index(item)
    selected = tensor[item] if index is None else tensor[index][None]
    assert selected.dim() == tensor.dim(), (
        f"the index must select along the first dimension of {tuple(tensor.shape)}, "
        f"got {item!r} which gives {tuple(selected.shape)}"
    )
    return selected


# Above this many pairs, boxes are compared in chunks of rows: up to four float32 are held per
# pair, here 2 GiB.
_MAX_PAIRS = 2**27
# Boxes of a batch are compared at once up to this many pairs, 512 MiB.
_MAX_PAIRS_OF_IMAGES = 2**25


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Intersection over union of all pairs.

    Args:
        boxes1: N boxes.
        boxes2: M boxes.

    Returns:
        (N, M) in [0, 1]; exactly 0 for pairs without overlap, also of empty boxes.
    """
    rows = max(_MAX_PAIRS // max(len(boxes2), 1), 1)
    if len(boxes1) > rows:
        chunks = [Boxes(chunk) for chunk in boxes1.tensor.split(rows)]
        return torch.cat([pairwise_iou(chunk, boxes2) for chunk in chunks])
    inter = pairwise_intersection(boxes1, boxes2)
    union = (boxes1.area()[:, None] + boxes2.area()).sub_(inter)
    # The smallest number that is not 0 instead of 0 for two empty boxes; 0 stays 0.
    return inter / union.clamp_(min=torch.finfo(union.dtype).tiny)


def pairwise_iou_of_images(boxes1: Sequence[Boxes], boxes2: Sequence[Boxes]) -> Iterator[Tensor]:
    """`pairwise_iou` of image after image; in one call unless the images have very many boxes.

    Args:
        boxes1: per image, N_i boxes.
        boxes2: per image, M_i boxes; or the same object for all images, which is not copied.

    Yields:
        Per image (N_i, M_i); on the CPU if the GPU has not enough memory.
    """
    iou = retry_if_cuda_oom(pairwise_iou)
    shared = all(boxes is boxes2[0] for boxes in boxes2)
    together = boxes2[0] if shared else Boxes.cat(boxes2)
    if sum(map(len, boxes1)) * len(together) > _MAX_PAIRS_OF_IMAGES:
        yield from map(iou, boxes1, boxes2)
        return
    rows = iou(Boxes.cat(boxes1), together).split([len(boxes) for boxes in boxes1])
    for i, of_image in enumerate(rows):
        yield of_image if shared else of_image.split([len(boxes) for boxes in boxes2], dim=1)[i]


def pairwise_ioa(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Intersection over the area of the second box, for all pairs.

    Args:
        boxes1: N boxes.
        boxes2: M boxes.

    Returns:
        (N, M) in [0, 1]; exactly 0 for pairs without overlap.
    """
    inter = pairwise_intersection(boxes1, boxes2)
    # A box without area overlaps nothing, so that 0 / 0 is not chosen.
    return torch.where(inter > 0, inter / boxes2.area(), 0.0)


def matched_pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Intersection over union of each box with the box at the same place of the other list.

    Args:
        boxes1: N boxes.
        boxes2: N boxes.

    Returns:
        (N,) in [0, 1]; exactly 0 without overlap.

    Raises:
        AssertionError: if the lists differ in length.
    """
    assert len(boxes1) == len(boxes2), (
        f"boxes are compared one by one, got {len(boxes1)} and {len(boxes2)}"
    )
    low = torch.maximum(boxes1.tensor[:, :2], boxes2.tensor[:, :2])  # (N, 2)
    high = torch.minimum(boxes1.tensor[:, 2:], boxes2.tensor[:, 2:])
    inter = (high - low).clamp(min=0).prod(dim=1)
    # 0 / 0 of two boxes without area is not chosen.
    return torch.where(inter > 0, inter / (boxes1.area() + boxes2.area() - inter), 0.0)


def pairwise_point_box_distance(points: Tensor, boxes: Boxes) -> Tensor:
    """Distances of points from the sides of boxes, negative where the point lies outside.

    Args:
        points: (N, 2), x then y.
        boxes: M boxes.

    Returns:
        (N, M, 4): to the left, top, right and bottom side.
    """
    low, high = boxes.tensor.split(2, dim=1)  # each (M, 2)
    return torch.cat([points[:, None] - low, high - points[:, None]], dim=2)


def pairwise_intersection(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """The area of the overlap of all pairs, (N, M) for N and M boxes."""
    # (N, M) planes, of x and of y: several times as fast on a CPU as pairs of coordinates.
    corners = boxes1.tensor.t()[:, :, None]  # (4, N, 1)
    others = boxes2.tensor.t().contiguous()[:, None]  # (4, 1, M)
    low = torch.maximum(corners[:2], others[:2])  # (2, N, M)
    width, height = torch.minimum(corners[2:], others[2:]).sub_(low).clamp_(min=0)
    return width * height
