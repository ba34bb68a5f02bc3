"""What a training iteration reports: its losses, from the device to the storage, over all ranks."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from detectron2.utils import comm
from detectron2.utils.events import get_event_storage


class LossMetrics:
    """The losses of one iteration, of all ranks, on their way from the device to the storage.

    Args:
        iteration: the iteration that the losses belong to.
        losses: one-element tensors (n of them) by name, the same names on every rank.
        data_time: seconds that this rank has waited for data.
        images: names of the images of this rank.
        prefix: of the names of the losses, and of `total_loss`, in the storage.
    """

    def __init__(
        self,
        iteration: int,
        losses: Mapping[str, Tensor],
        data_time: float,
        images: list[str],
        prefix: str = "",
    ):
        self._prefix = prefix
        self._images = images
        self._iteration = iteration
        self._names = list(losses)
        self._data_time = data_time
        # Ranks may build their dicts in different orders; the columns must mean the same.
        columns = [losses[name].detach().reshape(()).float() for name in sorted(losses)]
        rows = _all_gather_rows(torch.stack([*columns, columns[0].new_full((), data_time)]))
        self._rows = rows.to("cpu", non_blocking=rows.is_cuda)
        self._arrived = torch.cuda.Event() if rows.is_cuda else None
        if self._arrived is not None:
            # Tells when the copy is there, without a wait for what the device does after it.
            self._arrived.record()

    def store(self, together: bool) -> None:
        """Put the scalars into the event storage, which every rank does with the same losses.

        Args:
            together: whether all ranks call this now, so that they can ask each other for the
                images of a loss that is not finite.

        Raises:
            FloatingPointError: the total loss is not finite.
        """
        if self._arrived is not None:
            self._arrived.synchronize()
        *columns, data_times = self._rows.T.tolist()  # (R, n + 1) -> n + 1 lists of R values
        means = [sum(column) / len(column) for column in columns]
        by_name = dict(zip(sorted(self._names), means, strict=True))
        losses = {name: by_name[name] for name in self._names}
        total = sum(means)
        if not math.isfinite(total):
            raise FloatingPointError(
                f"Loss became infinite or NaN at iteration={self._iteration}! loss_dict = {losses}"
                + describe_images(self._bad_images(together))
            )
        scalars = {"data_time": max(data_times), "rank_data_time": self._data_time}
        for name, loss in {"total_loss": total, **losses}.items():
            scalars[f"{self._prefix}{name}"] = loss
        get_event_storage().put_scalars(cur_iter=self._iteration, **scalars)

    def _bad_images(self, together: bool) -> dict[int, list[str]]:
        """The images of each rank that has a loss which is not finite, as far as known here."""
        bad = [rank for rank, row in enumerate(self._rows) if not row.isfinite().all()]
        known = {comm.get_rank(): self._images}
        if together:
            known = dict(enumerate(comm.all_gather(self._images)))
        return {rank: known.get(rank, []) for rank in bad}


def image_names(data: Any) -> list[str]:
    """What identifies the images of a batch; nothing if it is no list of dataset dicts."""
    samples = data if isinstance(data, list | tuple) else []
    keys = ("image_id", "file_name")
    parts = [[s[k] for k in keys if k in s] for s in samples if isinstance(s, Mapping)]
    return [" ".join(map(str, names)) for names in parts if names]


def describe_images(images: Mapping[int, list[str]]) -> str:
    """The end of an error message: ranks, and their images where these are known."""
    return "".join(
        f"; on rank {rank}" + (f", images {names}" if names else "")
        for rank, names in images.items()
    )


def _all_gather_rows(row: Tensor) -> Tensor:
    """The rows (n,) of all ranks as (R, n), the same on every rank."""
    if comm.get_world_size() == 1:
        return row[None]
    if dist.get_backend() != "nccl":
        row = row.cpu()
    rows = [torch.empty_like(row) for _ in range(comm.get_world_size())]
    dist.all_gather(rows, row)
    return torch.stack(rows)
