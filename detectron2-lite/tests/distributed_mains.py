"""What the processes of test_launch.py run: spawned processes import it by name."""

import logging
import math
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from detectron2.engine import EvalHook, SimpleTrainer, create_ddp_model
from detectron2.layers import get_norm
from detectron2.utils import comm


class ScaledData(nn.Module):
    """Two losses: the data times a weight that starts at 1, and a third of the data."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch):
        x = batch[0]["x"]
        losses = {"loss_a": self.weight * x, "loss_b": x / 3}
        names = sorted(losses, reverse=comm.get_rank() == 1)  # the order must not matter
        return {name: losses[name] for name in names}


def batches_of(rank: int, *values: float) -> list[list[dict]]:
    """Batches of one image for `ScaledData`."""
    return [
        [{"x": torch.tensor(x), "image_id": 10 * i + rank, "file_name": f"{i}_{rank}.jpg"}]
        for i, x in enumerate(values)
    ]


class SlowData(list):
    """Batches, each of which takes some seconds to come."""

    def __init__(self, batches: list, seconds: float):
        super().__init__(batches)
        self._seconds = seconds

    def __iter__(self):
        for batch in super().__iter__():
            time.sleep(self._seconds)
            yield batch


def train_together(folder: str) -> None:
    """Train 3 iterations on losses of which rank 1 has a NaN in the last."""
    rank = comm.get_rank()
    assert (comm.get_world_size(), comm.get_local_rank(), comm.get_local_size()) == (2, rank, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        model = create_ddp_model(ScaledData(), fp16_compression=True, broadcast_buffers=False)
    assert isinstance(model, nn.parallel.DistributedDataParallel)
    values = (1.0 + rank, 3.0, math.nan if rank == 1 else 1.0)
    data = SlowData(batches_of(rank, *values), seconds=0.1 * rank)
    trainer = SimpleTrainer(model, data, torch.optim.SGD(model.parameters(), lr=0.5))
    try:
        trainer.train(0, 3)
    except FloatingPointError as error:
        Path(folder, f"error{rank}").write_text(str(error))
    losses = trainer.storage.history("loss_a").values()
    total = trainer.storage.history("total_loss").values()
    Path(folder, f"losses{rank}").write_text(repr((losses, total, model.module.weight.item())))
    times = [trainer.storage.history(name).latest() for name in ("data_time", "rank_data_time")]
    Path(folder, f"times{rank}").write_text(repr(times))


def sync_norm_model() -> nn.Module:
    """A convolution and a SyncBN, the same in every process."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), get_norm("SyncBN", 4))


def train_sync_norm(model: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Train 3 iterations on (N, 3, 5, 5) images -> the state."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        (model(images) * images.mean(dim=1, keepdim=True)).mean().backward()
        optimizer.step()
    return getattr(model, "module", model).state_dict()


def images_of(rank: int) -> torch.Tensor:
    """(2, 3, 5, 5) images, other ones for each rank."""
    return rank + torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(rank))


def train_twice(folder: str) -> None:
    """Both trainings in the same processes: to start them takes seconds."""
    train_together(folder)
    model = create_ddp_model(sync_norm_model())
    state = train_sync_norm(model, images_of(comm.get_rank()))
    torch.save(state, Path(folder, f"sync_norm{comm.get_rank()}.pt"))


class DivergingData(ScaledData):
    """Finds itself, as a proposal network does, that a number is infinite."""

    def forward(self, batch):
        if batch[0]["x"].isinf():
            raise FloatingPointError("boxes are infinite")
        return super().forward(batch)


def diverge_in_last_iteration(folder: str) -> None:
    """Train 2 iterations, of which the second raises on rank 1, with an evaluation at the end."""
    rank = comm.get_rank()
    model = create_ddp_model(DivergingData())
    data = batches_of(rank, 1.0, math.inf if rank == 1 else 1.0)
    trainer = SimpleTrainer(model, data, torch.optim.SGD(model.parameters(), lr=0.5))

    def evaluate() -> None:
        Path(folder, f"evaluated{rank}").touch()
        comm.synchronize()

    trainer.register_hooks([EvalHook(0, evaluate)])
    trainer.train(0, 2)


def fail_on_rank_1(how: str, folder: str) -> None:
    """End rank 1 in some way while rank 0 waits for it in a collective."""
    logging.disable()
    if comm.get_rank() == 0:
        dist.barrier()
        time.sleep(60)
    time.sleep(0.5)  # rank 0 is in the barrier
    Path(folder, "failing").touch()
    if how == "raise":
        raise KeyError("the annotation of image 139")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(7)
