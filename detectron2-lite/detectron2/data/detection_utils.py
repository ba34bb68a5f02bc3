"""Functions that a dataset mapper is made of: read an image, transform and collect annotations."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from detectron2.data import transforms as T
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    Instances,
    PolygonMasks,
    polygons_to_bitmask,
)
from detectron2.structures.masks import run_lengths
from detectron2.utils.file_io import PathManager

__all__ = [
    "SizeMismatchError",
    "annotations_to_instances",
    "check_image_size",
    "convert_image_to_rgb",
    "filter_empty_instances",
    "get_fed_loss_cls_weights",
    "read_image",
    "transform_instance_annotations",
]

_YUV = "YUV-BT.601"
# Rows Y, U and V; U reaches 0.436 and V 0.615, as in analog television.
_RGB_TO_YUV = np.array(
    [[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]]
)


class SizeMismatchError(ValueError):
    """An image file has another size than its dataset entry says."""


def read_image(file_name: str, format: str | None = None) -> np.ndarray:
    """Read an image file, turned upright as its EXIF orientation says.

    Args:
        file_name: path that `PathManager` can open.
        format: "BGR", "YUV-BT.601" or a mode of Pillow such as "RGB" and "L"; None keeps the mode
            of the file.

    Returns:
        (H, W, C) array, (H, W, 1) for "L"; uint8 in [0, 255] except for unusual modes, floating
        point with luma in [0, 1] for "YUV-BT.601". It may be read-only or a reversed view.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if the file is no complete image of a known type, or has more pixels than Pillow
            allows; the message names the file.
        ValueError: if the image cannot be converted to `format`, which has 8 bits per channel
            while the image has values beyond them.
    """
    return convert_PIL_to_numpy(read_picture(file_name, format), format)


def read_picture(file_name: str, format: str | None = None) -> Image.Image:
    """`read_image` before its pixels become an array: same arguments, same errors.

    Returns:
        The picture in the mode of Pillow from which arrays of `format` are made.
    """
    with PathManager.open(file_name, "rb") as f:
        try:
            image = Image.open(f)
            # `open` reads no pixels yet, and the file is closed behind the block.
            image.load()
        except Image.DecompressionBombError as e:
            raise OSError(
                f"{file_name} must have at most twice PIL.Image.MAX_IMAGE_PIXELS = "
                f"{Image.MAX_IMAGE_PIXELS} pixels: {e} If it is genuine, make the limit larger"
            ) from e
        except Exception as e:  # Pillow's decoders raise many types for broken files
            raise OSError(
                f"{file_name} must be a complete image file, but Pillow cannot decode it: "
                f"{type(e).__name__}: {e}; replace the file"
            ) from e
    # A damaged EXIF block raises many types; it says nothing about the orientation.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    _check_depth(image, file_name, format)
    try:
        return _in_mode_of(format, image)
    except ValueError as e:
        raise ValueError(
            f"{file_name} of mode {image.mode!r} cannot be converted to format {format!r}: {e}; "
            f"use 'BGR', {_YUV!r} or a mode of Pillow"
        ) from e


def convert_image_to_rgb(image: np.ndarray | Tensor, format: str) -> np.ndarray:
    """Convert an image of a given format to RGB.

    Args:
        image: (H, W, C) array or tensor as `read_image` returns it.
        format: its format, as in `read_image`.

    Returns:
        (H, W, 3) RGB in [0, 255]: floating point for "YUV-BT.601", the dtype of `image` for "RGB"
        and "BGR", uint8 otherwise.
    """
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
    if format == "RGB":
        return image
    if format == "BGR":
        return image[:, :, ::-1]
    if format == _YUV:
        return image @ np.linalg.inv(_RGB_TO_YUV).T * 255.0
    height, width = image.shape[:2]
    stored = np.ascontiguousarray(image, dtype=np.uint8)
    return np.asarray(Image.frombytes(format, (width, height), stored.tobytes()).convert("RGB"))


def check_image_size(dataset_dict: dict[str, Any], image: np.ndarray) -> None:
    """Check that an image has the size of its dataset entry; fill in a size that is missing.

    Args:
        dataset_dict: the entry; gets "height" and "width" where it has none.
        image: (H, W, ...) array.

    Raises:
        SizeMismatchError: if the two differ.
    """
    height, width = image.shape[:2]
    expected = dataset_dict.setdefault("height", height), dataset_dict.setdefault("width", width)
    if expected != (height, width):
        raise SizeMismatchError(
            f"{describe_image(dataset_dict)} must have height and width {expected} as its dataset "
            f"entry says, but the file has {(height, width)}; it may be another image, or its "
            "EXIF orientation was not applied when it was annotated"
        )


def describe_image(dataset_dict: dict[str, Any]) -> str:
    """Name an image in a message, by id and file.

    Args:
        dataset_dict: the dataset entry.
    """
    return f"image {dataset_dict.get('image_id', '?')} ({dataset_dict.get('file_name', '?')})"


def transform_instance_annotations(
    annotation: dict[str, Any],
    transforms: T.Transform | Sequence[T.Transform],
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: None = None,
) -> dict[str, Any]:
    """Apply image transforms to one annotation, in place.

    Args:
        annotation: needs "bbox" and "bbox_mode"; "segmentation" may be a list of flat polygons
            x0, y0, x1, y1, ... or an RLE dict. "keypoints" are not supported and are removed.
        transforms: a transform or a list of them.
        image_size: (height, width) of the transformed image.
        keypoint_hflip_indices: only None is supported.

    Returns:
        `annotation` with "bbox" as a float64 (4,) array in XYXY_ABS, clipped to the image, and
        "segmentation" as a list of flat float64 polygons or an (H, W) uint8 mask.

    Raises:
        ValueError: if a key is missing, a segmentation has another type, or a box, polygon or RLE
            is damaged.
        AssertionError: if a transformed mask does not have the size of the image.
    """
    if keypoint_hflip_indices is not None:
        raise NotImplementedError(
            "keypoints are not part of detectron2-lite, got keypoint_hflip_indices="
            f"{keypoint_hflip_indices!r}; leave it out, or install upstream Detectron2"
        )
    if isinstance(transforms, (list, tuple)):
        transforms = T.TransformList(transforms)
    box = box_to_transform(annotation)
    annotation["bbox"] = transform_boxes(box[None], transforms, image_size)[0]
    annotation["bbox_mode"] = BoxMode.XYXY_ABS
    annotation.pop("keypoints", None)
    if "segmentation" in annotation:
        annotation["segmentation"] = transform_segmentation(
            annotation["segmentation"], transforms, image_size
        )
    return annotation


def box_to_transform(annotation: dict[str, Any]) -> np.ndarray:
    """The box of an annotation in its image, float64 (4,) in XYXY_ABS.

    Raises:
        ValueError: if it is missing or damaged.
    """
    box = _xyxy_box(annotation)
    if box[2] < box[0] or box[3] < box[1]:  # transforms would take it with swapped corners
        raise ValueError(
            "annotation must have a bbox whose width and height are at least 0, got "
            f"{annotation['bbox']!r} in mode {annotation['bbox_mode']!r}"
        )
    return box


def transform_boxes(
    boxes: np.ndarray, transforms: T.Transform, image_size: tuple[int, int]
) -> np.ndarray:
    """Transform (N, 4) boxes in XYXY_ABS and clip them to the transformed image."""
    height, width = image_size
    return np.minimum(transforms.apply_box(boxes).clip(min=0), [width, height, width, height])


def annotations_to_instances(
    annos: list[dict[str, Any]], image_size: tuple[int, int], mask_format: str = "polygon"
) -> Instances:
    """Collect the annotations of one image as training targets.

    Args:
        annos: annotations with "bbox", "bbox_mode", "category_id" and, in all or none of them,
            "segmentation": flat polygons, or with "bitmask" also RLE dicts and (H, W) masks.
        image_size: (height, width) of the image in pixels.
        mask_format: "polygon" or "bitmask".

    Returns:
        Instances with `gt_boxes` (Boxes), `gt_classes` (int64) and, where there are
        segmentations, `gt_masks` (PolygonMasks or BitMasks).

    Raises:
        ValueError: if a key is missing, or a segmentation does not fit `mask_format`.
    """
    boxes = [_xyxy_box(anno, f"annotation {i}") for i, anno in enumerate(annos)]
    return collect_instances(annos, np.reshape(boxes, (-1, 4)), image_size, mask_format)


def collect_instances(
    annos: list[dict[str, Any]],
    boxes: np.ndarray,
    image_size: tuple[int, int],
    mask_format: str = "polygon",
) -> Instances:
    """`annotations_to_instances` with (N, 4) boxes in XYXY_ABS that take the place of "bbox"."""
    target = Instances(image_size, gt_boxes=Boxes(boxes))
    classes = [_require(anno, "category_id", f"annotation {i}") for i, anno in enumerate(annos)]
    target.gt_classes = torch.tensor(classes, dtype=torch.int64)

    bare = [i for i, anno in enumerate(annos) if "segmentation" not in anno]
    if len(bare) == len(annos):
        return target
    if bare:
        raise ValueError(
            "all annotations of an image must have a 'segmentation' or none of them, but "
            f"annotations {bare} of {len(annos)} have none; complete or remove them"
        )
    masks = [anno["segmentation"] for anno in annos]
    if mask_format == "polygon":
        target.gt_masks = _polygon_masks(masks)
    elif mask_format == "bitmask":
        target.gt_masks = _bit_masks(masks, image_size)
    else:
        raise ValueError(f"mask_format must be 'polygon' or 'bitmask', got {mask_format!r}")
    return target


def filter_empty_instances(
    instances: Instances,
    by_box: bool = True,
    by_mask: bool = True,
    box_threshold: float = 1e-5,
    return_mask: bool = False,
) -> Instances | tuple[Instances, Tensor]:
    """Remove instances that have nothing left inside the image.

    Args:
        instances: N instances with `gt_boxes` and perhaps `gt_masks`.
        by_box: remove those with a box side of at most `box_threshold` pixels.
        by_mask: remove those with an empty mask, where there are masks.
        box_threshold: in pixels.
        return_mask: also return which instances are kept.

    Returns:
        The instances that are left; with `return_mask` also an (N,) bool tensor.

    Raises:
        AssertionError: if both criteria are off.
    """
    assert by_box or by_mask, "at least one of by_box and by_mask must be set"
    kept = torch.ones(len(instances), dtype=torch.bool, device=instances.gt_boxes.device)
    if by_box:
        kept &= instances.gt_boxes.nonempty(threshold=box_threshold)
    if by_mask and instances.has("gt_masks"):
        kept &= instances.gt_masks.nonempty()
    # Nothing is copied where all are kept.
    left = instances if kept.all() else instances[kept]
    return (left, kept) if return_mask else left


def get_fed_loss_cls_weights(
    dataset_names: str | Sequence[str], freq_weight_power: float = 1.0
) -> Tensor:
    """Weights by which federated loss samples classes: image counts to a power.

    A data set whose metadata has no counts is loaded, because LVIS's come from its file.

    Args:
        dataset_names: data sets with equal `class_image_count` in their metadata.
        freq_weight_power: exponent of the counts.

    Returns:
        (K,) float32 weights in the order of category ids.

    Raises:
        ValueError: if the counts are missing, or differ between the data sets.

    Reference: Zhou et al. 2021, "Probabilistic two-stage detection", arXiv 2103.07461.
    """
    names = [dataset_names] if isinstance(dataset_names, str) else list(dataset_names)
    counts = [_class_image_count(name) for name in names]
    if counts[0] is None or any(other != counts[0] for other in counts):
        raise ValueError(
            "federated loss needs the same class_image_count in the metadata of each of the data "
            f"sets {names}; set it as a list of {{'id', 'image_count'}}"
        )
    ordered = sorted(counts[0], key=lambda category: category["id"])
    frequencies = torch.tensor([category["image_count"] for category in ordered])
    return frequencies.float() ** freq_weight_power


def _class_image_count(dataset_name: str) -> list[dict[str, int]] | None:
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("class_image_count") is None and dataset_name in DatasetCatalog:
        DatasetCatalog.get(dataset_name)
    return metadata.get("class_image_count")


def _is_deep(mode: str | None) -> bool:
    """Whether Pillow keeps more than 8 bits per channel in this mode."""
    return mode in ("I", "F") or str(mode).startswith("I;")


def _check_depth(image: Image.Image, file_name: str, format: str | None) -> None:
    """Refuse values that Pillow would silently cut to 255."""
    if not _is_deep(image.mode) or format is None or _is_deep(format):
        return
    low, high = image.getextrema()
    if not (low >= 0 and high <= 255):  # also where there are NaNs
        raise ValueError(
            f"{file_name} of mode {image.mode!r} must have values in [0, 255] for format "
            f"{format!r}, got {low} to {high}; save it with 8 bits per channel"
        )


def convert_PIL_to_numpy(image: Image.Image, format: str | None) -> np.ndarray:
    """The pixels of a Pillow image in a format of `read_image`: (H, W, C), or as Pillow has them.

    Args:
        image: of any mode.
        format: "RGB", "BGR", "YUV-BT.601", a mode of Pillow, or None for the image's own.
    """
    array = np.asarray(_in_mode_of(format, image))
    if format == "L":
        return array[:, :, None]
    if format == "BGR":
        return array[:, :, ::-1]
    if format == _YUV:
        return array / 255.0 @ _RGB_TO_YUV.T
    return array


def _in_mode_of(format: str | None, image: Image.Image) -> Image.Image:
    """The image in the mode of Pillow from which arrays of `format` are made."""
    if format is None:
        return image
    mode = "RGB" if format in ("BGR", _YUV) else format
    if mode in ("RGB", "L"):
        image.info.pop("transparency", None)  # not used, but Pillow warns of some kinds
    return image if image.mode == mode else image.convert(mode)


def _require(annotation: dict[str, Any], key: str, name: str = "annotation") -> Any:
    if key not in annotation:
        raise ValueError(
            f"{name} has no {key!r}; every annotation needs 'bbox', 'bbox_mode' and 'category_id', "
            f"this one has {sorted(annotation)}"
        )
    return annotation[key]


def _xyxy_box(annotation: dict[str, Any], name: str = "annotation") -> np.ndarray:
    """The box as a new float64 (4,) array: transforms would truncate integers."""
    box, mode = _require(annotation, "bbox", name), _require(annotation, "bbox_mode", name)
    try:
        xyxy = np.array(box, dtype=np.float64)  # None becomes NaN
        finite = np.isfinite(xyxy).all()
    except (TypeError, ValueError):
        finite = False
    if not finite:
        raise ValueError(f"{name} must have a bbox of finite numbers, got {box!r}")
    if mode != BoxMode.XYXY_ABS:
        # From the list that came: its numbers are rounded to float32 by this, as in upstream.
        xyxy = np.array(BoxMode.convert(box, mode, BoxMode.XYXY_ABS), dtype=np.float64)
    if xyxy.shape != (4,):
        raise ValueError(f"{name} must have a bbox of four numbers, got {box!r}")
    return xyxy


def transform_segmentation(
    segmentation: list | dict, transforms: T.Transform, image_size: tuple[int, int]
) -> list[np.ndarray] | np.ndarray:
    """Transform polygons, or a mask given as RLE; see `transform_instance_annotations`."""
    if isinstance(segmentation, list):
        polygons = transforms.apply_polygons([_points(polygon) for polygon in segmentation])
        return [polygon.reshape(-1) for polygon in polygons]  # (n, 2) -> (2n,)
    if isinstance(segmentation, dict):
        mask = transforms.apply_segmentation(_decode_rle(segmentation))
        assert mask.shape == tuple(image_size), (
            f"a transformed mask must have the size {tuple(image_size)} of its image, got "
            f"{mask.shape} from an RLE of size {segmentation['size']}; correct the annotation"
        )
        return mask
    raise ValueError(
        "a segmentation must be a list of polygons or an RLE dict, "
        f"got {type(segmentation).__name__}"
    )


def _points(polygon: Sequence[float]) -> np.ndarray:
    """A flat polygon as a new (n, 2) float64 array, because transforms write into it."""
    coordinates = np.array(polygon, dtype=np.float64)
    if coordinates.ndim != 1 or coordinates.size % 2 or coordinates.size < 6:
        raise ValueError(
            "a polygon must be a flat list x0, y0, x1, y1, ... of at least three points, "
            f"got an array of shape {coordinates.shape}"
        )
    if not np.isfinite(coordinates).all():
        raise ValueError(f"a polygon must have finite coordinates, got {polygon!r}")
    return coordinates.reshape(-1, 2)  # (2n,) -> (n, 2)


def _decode_rle(rle: dict[str, Any]) -> np.ndarray:
    """(H, W) uint8, from run lengths that have been looked at.

    pycocotools, which takes four times as long, would leave memory as it is where runs are missing.
    """
    if not {"size", "counts"} <= rle.keys():
        raise ValueError(f"an RLE needs the keys 'size' and 'counts', got {sorted(rle)}")
    height, width = rle["size"]
    rule = (
        f"the run lengths of an RLE of size {[height, width]} must be at least 0 and sum to "
        f"{height * width}"
    )
    try:
        runs = run_lengths(rle)
    except (OverflowError, RuntimeError, TypeError, ValueError) as e:
        raise ValueError(f"{rule}: {e}; correct the annotation") from e
    # Each on its own, because the sum of very large numbers may come round again.
    if not ((runs >= 0) & (runs <= height * width)).all() or runs.sum() != height * width:
        raise ValueError(f"{rule}, got {runs[:10]}, in sum {runs.sum()}; correct the annotation")
    bits = (np.arange(len(runs)) % 2).astype(np.uint8)
    return np.repeat(bits, runs).reshape(width, height).T  # runs go down the columns


def _polygon_masks(masks: list) -> PolygonMasks:
    for i, mask in enumerate(masks):
        if not isinstance(mask, list):
            raise ValueError(
                f"mask format 'polygon' needs polygons, but annotation {i} has a segmentation of "
                f"type {type(mask).__name__}; use instance_mask_format='bitmask'"
            )
    return PolygonMasks(masks)


def _bit_masks(masks: list, image_size: tuple[int, int]) -> BitMasks:
    bitmaps = np.zeros((len(masks), *image_size), dtype=bool)
    for i, mask in enumerate(masks):
        bitmap = _bitmap(mask, image_size, i)
        if bitmap.shape != tuple(image_size):
            raise ValueError(
                f"the mask of annotation {i} must have the size {tuple(image_size)} of its image, "
                f"got {bitmap.shape}; correct the annotation"
            )
        bitmaps[i] = bitmap
    return BitMasks(bitmaps)


def _bitmap(mask: list | dict | np.ndarray, image_size: tuple[int, int], index: int) -> np.ndarray:
    if isinstance(mask, list):
        return polygons_to_bitmask(mask, *image_size)
    if isinstance(mask, dict):
        return _decode_rle(mask)
    if isinstance(mask, np.ndarray) and mask.ndim == 2:
        return mask
    raise ValueError(
        "mask format 'bitmask' needs polygons, an RLE dict or an (H, W) array, but annotation "
        f"{index} has {type(mask).__name__} of shape {getattr(mask, 'shape', None)}"
    )
