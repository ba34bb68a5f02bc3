"""Simple copy-paste: objects of a second image are laid over the first."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from detectron2.data import DatasetFromList
from detectron2.structures import BitMasks, Instances

_MAX_BOX_SHIFT = 10  # pixels by which an edge of a partly covered object's box may move
_MIN_PIXELS = 300  # that must be left of an object whose box moves further


class RandomPairs(Dataset):
    """Gives each entry of a dataset together with another one, drawn anew each time.

    Item i is entry i with one more key, ``"paste_from"``: an entry drawn uniformly from the whole
    dataset by numpy's global generator.

    Args:
        dataset: standard dataset dicts, or a dataset that gives fresh copies of them.
    """

    def __init__(self, dataset: list[dict[str, Any]] | Dataset):
        self._dataset = DatasetFromList(dataset) if isinstance(dataset, list) else dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        other = np.random.randint(len(self))
        return {**self._dataset[index], "paste_from": self._dataset[other]}


class CopyPasteMapper:
    """Maps an entry of `RandomPairs` and pastes objects of the second image into the first.

    Each image goes through `mapper` with its own random numbers. Of the n objects of the second,
    between 0 and ``min(n, max_num_pasted)`` are pasted, any number being as likely.

    Args:
        mapper: a training mapper such as Detectron2's DatasetMapper; must give images of one size
            and bitmasks (``instance_mask_format="bitmask"``).
        max_num_pasted: most objects to paste into an image.

    Reference:
        Ghiasi et al. 2021, arXiv 2012.07177. Edges are not blended, and pasted objects are not
        jittered once more, as in its "simple" form.
    """

    def __init__(
        self, mapper: Callable[[dict[str, Any]], dict[str, Any]], max_num_pasted: int = 99
    ):
        self.mapper = mapper
        self.max_num_pasted = max_num_pasted

    def __call__(self, pair: dict[str, Any]) -> dict[str, Any]:
        """The first image's mapped entry, with the merged `image` and `instances`.

        Raises:
            KeyError: if the entry has no second one.
            ValueError: if the mapper gives images of different sizes or other masks.
        """
        if "paste_from" not in pair:
            raise KeyError(
                "copy-paste needs a second entry under 'paste_from', which RandomPairs adds "
                "(dataloader.train.dataset)"
            )
        target = self.mapper({key: v for key, v in pair.items() if key != "paste_from"})
        source = self.mapper(pair["paste_from"])
        objects = source["instances"]
        num_pasted = np.random.randint(min(len(objects), self.max_num_pasted) + 1)
        if num_pasted:
            chosen = np.random.choice(len(objects), num_pasted, replace=False)
            target["image"], target["instances"] = paste(
                target["image"], target["instances"], source["image"], objects[chosen]
            )
        return target


def paste(
    image: Tensor, instances: Instances, source_image: Tensor, source: Instances
) -> tuple[Tensor, Instances]:
    """Lay the objects `source` of another image over this one.

    A covered object loses the covered pixels and gets the box of the rest. It stays if something
    is left of it and either no edge of its box moved by more than 10 pixels or more than 300
    pixels are left.

    Args:
        image: (3, H, W).
        instances: its objects, with `gt_boxes`, `gt_classes` and bitmasks `gt_masks`.
        source_image: (3, H, W).
        source: the objects to paste, at least one.

    Returns:
        The merged image and its objects: what is left of the first image's, then the pasted.

    Raises:
        ValueError: if the sizes differ or the masks are no bitmasks.
    """
    if image.shape != source_image.shape:
        raise ValueError(
            f"copy-paste needs images of one size, got {tuple(image.shape[1:])} and "
            f"{tuple(source_image.shape[1:])}; end the augmentations with FixedSizeCrop "
            "(dataloader.train.mapper.mapper.augmentations)"
        )
    if not isinstance(source.gt_masks, BitMasks):
        raise ValueError(
            f"copy-paste needs bitmasks, got {type(source.gt_masks).__name__}; set "
            "dataloader.train.mapper.mapper.instance_mask_format=bitmask"
        )
    covered = source.gt_masks.tensor.any(dim=0)  # (H, W)
    merged = torch.where(covered, source_image, image)
    if len(instances) == 0:
        return merged, source
    rest = Instances(instances.image_size, **instances.get_fields())
    rest.gt_masks = BitMasks(instances.gt_masks.tensor & ~covered)
    # Of all objects, as the released detector was trained: a box that was looser than its mask
    # moves too, and its object may fall out without being covered.
    rest.gt_boxes = rest.gt_masks.get_bounding_boxes()
    shift = (rest.gt_boxes.tensor - instances.gt_boxes.tensor).abs().amax(dim=1)
    pixels = rest.gt_masks.tensor.sum(dim=(1, 2))
    kept = (pixels > 0) & ((shift <= _MAX_BOX_SHIFT) | (pixels > _MIN_PIXELS))
    return merged, Instances.cat([rest[kept], source])
