"""The evaluator of semantic segmentation, for models that decide on classes themselves."""

from typing import Any

from torch import Tensor

from detectron2 import evaluation


class SemSegEvaluator(evaluation.SemSegEvaluator):
    """Detectron2's, that takes class maps in the place of scores.

    The scores of a photo with 150 classes take gigabytes, its class map megabytes. Upstream
    Detectron2 knows scores alone; this one works on either. Its arguments are Detectron2's.
    """

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Tensor]]) -> None:
        """Count the pixels of a batch.

        Args:
            inputs: dicts with `file_name`.
            outputs: dicts with `sem_seg`: classes (H, W), or scores (K, H, W).
        """
        decided = [{"sem_seg": _Decided(output["sem_seg"])} for output in outputs]
        super().process(inputs, decided)


class _Decided:
    """A prediction with the one method by which Detectron2's evaluator gets classes from scores."""

    # As scores have: detectron2-lite's evaluator takes two dimensions for a class map of its own.
    ndim = 3

    def __init__(self, prediction: Tensor):
        self._prediction = prediction

    def argmax(self, dim: int) -> Tensor:
        """The classes, (H, W)."""
        prediction = self._prediction
        return prediction.argmax(dim=dim) if prediction.ndim == 3 else prediction
