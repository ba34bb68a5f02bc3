"""Parts of a config that make a rank special; the processes of a run import them by name."""

import math
import os
import signal
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from detectron2.data import DatasetMapper
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from mimdet.engine.notice import NOTICE
from mimdet.modeling.meta_arch import GeneralizedRCNNImageListForward
from mimdet.pretraining.mae import MAE, MAEOutput
from mimdet.pretraining.targets import patchify


def wait(folder: str) -> None:
    """Leaves a sign that this rank has begun, and waits for a signal."""
    Path(folder, str(comm.get_rank())).touch()
    if comm.get_rank() == 0:
        comm.synchronize()  # a call that hears no signal: rank 1 never comes
    time.sleep(1000)


class NoObjectsOnRank1(DatasetMapper):
    """Leaves out the objects of all images of rank 1."""

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        sample = super().__call__(dataset_dict)
        if comm.get_rank() == 1:
            sample["instances"] = sample["instances"][:0]
        return sample


class KilledOnceOnRank1(DatasetMapper):
    """Kills rank 1, the first time in a folder that training comes behind its first checkpoint."""

    def __init__(self, folder: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.tag, self.sign = Path(folder, "last_checkpoint"), Path(folder, "killed")

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        behind = comm.get_rank() == 1 and get_event_storage().iter == 2
        if behind and not self.sign.exists():
            while not self.tag.exists():  # rank 0 is still writing
                time.sleep(0.01)
            self.sign.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(dataset_dict)


class Signalled(DatasetMapper):
    """Sends SIGUSR1 to its process, the last rank, in one iteration, and waits until it is known.

    Args:
        iteration: that iteration.
    """

    def __init__(self, iteration: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.iteration = iteration

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        is_last_rank = comm.get_rank() == comm.get_world_size() - 1
        if is_last_rank and get_event_storage().iter == self.iteration and not NOTICE.signal:
            os.kill(os.getpid(), signal.SIGUSR1)
            while not NOTICE.signal:
                time.sleep(0.001)
        return super().__call__(dataset_dict)


class NaNOnRank1(GeneralizedRCNNImageListForward):
    """Has a mask loss of NaN in iteration 3, on rank 1 only."""

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list:
        outputs = super().forward(batched_inputs)
        if self.training and comm.get_rank() == 1 and get_event_storage().iter == 3:
            outputs["loss_mask"] = outputs["loss_mask"] * math.nan
        return outputs


class MaskedByContent(MAE):
    """A MAE whose masks depend on the image alone, and not on the rank and the batch."""

    def predict(self, images: Tensor, noise: Tensor | None = None) -> MAEOutput:
        noise = patchify(images, self.patch_size).mean(dim=1).flatten(1)
        return super().predict(images, noise)
