"""Accuracy of image classifiers."""

from collections import OrderedDict

import torch

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

_TOP = (1, 5)


class ImageNetEvaluator(DatasetEvaluator):
    """Top-1 and top-5 accuracy in percent, exact on any number of processes.

    Counts are summed over processes, of which each must see its own part of the images, as with
    Detectron2's test loader. With five classes or fewer, top-5 is 100 by definition.
    """

    def reset(self) -> None:
        """Forget everything."""
        self._hits = [0] * len(_TOP)
        self._images = 0

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Count a batch: `label` of the inputs, `logits` (K,) of the outputs."""
        logits = torch.stack([output["logits"] for output in outputs])
        labels = torch.tensor([sample["label"] for sample in inputs], device=logits.device)
        order = logits.topk(min(max(_TOP), logits.shape[1]), dim=1).indices  # (B, 5), best first
        hit = order == labels[:, None]
        self._hits = [
            count + int(hit[:, :k].sum()) for count, k in zip(self._hits, _TOP, strict=True)
        ]
        self._images += len(inputs)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """``{"accuracy": {"top1": ..., "top5": ...}}`` on the main process, None on the others.

        Raises:
            ValueError: on all processes, if none of them saw an image.
        """
        counts = comm.all_gather((self._images, *self._hits))
        images, *hits = (sum(column) for column in zip(*counts, strict=True))
        if not images:
            raise ValueError(
                "an accuracy needs at least one image, and the test loader gave none; point "
                "dataloader.test.dataset (or imagenet.root) at images"
            )
        if not comm.is_main_process():
            return None
        return {
            "accuracy": OrderedDict(
                (f"top{k}", 100 * count / images) for k, count in zip(_TOP, hits, strict=True)
            )
        }
