"""Mixup and CutMix of classification batches."""

import zlib
from typing import Any

import torch
from timm.data import Mixup

from mimdet.data.repeatable import seeded


class MixupCollate:
    """Mixes the samples of a batch in pairs, and their labels; for `collate_fn` of a loader.

    The random numbers follow from the content of the batch, so a run that resumes sees the
    batches that it would have seen.

    Args:
        num_classes: classes K.
        mixup_alpha: of the beta distribution of Mixup's share; 0 for no Mixup.
        cutmix_alpha: of CutMix's; 0 for no CutMix.
        prob: share of batches that are mixed.
        switch_prob: share of CutMix where both are on.
        label_smoothing: share of a label's weight that all classes get alike.

    Reference:
        Zhang et al. 2017, arXiv 1710.09412; Yun et al. 2019, arXiv 1905.04899.
    """

    def __init__(
        self,
        num_classes: int,
        mixup_alpha: float = 0.8,
        cutmix_alpha: float = 1.0,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        label_smoothing: float = 0.1,
    ):
        self._mixup = Mixup(
            mixup_alpha=mixup_alpha,
            cutmix_alpha=cutmix_alpha,
            prob=prob,
            switch_prob=switch_prob,
            label_smoothing=label_smoothing,
            num_classes=num_classes,
        )
        self._num_classes = num_classes

    def __call__(self, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Samples with `image` and `label` -> the same with a mixed `image` and a `target` (K,).

        Raises:
            ValueError: if the number of samples is odd or a label is not below K.
        """
        labels = torch.tensor([sample["label"] for sample in samples])
        if len(samples) % 2:
            raise ValueError(
                f"mixing needs an even number of images per process, got {len(samples)} "
                "(dataloader.train.total_batch_size)"
            )
        if labels.max() >= self._num_classes:
            raise ValueError(
                f"labels must be below num_classes={self._num_classes}, got {int(labels.max())} "
                "(dataloader.train.collate_fn.num_classes)"
            )
        images = torch.stack([sample["image"] for sample in samples])
        # timm draws from numpy's global generator. One image tells batches apart well enough.
        with seeded(zlib.crc32(images[0].numpy().tobytes())):
            images, targets = self._mixup(images, labels)
        mixed = zip(samples, images, targets, strict=True)
        return [{**sample, "image": image, "target": target} for sample, image, target in mixed]
