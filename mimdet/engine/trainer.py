"""The trainer of a run, with the options that the training script offers."""

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from detectron2 import engine
from detectron2.engine import AMPTrainer, SimpleTrainer
from mimdet.engine.nonfinite import (
    FiniteLosses,
    NonFinitePolicy,
    TolerantAMPTrainer,
    TolerantTrainer,
)
from mimdet.engine.precision import amp_dtype as dtype_of


def data_parallel(model: nn.Module, *, bf16_compression: bool = False, **kwargs: Any) -> nn.Module:
    """Wrap a model where there are several processes, see `detectron2.engine.create_ddp_model`.

    Args:
        model: the model, on its device.
        bf16_compression: exchange the gradients in bfloat16; left out for a model on the CPU, where
            torch cannot.
        **kwargs: of `create_ddp_model`.
    """
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    if on_cpu:
        # Upstream's takes the rank for a GPU, which torch refuses for a model on the CPU.
        kwargs.setdefault("device_ids", None)
    wrapped = engine.create_ddp_model(model, **kwargs)
    if bf16_compression and not on_cpu and isinstance(wrapped, DistributedDataParallel):
        wrapped.register_comm_hook(state=None, hook=bf16_compress_hook)
    return wrapped


def build_trainer(
    model: nn.Module,
    data_loader: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    *,
    amp_enabled: bool = False,
    amp_dtype: str = "float16",
    accumulation_steps: int = 1,
    policy: NonFinitePolicy | None = None,
) -> SimpleTrainer:
    """Make the trainer for a model.

    Args:
        model: on its device, wrapped for distributed training if it will be.
        data_loader: endless batches.
        optimizer: of the model.
        amp_enabled: run the forward pass in mixed precision.
        amp_dtype: its type, "float16" (whose loss is scaled; on CUDA only), "bfloat16" or "auto".
        accumulation_steps: pieces in which a batch passes through the model.
        policy: what to do about a loss that is not finite; None stops.

    Raises:
        ValueError: if `amp_dtype` is another one, or `accumulation_steps` is not positive.
    """
    device = next(model.parameters()).device
    precision = dtype_of(amp_dtype, device)
    if accumulation_steps < 1:
        raise ValueError(f"train.accumulation_steps must be at least 1, got {accumulation_steps}")
    scaled = amp_enabled and precision is torch.float16 and device.type == "cuda"
    scaler = torch.amp.GradScaler(device.type, enabled=scaled)
    options: dict[str, Any] = {}
    if accumulation_steps > 1:
        model = GradientAccumulation(model, accumulation_steps, scaler)
        options["zero_grad_before_forward"] = True  # because the forward pass adds gradients
    if amp_enabled:
        options |= dict(precision=precision, grad_scaler=scaler)
    if policy:
        kind = TolerantAMPTrainer if amp_enabled else TolerantTrainer
        return kind(policy, FiniteLosses(model), data_loader, optimizer, **options)
    kind = AMPTrainer if amp_enabled else SimpleTrainer
    return kind(model, data_loader, optimizer, **options)


class GradientAccumulation(nn.Module):
    """Passes a batch through a model in pieces, so that memory need hold the activations of one.

    The forward pass runs forward and backward of all pieces but the last. The losses that it
    returns have the value of the mean over all pieces, and the gradient that is still missing. So
    batch size, learning rate and schedule are those of the whole batch, in every trainer.

    Args:
        model: returns a dict of losses, in distributed training already wrapped for it.
        steps: number of pieces, all of the same length.
        grad_scaler: the scaler of the trainer, which applies to every backward pass.
    """

    def __init__(self, model: nn.Module, steps: int, grad_scaler: torch.amp.GradScaler):
        super().__init__()
        self.model = model
        self.steps = steps
        self.grad_scaler = grad_scaler

    def forward(self, batch: list[Any]) -> dict[str, Tensor]:
        """The mean losses of a batch, a list of samples.

        Raises:
            ValueError: if the number of samples is not a multiple of `steps`.
        """
        if len(batch) % self.steps:
            raise ValueError(
                "train.accumulation_steps must divide the batch of each process "
                "(dataloader.train.total_batch_size / processes), got "
                f"{self.steps} and {len(batch)}"
            )
        size = len(batch) // self.steps
        *pieces, last = (batch[k : k + size] for k in range(0, len(batch), size))
        earlier = [self._backward(piece) for piece in pieces]
        return {
            name: (loss + sum(losses[name] for losses in earlier)) / self.steps
            for name, loss in self.model(last).items()
        }

    def _backward(self, piece: list[Any]) -> dict[str, Tensor]:
        """Add the gradients of a piece; processes exchange them with those of the last one."""
        is_ddp = isinstance(self.model, DistributedDataParallel)
        # Around the forward pass too: that is where DDP decides whether the backward pass
        # exchanges.
        with self.model.no_sync() if is_ddp else contextlib.nullcontext():
            losses = self.model(piece)
            total = sum(losses.values()) / self.steps
            # The trainer calls this inside autocast, for the forward pass; backward operators have
            # the types of their forward ones, which autocast would change.
            with torch.autocast(total.device.type, enabled=False):
                self.grad_scaler.scale(total).backward()
        return {name: loss.detach() for name, loss in losses.items()}
