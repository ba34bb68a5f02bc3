"""What a training does about a loss or gradients that are infinite or NaN: `train.nonfinite`."""

import gc
import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import DictConfig
from torch import Tensor, nn

from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import get_event_storage
from mimdet.engine.hooks import RepeatableRandomness
from mimdet.shown import shown

logger = logging.getLogger(__name__)

_PATH = 300  # characters

STOP, SKIP, REWIND = CHOICES = ("stop", "skip", "rewind")


def check_nonfinite(cfg: DictConfig) -> None:
    """Refuse other values of the keys.

    Raises:
        ValueError: naming the key.
    """
    choice, limit = cfg.train.get("nonfinite", STOP), cfg.train.get("nonfinite_max", 10)
    if choice not in CHOICES:
        raise ValueError(f"train.nonfinite must be one of {list(CHOICES)}, got {choice!r}")
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        raise ValueError(f"train.nonfinite_max must be a whole number from 0 on, got {limit!r}")


class NonFiniteError(ArithmeticError):
    """A batch has a loss or gradients that are not finite: raised on all ranks, before the update.

    It is no FloatingPointError, to which Detectron2-lite adds the images of this rank alone.
    """


class Rewind(BaseException):
    """Ends a training that is to go on from its last checkpoint; no error, and logged as none.

    Args:
        position: in the stream of batches, of the one that failed.
        count: of the batches that have failed so far.
    """

    def __init__(self, position: int, count: int):
        super().__init__(position, count)
        self.position, self.count = position, count


class FiniteLosses(nn.Module):
    """A model whose losses are checked, on all ranks together, before the backward pass.

    In the backward pass ranks exchange gradients: one that left it out alone would block the
    others. So the host waits for the losses, which it does not where `train.nonfinite` is "stop".

    Args:
        model: returns a loss or a dict of losses, or raises FloatingPointError.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> Any:
        """The losses of the model.

        Raises:
            NonFiniteError: on all ranks, if the losses of one of them are not finite.
        """
        problem = ""
        try:
            losses = self.model(batch)
            total = sum(losses.values()) if isinstance(losses, Mapping) else losses
            is_bad = ~total.detach().isfinite().reshape(())
        except FloatingPointError as e:  # Detectron2's proposals raise it
            # On the device of the model, as the flags of the other ranks are: NCCL takes no others.
            problem, is_bad = str(e), next(self.parameters()).new_ones((), dtype=torch.bool)
        if _on_any_rank(is_bad):
            raise NonFiniteError(_describe(bool(is_bad), problem or _values(losses), batch))
        return losses


def _on_any_rank(flag: Tensor) -> bool:
    if comm.get_world_size() > 1:
        flag = flag.int() if dist.get_backend() == "nccl" else flag.int().cpu()
        dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def _values(losses: Any) -> str:
    losses = losses if isinstance(losses, Mapping) else {"total_loss": losses}
    return f"loss_dict = { ({name: loss.item() for name, loss in losses.items()}) }"


def _describe(is_bad: bool, what: str, batch: Any) -> str:
    """The same text on all ranks; all of them must call this."""
    of_ranks = dict(enumerate(comm.all_gather((what, _images(batch)) if is_bad else None)))
    bad = {rank: entry for rank, entry in of_ranks.items() if entry}
    images = "".join(
        f"; on rank {rank}" + (f", images {names}" if names else "")
        for rank, (_, names) in bad.items()
    )
    iteration = get_event_storage().iter
    what = next(iter(bad.values()))[0]
    return f"Loss became infinite or NaN at iteration={iteration}! {what}{images}"


def _images(batch: Any) -> list[str]:
    samples = [s for s in batch if isinstance(s, Mapping)] if isinstance(batch, list) else []
    names = [
        [shown(s[key], _PATH) for key in ("image_id", "file_name") if key in s] for s in samples
    ]
    return [" ".join(parts) for parts in names if parts]


class NonFinitePolicy(HookBase):
    """Counts the batches that have failed, in metrics and checkpoints, and bounds their number.

    Skipping leaves weights, optimizer state, buffers and loss scale as they were. The iteration
    counts: the schedule moves on and the average (EMA) takes the same weights once more, as after
    gradients that the loss scaler refuses.

    Rewinding goes back to the last checkpoint, or to the start, and on with the batch behind the
    one that failed: those in between are left out too, or the same would happen again. Compare the
    loss spikes of Chowdhery et al. 2022, arXiv 2204.02311, section 5.1.

    Args:
        choice: "skip" or "rewind".
        limit: largest number of batches of the whole run that may fail.
        randomness: knows the position in the stream of batches.
        rewound: what this training goes on from, if it has been rewound.
    """

    def __init__(
        self,
        choice: str,
        limit: int,
        randomness: RepeatableRandomness,
        rewound: Rewind | None = None,
    ):
        self._choice, self._limit, self._randomness = choice, limit, randomness
        self._least = rewound.count if rewound else 0
        self._count = self._least

    def after_backward(self) -> None:
        """Check the gradients, which are the same on all ranks.

        Raises:
            NonFiniteError: if their norm is not finite and no loss scaler cares for that.
        """
        scaler = getattr(self.trainer, "grad_scaler", None)
        # It leaves out such an update by itself and lowers the scale, which is how it finds one.
        if scaler is not None and scaler.is_enabled():
            return
        groups = self.trainer.optimizer.param_groups
        gradients = [p.grad for g in groups for p in g["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not norm.isfinite():
            raise NonFiniteError(
                f"Gradients became infinite or NaN at iteration={self.trainer.iter}, their norm "
                f"is {norm.item()}"
            )

    def after_step(self) -> None:
        """Store the scalar `nonfinite_batches`."""
        self.trainer.storage.put_scalar("nonfinite_batches", self._count, smoothing_hint=False)

    def answer(self, error: NonFiniteError) -> None:
        """Count a batch that has failed, and let the training go on or go back.

        Raises:
            FloatingPointError: if there are too many.
            Rewind: if the training is to go back.
        """
        self._count += 1
        if self._count > self._limit:
            raise FloatingPointError(
                f"{error}. That is batch {self._count} of this kind, and train.nonfinite="
                f"{self._choice} leaves out at most train.nonfinite_max={self._limit}"
            ) from error
        logger.warning(f"{error}. train.nonfinite={self._choice}, batch {self._count} of its kind")
        if self._choice == REWIND:
            raise Rewind(self._randomness.position, self._count)

    def state_dict(self) -> dict[str, int]:
        """How many batches have failed."""
        return {"count": self._count}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Go on counting; the checkpoint does not know what came after it."""
        self._count = max(state_dict["count"], self._least)


class _Tolerant:
    """Leaves out iterations whose losses or gradients are not finite, as a policy says."""

    def __init__(self, policy: NonFinitePolicy, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._policy = policy

    def run_step(self) -> None:
        # Running statistics of a normalisation take in the batch before its loss is known.
        # Only buffers: weights change in the update, which both errors prevent, and gradients are
        # zeroed in the next iteration.
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        try:
            super().run_step()
        except NonFiniteError as error:
            self._policy.answer(error)
            for buffer, before in buffers:
                buffer.copy_(before)


class TolerantTrainer(_Tolerant, SimpleTrainer):
    """A SimpleTrainer with a `NonFinitePolicy`."""


class TolerantAMPTrainer(_Tolerant, AMPTrainer):
    """An AMPTrainer with a `NonFinitePolicy`."""


def build_policy(
    cfg: DictConfig, randomness: RepeatableRandomness, rewound: Rewind | None
) -> NonFinitePolicy | None:
    """What `train.nonfinite` asks for; None for "stop", which trainers do by themselves."""
    choice = cfg.train.get("nonfinite", STOP)
    if choice == STOP:
        return None
    return NonFinitePolicy(choice, cfg.train.get("nonfinite_max", 10), randomness, rewound)


def train_with_rewinds(train: Callable[[Rewind | None], None], seed: int) -> None:
    """Train, and again from the last checkpoint as often as a policy asks for it.

    Args:
        train: called with None at first, then with the `Rewind` that has ended it.
        seed: of the run, set again each time for a training that starts anew.
    """
    rewound = None
    while True:
        try:
            return train(rewound)
        except Rewind as e:
            rewound = e.with_traceback(None)  # which holds the model
            rewound.__context__ = None
        gc.collect()
        seed_all_rng(seed + comm.get_rank())
