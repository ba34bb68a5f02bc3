"""What one iteration of a training does, in full and in mixed precision."""

import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer

from detectron2.engine.loss_metrics import LossMetrics, describe_images, image_names
from detectron2.engine.trainer_base import HookBase, TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage

__all__ = ["AMPTrainer", "HookBase", "SimpleTrainer", "TrainerBase"]

logger = logging.getLogger(__name__)


class SimpleTrainer(TrainerBase):
    """Trains one model with one optimizer on one stream of data.

    An iteration fetches data, runs the model, which returns losses, sums these, runs backward and
    updates the weights. Use hooks for everything else.

    The losses are stored as scalars: their mean over the ranks, `total_loss`, and `data_time`
    (seconds waited for data, the slowest rank). All losses reach the host in one transfer, and all
    ranks see the same numbers, so that a loss that is not finite stops every rank in the same
    iteration, before the weights are updated. The error names the images (`image_id` and
    `file_name` of the data) of the ranks on which it arose.

    Args:
        model: called with the data, returns one loss or a dict of losses (the same names on
            every rank). It is put into training mode.
        data_loader: endless iterable of data.
        optimizer: updates the weights.
        gather_metric_period: store and check the losses every so many iterations.
        zero_grad_before_forward: clear the gradients before the forward pass, not before the
            backward pass.
        async_write_metrics: do not wait for the losses of an iteration; store and check them in
            the next one. A loss that is not finite is then found one update later.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        async_write_metrics: bool = False,
    ):
        super().__init__()
        model.train()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.gather_metric_period = gather_metric_period
        self.zero_grad_before_forward = zero_grad_before_forward
        self.async_write_metrics = async_write_metrics
        self._pending_metrics: LossMetrics | None = None

    def run_step(self) -> None:
        """Do one iteration.

        Raises:
            AssertionError: the model is in evaluation mode.
            StopIteration: the data loader has ended.
            TypeError: the model returns something else than losses.
            FloatingPointError: the sum of the losses is not finite (on every rank), or the model
                itself has raised this error (on this rank); the message names the images.
        """
        assert self.model.training, (
            f"[{type(self).__name__}] the model is in evaluation mode in iteration {self.iter}; "
            "call model.train() after an evaluation"
        )
        start = time.perf_counter()
        data = self._next_data()
        data_time = time.perf_counter() - start

        if self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        losses, total_loss = self._losses_or_images(data)
        if not self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        self._backward(total_loss)
        self.after_backward()
        # Before the update: a loss that is not finite is raised here, unless metrics are written
        # asynchronously, and the weights stay as they are.
        self._write_metrics(losses, data_time, data=data)
        self._update()

    def state_dict(self) -> dict[str, Any]:
        """The state of the base class and of the optimizer."""
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the iteration, the hooks and the optimizer."""
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])

    def reset_data_loader(self, data_loader_builder: Callable[[], Iterable[Any]]) -> None:
        """Replace the loader from the next iteration on, in the middle of a training too.

        Args:
            data_loader_builder: makes the new loader; called after the old one is given up, whose
                workers would need memory at the same time.
        """
        self.data_loader = None
        # The cached property: the next read makes an iterator of the new loader.
        vars(self).pop("_data_loader_iter", None)
        self.data_loader = data_loader_builder()

    @staticmethod
    def write_metrics(
        loss_dict: Mapping[str, Tensor], data_time: float, cur_iter: int, prefix: str = ""
    ) -> None:
        """Store losses and `data_time` as an iteration does; all ranks must call this.

        Args:
            loss_dict: one-element tensors by name, the same names on every rank.
            data_time: seconds that this rank has waited for data.
            cur_iter: the iteration that they belong to.
            prefix: of the names of the losses, and of `total_loss`, in the storage.

        Raises:
            FloatingPointError: the sum of the losses is not finite.
        """
        LossMetrics(cur_iter, loss_dict, data_time, [], prefix).store(together=True)

    def _final_calls(self) -> list[Callable[[], None]]:
        return [self._flush_last_metrics, *super()._final_calls()]

    @functools.cached_property
    def _data_loader_iter(self) -> Iterator[Any]:
        """The iterator over the data, by the name that subclasses of upstream's trainer read."""
        return iter(self.data_loader)

    def _next_data(self) -> Any:
        try:
            return next(self._data_loader_iter)
        except StopIteration:
            raise StopIteration(
                f"the data loader ended before iteration {self.iter} of {self.max_iter}; "
                "training needs a loader that never ends"
            ) from None

    def _losses_or_images(self, data: Any) -> tuple[dict[str, Tensor], Tensor]:
        """The losses; where the model itself finds that numbers are not finite, with the images."""
        try:
            return self._compute_losses(data)
        except FloatingPointError as error:
            images = describe_images({comm.get_rank(): image_names(data)})
            raise FloatingPointError(f"{error} (iteration={self.iter}{images})") from error

    def _compute_losses(self, data: Any) -> tuple[dict[str, Tensor], Tensor]:
        """The losses by name, and their sum."""
        losses = self.model(data)
        if isinstance(losses, Tensor):
            losses = {"total_loss": losses}
        if not isinstance(losses, Mapping) or not losses:
            raise TypeError(
                "a model in training mode must return a loss tensor or a dict of losses, "
                f"{type(self.model).__name__} returned {type(losses).__name__}: {losses!r:.200}"
            )
        return losses, sum(losses.values())

    def _backward(self, total_loss: Tensor) -> None:
        total_loss.backward()

    def _update(self) -> None:
        self.optimizer.step()

    def _write_metrics(
        self, loss_dict: Mapping[str, Tensor], data_time: float, prefix: str = "", data: Any = None
    ) -> None:
        """Store the losses of this iteration, or of the one before when writing lags behind."""
        self._flush_metrics()
        if (self.iter + 1) % self.gather_metric_period != 0:
            return
        self._pending_metrics = LossMetrics(
            self.iter, loss_dict, data_time, image_names(data), prefix
        )
        if not self.async_write_metrics:
            self._flush_metrics()

    def _flush_metrics(self, together: bool = True) -> None:
        # Taken away first: what is raised here must not be raised again when training ends.
        metrics, self._pending_metrics = self._pending_metrics, None
        if metrics is not None:
            metrics.store(together)

    def _flush_last_metrics(self) -> None:
        self._flush_metrics(together=False)  # after a failure not all ranks come here


class AMPTrainer(SimpleTrainer):
    """A `SimpleTrainer` whose forward pass runs in mixed precision.

    Gradients that overflow are skipped by the loss scaler; a loss that overflows is an error, as
    in `SimpleTrainer`. bfloat16 has the range of float32, so nothing is scaled then.

    float16 needs a CUDA device. On another device, training runs in float32, with a warning, so
    that a configuration can be tried out there; bfloat16 works on the CPU.

    Args:
        model: see `SimpleTrainer`; `DistributedDataParallel` must have one device per process.
        data_loader: see `SimpleTrainer`.
        optimizer: see `SimpleTrainer`.
        gather_metric_period: see `SimpleTrainer`.
        zero_grad_before_forward: see `SimpleTrainer`.
        grad_scaler: scales the loss; None makes a `torch.amp.GradScaler` for float16 on CUDA.
        precision: type of the forward pass, torch.float16 or torch.bfloat16.
        log_grad_scaler: store the scale as scalar `[metric]grad_scaler`.
        async_write_metrics: see `SimpleTrainer`.

    Raises:
        AssertionError: the model is wrapped for several devices in one process.

    Reference: Micikevicius et al. 2018, arXiv 1710.03740, section 3 (loss scaling).
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[Any],
        optimizer: Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        grad_scaler: torch.amp.GradScaler | None = None,
        precision: torch.dtype = torch.float16,
        log_grad_scaler: bool = False,
        async_write_metrics: bool = False,
    ):
        devices = getattr(model, "device_ids", None) or []
        single = not isinstance(model, DistributedDataParallel) or len(devices) <= 1
        assert single and not isinstance(model, DataParallel), (
            f"AMPTrainer needs one device per process, got {type(model).__name__} on {devices}"
        )
        super().__init__(
            model,
            data_loader,
            optimizer,
            gather_metric_period,
            zero_grad_before_forward,
            async_write_metrics,
        )
        self.precision = precision
        self.log_grad_scaler = log_grad_scaler
        device_type = _device_type(model)
        in_float16 = precision == torch.float16
        is_mixed = device_type == "cuda" or not in_float16
        if not is_mixed:
            logger.warning(
                f"Mixed precision in {precision} needs a CUDA device, but the model is on "
                f"{device_type}: training runs in float32"
            )
        self._autocast = torch.autocast(device_type, dtype=precision, enabled=is_mixed)
        if grad_scaler is None:
            grad_scaler = torch.amp.GradScaler(device_type, enabled=in_float16 and is_mixed)
        self.grad_scaler = grad_scaler

    def state_dict(self) -> dict[str, Any]:
        """The state of the base class and of the loss scaler."""
        scaler = self.grad_scaler
        if not scaler.is_enabled():
            # Upstream's scaler is always enabled, and such a one refuses the state {} of one that
            # is not: the file gets the state of a scaler that has not been used yet.
            scaler = torch.amp.GradScaler("cpu")
        return {**super().state_dict(), "grad_scaler": scaler.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore also the loss scaler; without one in the checkpoint it starts anew."""
        super().load_state_dict(state_dict)
        scaler_state = state_dict.get("grad_scaler")
        if scaler_state:
            self.grad_scaler.load_state_dict(scaler_state)
        elif self.grad_scaler.is_enabled():
            logger.warning(
                "The checkpoint was written without loss scaling; the loss scale starts from "
                f"{self.grad_scaler.get_scale()}"
            )

    def _compute_losses(self, data: Any) -> tuple[dict[str, Tensor], Tensor]:
        # Around the forward pass alone: the backward pass takes the types that this one has used.
        with self._autocast:
            return super()._compute_losses(data)

    def _backward(self, total_loss: Tensor) -> None:
        self.grad_scaler.scale(total_loss).backward()
        if self.log_grad_scaler:
            get_event_storage().put_scalar("[metric]grad_scaler", self.grad_scaler.get_scale())

    def _update(self) -> None:
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()


def _device_type(model: nn.Module) -> str:
    """Type of the device that holds the weights ("cuda", "cpu"); "cpu" if there are none."""
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return "cpu" if tensor is None else tensor.device.type
