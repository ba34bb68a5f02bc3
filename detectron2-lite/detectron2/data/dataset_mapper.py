import contextlib
import copy
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.data.picture_input import PictureInput
from detectron2.data.transforms.augmentation import FixedTransform
from detectron2.structures import BitMasks, Instances, PolygonMasks

__all__ = ["DatasetMapper"]

_MASK_FORMATS = ("polygon", "bitmask")


class DatasetMapper:
    """Turn an entry of a data set into the input of a detector.

    It reads the image, augments it together with its annotations, and makes tensors. Random
    numbers come from numpy's global generator.

    Args:
        is_train: training entries get `instances`; inference entries lose their annotations.
        augmentations: augmentations or transforms, applied in order.
        image_format: channel order or mode, as in `detection_utils.read_image`.
        use_instance_mask: whether segmentations become `gt_masks`.
        use_keypoint: only False is supported.
        instance_mask_format: "polygon" or "bitmask".
        keypoint_hflip_indices: only None is supported.
        precomputed_proposal_topk: only None is supported.
        recompute_boxes: replace boxes by those around the augmented masks, which are tighter
            after a crop.

    Raises:
        AssertionError: if `recompute_boxes` is set without `use_instance_mask`.
        ImportError: if polygons would be cropped and shapely is not installed.
        NotImplementedError: for keypoints and precomputed proposals.
        ValueError: if `instance_mask_format` is unknown.
    """

    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str,
        use_instance_mask: bool = False,
        use_keypoint: bool = False,
        instance_mask_format: str = "polygon",
        keypoint_hflip_indices: None = None,
        precomputed_proposal_topk: None = None,
        recompute_boxes: bool = False,
    ):
        if use_keypoint or keypoint_hflip_indices is not None or precomputed_proposal_topk:
            raise NotImplementedError(
                "keypoints and precomputed proposals are not part of detectron2-lite, got "
                f"use_keypoint={use_keypoint}, keypoint_hflip_indices={keypoint_hflip_indices}, "
                f"precomputed_proposal_topk={precomputed_proposal_topk}; leave them out, or "
                "install upstream Detectron2"
            )
        if instance_mask_format not in _MASK_FORMATS:
            raise ValueError(
                f"instance_mask_format must be one of {_MASK_FORMATS}, got {instance_mask_format!r}"
            )
        assert use_instance_mask or not recompute_boxes, (
            "recompute_boxes=True needs masks; set use_instance_mask=True too"
        )
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.use_instance_mask = use_instance_mask
        self.instance_mask_format = instance_mask_format
        self.recompute_boxes = recompute_boxes
        if is_train and use_instance_mask and any(map(_is_crop, self.augmentations.augs)):
            _require_shapely()
        mode = "training" if is_train else "inference"
        logging.getLogger(__name__).info(
            f"[DatasetMapper] Augmentations used in {mode}: {list(augmentations)}"
        )

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one entry.

        Args:
            dataset_dict: entry in the standard format; it is not changed.

        Returns:
            A copy with `image`, a (C, H, W) tensor (uint8 for uint8 images), and in training
            `instances` in place of `annotations`. `height` and `width` are those of the file. An
            entry with `sem_seg_file_name` gets `sem_seg`, the (H, W) int64 labels of that file, in
            its place, in training or not.

        Raises:
            FileNotFoundError: if the image file does not exist.
            OSError: if it cannot be decoded.
            SizeMismatchError: if it has another size than the entry says, or than its label map.
            ValueError: if an annotation is not usable. All messages name the image.
        """
        # Not deep where nothing changes: of annotations, which are most of an entry, only values of
        # their own keys are exchanged.
        annotations = dataset_dict.get("annotations")
        rest = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        dataset_dict = copy.deepcopy(rest)
        aug_input = self._read_image(dataset_dict)
        aug_input.sem_seg = self._read_sem_seg(dataset_dict, aug_input.canvas.shape[:2])
        transforms = self.augmentations(aug_input)
        dataset_dict["image"] = torch.from_numpy(aug_input.channels_first())
        if aug_input.sem_seg is not None:
            labels = aug_input.sem_seg.astype(np.int64)  # a copy, like that of the image
            dataset_dict["sem_seg"] = torch.from_numpy(labels)
        if self.is_train and annotations is not None:
            dataset_dict["annotations"] = [dict(annotation) for annotation in annotations]
            self._transform_annotations(dataset_dict, transforms, aug_input.canvas.shape[:2])
        return dataset_dict

    def _read_image(self, dataset_dict: dict[str, Any]) -> PictureInput:
        name, file_name = utils.describe_image(dataset_dict), dataset_dict["file_name"]
        picture = _read(name, file_name, self.image_format, "image root")
        aug_input = PictureInput(picture, self.image_format)
        utils.check_image_size(dataset_dict, aug_input.canvas)
        return aug_input

    @staticmethod
    def _read_sem_seg(
        dataset_dict: dict[str, Any], image_shape: tuple[int, int]
    ) -> np.ndarray | None:
        """Take the label map's file out of the entry and read it: (H, W) uint8."""
        file_name = dataset_dict.pop("sem_seg_file_name", None)
        if file_name is None:
            return None
        name = f"label map {file_name} of {utils.describe_image(dataset_dict)}"
        labels = np.asarray(_read(name, file_name, "L", "label root"))
        if labels.shape != image_shape:
            raise utils.SizeMismatchError(
                f"{name} must have the height and width {image_shape} of the image, got "
                f"{labels.shape}; it may belong to another image"
            )
        return labels

    def _transform_annotations(
        self, dataset_dict: dict[str, Any], transforms: T.Transform, image_shape: tuple[int, int]
    ) -> None:
        name = utils.describe_image(dataset_dict)
        size = dataset_dict["height"], dataset_dict["width"]
        annotations, boxes = [], []
        for position, annotation in enumerate(dataset_dict.pop("annotations")):
            if annotation.get("iscrowd", 0) == 0:
                with _named(f"{name}: annotation {position}"):
                    boxes.append(utils.box_to_transform(annotation))
                    self._transform_masks(annotation, transforms, size, image_shape)
                annotations.append(annotation)
        # All boxes at once: a transform takes as long for one.
        boxes = utils.transform_boxes(np.reshape(boxes, (-1, 4)), transforms, image_shape)
        with _named(name):
            instances = utils.collect_instances(
                annotations, boxes, image_shape, self.instance_mask_format
            )
            if self.recompute_boxes:
                self._recompute_boxes(instances)
        dataset_dict["instances"] = utils.filter_empty_instances(instances)

    def _transform_masks(
        self,
        annotation: dict[str, Any],
        transforms: T.Transform,
        size: tuple[int, int],
        image_shape: tuple[int, int],
    ) -> None:
        """Transform the mask, if used, from an image of `size` to one of `image_shape`."""
        annotation.pop("keypoints", None)
        if not self.use_instance_mask:
            annotation.pop("segmentation", None)
        if "segmentation" not in annotation:
            return
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, dict):  # a crop could make it fit by accident
            assert tuple(segmentation.get("size", ())) == size, (
                f"an RLE must have the size {size} of its image, got {segmentation.get('size')}; "
                "correct the annotation"
            )
        annotation["segmentation"] = utils.transform_segmentation(
            segmentation, transforms, image_shape
        )

    def _recompute_boxes(self, instances: Instances) -> None:
        if len(instances) == 0:
            instances.gt_masks = self._empty_masks(instances.image_size)
        elif instances.has("gt_masks"):
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        else:
            raise ValueError(
                "recompute_boxes=True needs a 'segmentation' in each annotation, got none; "
                "complete the annotations or set recompute_boxes=False"
            )

    def _empty_masks(self, image_size: tuple[int, int]) -> PolygonMasks | BitMasks:
        if self.instance_mask_format == "polygon":
            return PolygonMasks([])
        return BitMasks(torch.zeros((0, *image_size), dtype=torch.bool))


def _read(name: str, file_name: str, format: str, root: str) -> Image.Image:
    """Read an image file; what goes wrong is told of `name`, a missing file with its `root`."""
    try:
        return utils.read_picture(file_name, format=format)
    except FileNotFoundError as e:
        raise FileNotFoundError(
            f"{name} must exist, but there is no such file; check the {root} of the data set"
        ) from e
    except (OSError, ValueError) as e:
        kind = OSError if isinstance(e, OSError) else ValueError
        # The message begins with the file, which `name` has too.
        raise kind(f"{name}: {str(e).removeprefix(f'{file_name} ')}") from e


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    """Put `where` in front of what is wrong with an annotation."""
    try:
        yield
    except AssertionError as e:
        raise AssertionError(f"{where}: {e}") from e
    except (KeyError, TypeError, ValueError) as e:
        raise ValueError(f"{where}: {e}") from e


def _is_crop(aug: T.Augmentation | T.Transform) -> bool:
    """Whether an augmentation of this package crops; others are not known."""
    if isinstance(aug, (T.RandomCrop, T.FixedSizeCrop, T.CropTransform)):
        return True
    if isinstance(aug, T.RandomCrop_CategoryAreaConstraint):
        return True
    if isinstance(aug, T.AugmentationList):
        return any(map(_is_crop, aug.augs))
    if isinstance(aug, T.TransformList):
        return any(map(_is_crop, aug.transforms))
    if isinstance(aug, T.RandomApply):
        return _is_crop(aug.aug)
    return _is_crop(aug.tfm) if isinstance(aug, FixedTransform) else False


def _require_shapely() -> None:
    try:
        import shapely  # noqa: F401
    except ImportError as e:
        raise ImportError(
            "cropping polygons needs the package shapely, which cannot be imported; install "
            "shapely, or leave the cropping augmentations out"
        ) from e
