"""What to do with samples that cannot be used."""

import logging
from collections.abc import Callable
from typing import Any

from detectron2.data.detection_utils import describe_image

__all__ = ["SkipBadSamples"]

logger = logging.getLogger(__name__)


class SkipBadSamples:
    """A mapper for training that leaves out the samples at which another mapper fails.

    Without it the first bad sample ends the run. With it the loader takes another sample instead
    (see `MapDataset`), and each bad one is logged once. `OSError`, `ValueError` and
    `AssertionError` of the mapper count as bad samples, everything else as a mistake in the code.

    Args:
        mapper: a training `DatasetMapper`, or another function of a dataset dict.
        max_skipped: how many different samples each process that loads (a worker, or the rank
            itself without workers) may leave out; at the next one the run ends.

    Raises:
        RuntimeError: on a call, if there are more bad samples.
        ValueError: if `max_skipped` is negative, or `mapper` is for inference, where each image
            must be seen.
    """

    def __init__(self, mapper: Callable[[dict[str, Any]], Any], max_skipped: int = 100):
        if max_skipped < 0:
            raise ValueError(f"max_skipped must be at least 0, got {max_skipped}")
        if not getattr(mapper, "is_train", True):
            raise ValueError(
                "SkipBadSamples is for training, got a mapper with is_train=False: an evaluation "
                "that leaves out images has other results; repair the data set"
            )
        self.mapper = mapper
        self.max_skipped = max_skipped
        self.skipped: set[str] = set()

    def __call__(self, dataset_dict: dict[str, Any]) -> Any:
        """The result of the mapper, or None for a bad sample."""
        try:
            return self.mapper(dataset_dict)
        except (OSError, ValueError, AssertionError) as e:
            self._skip(describe_image(dataset_dict), e)
            return None

    def _skip(self, name: str, error: Exception) -> None:
        # `DatasetMapper` names the image itself.
        message = str(error) if name in str(error) else f"{name}: {error}"
        if name in self.skipped:
            return
        if len(self.skipped) == self.max_skipped:
            raise RuntimeError(
                f"more than max_skipped={self.max_skipped} samples are bad, the last one is "
                f"{message}; repair the data set, or set SkipBadSamples.max_skipped higher"
            ) from error
        self.skipped.add(name)
        logger.warning(
            "Left out bad sample %d of at most %d in this process: %s",
            len(self.skipped),
            self.max_skipped,
            message,
        )
