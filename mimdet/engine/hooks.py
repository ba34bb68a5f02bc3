"""Hooks for what Detectron2's own do not do."""

import datetime
import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from timm.utils import ModelEmaV3
from torch import nn

from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

logger = logging.getLogger(__name__)


class RepeatableRandomness(HookBase):
    """Makes chance a function of a seed, the rank and the iteration, and not of the past.

    A run that resumes draws what it would have drawn without the interruption: masks, samples and
    dropped paths, because the global generators are seeded before each iteration; and batches, as
    far as the loader can start later (`set_start`) and depends on its `seed` alone, as those of
    `mimdet.data` do. So there is no generator's state to be saved.

    Args:
        data_loader: of the training.
        total_batch_size: images per iteration over all processes, if known.
        passed: position of the last batch that is not to come again, for a training that goes back
            and leaves batches out; None goes on with the batch behind those of the checkpoint.
    """

    def __init__(
        self, data_loader: Any, total_batch_size: int | None = None, passed: int | None = None
    ):
        self._data_loader = data_loader
        self._total_batch_size = total_batch_size
        self._passed = passed
        self._ahead = 0  # batches that were left out so far
        self._seed = comm.shared_random_seed()

    @property
    def position(self) -> int:
        """Place in the stream of batches of that of the running iteration."""
        return self.trainer.iter + self._ahead

    def before_train(self) -> None:
        """Let the loader start where training does."""
        if hasattr(self._data_loader, "seed"):
            self._data_loader.seed = self._seed
        if self._passed is not None:
            self._ahead = self._passed + 1 - self.trainer.start_iter
        if hasattr(self._data_loader, "set_start"):
            self._data_loader.set_start(self.trainer.start_iter + self._ahead)

    def before_step(self) -> None:
        """Seed `random`, numpy and torch."""
        # Mixed and not added up: rank 1 would draw now what rank 0 draws in the next iteration.
        entropy = np.random.SeedSequence([self._seed, comm.get_rank(), self.position])
        seed_all_rng(int(entropy.generate_state(1)[0]))

    def state_dict(self) -> dict[str, Any]:
        """The seed, which a configuration need not name, and what the batches depend on too."""
        state = {
            "seed": self._seed,
            "processes": comm.get_world_size(),
            "batch": self._total_batch_size,
        }
        return state | {"ahead": self._ahead} if self._ahead else state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the seed of the interrupted run; warn of what will differ from it."""
        # Drawn at the same place of the same start: another number means another `train.seed`.
        if state_dict["seed"] != self._seed:
            logger.warning(
                "The run that is resumed began with another seed (train.seed), and the order of "
                "its images is not known: they come in a new order from here on"
            )
        self._seed, self._ahead = state_dict["seed"], state_dict.get("ahead", 0)
        before, now = state_dict.get("processes"), comm.get_world_size()
        if before not in (None, now):
            logger.warning(
                f"The run that is resumed had {before} processes, and now there are {now}. It goes "
                "on at the same position of the stream of images. What the model draws differs "
                "from here on, and with aspect_ratio_grouping so do the batches; a few images that "
                "waited for their batch may come twice or not at all in this epoch"
            )
        before, now = state_dict.get("batch"), self._total_batch_size
        # Batch i stays a function of the seed and i: a position kept from before would have to be
        # carried through all later resumes.
        if None not in (before, now) and before != now:
            logger.warning(
                f"The run that is resumed had a dataloader.train.total_batch_size of {before}, and "
                f"now it is {now}. It goes on with the images that a run with {now} from the start "
                "would take in this iteration: at another position of their stream, so that some "
                "come again or are left out once; optimizer.lr and train.max_iter are not adapted"
            )


class GradientClipping(HookBase):
    """Scales gradients down to a norm, and stores the norm before as scalar `grad_norm`.

    Args:
        max_norm: largest L2 norm of all gradients together; ``inf`` only measures it.

    Raises:
        ValueError: if `max_norm` is not positive.
    """

    def __init__(self, max_norm: float):
        if not max_norm > 0:
            raise ValueError(f"train.clip_grad.max_norm must be positive, got {max_norm}")
        self._max_norm = max_norm

    def after_backward(self) -> None:
        """Clip, after undoing the loss scale."""
        # The norm is that of the gradients themselves. The scaler knows that it has been done and
        # does not do it again in its step.
        if hasattr(self.trainer, "grad_scaler"):
            self.trainer.grad_scaler.unscale_(self.trainer.optimizer)
        parameters = [p for group in self.trainer.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self._max_norm)
        self.trainer.storage.put_scalar("grad_norm", norm)


class EMA(HookBase):
    """Keeps an exponential moving average of a model's weights, in checkpoints too.

    Args:
        model: the model in training, without the wrapper of distributed training.
        decay: share of the average that an iteration keeps, in (0, 1).

    Raises:
        ValueError: if `decay` is out of range.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 < decay < 1:
            raise ValueError(f"train.ema.decay must be in (0, 1), got {decay}")
        self._model = model
        self._ema = ModelEmaV3(model, decay=decay)
        self._is_restored = False

    @property
    def averaged(self) -> nn.Module:
        """The model with the averaged weights, in evaluation mode."""
        return self._ema.module

    def before_train(self) -> None:
        """Start from the weights that training starts from."""
        if not self._is_restored:
            self._ema.set(self._model)

    def after_step(self) -> None:
        """Move towards the weights of this iteration."""
        self._ema.update(self._model)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights by their names in the model."""
        return self.averaged.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the averaged weights."""
        self.averaged.load_state_dict(state_dict)
        self._is_restored = True


class LossNormalizer(HookBase):
    """Keeps a detector's running loss normaliser in the trainer's state.

    RetinaNet divides its losses by an average over past batches, which is no weight: fine-tuning
    starts with the initial value, and a resumed run goes on with this hook's. In distributed
    training every process has its own. A checkpoint for another number of processes gives all of
    them that of rank 0.

    Args:
        model: the model in training, without the wrapper of distributed training.
        period: iterations from one checkpoint to the next.
    """

    def __init__(self, model: nn.Module, period: int):
        self._model = model
        self._period = period
        self._of_ranks: list[dict[str, float]] = []
        self._gathered_in = -1

    def after_step(self) -> None:
        """Exchange the values before a checkpoint, which the main process writes on its own."""
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            self.exchange()

    def exchange(self) -> None:
        """Let the state be that of all processes in this iteration; all of them must call this."""
        if comm.get_world_size() > 1 and (own := self._own()):
            self._of_ranks, self._gathered_in = comm.all_gather(own), self.trainer.iter

    def _own(self) -> dict[str, float]:
        return {
            name: module.loss_normalizer
            for name, module in self._model.named_modules()
            if hasattr(module, "loss_normalizer")  # upstream's RetinaNet only after a batch
        }

    def state_dict(self) -> dict[str, float | list[float]]:
        """The value of each part of the model that has one, by its name; or those of all ranks."""
        if self._of_ranks and self._gathered_in == self.trainer.iter:
            return {name: [of[name] for of in self._of_ranks] for name in self._of_ranks[0]}
        return self._own()

    def load_state_dict(self, state_dict: Mapping[str, float | list[float]]) -> None:
        """Restore the values."""
        for name, value in state_dict.items():
            if isinstance(value, list):
                is_same_job = len(value) == comm.get_world_size()
                value = value[comm.get_rank() if is_same_job else 0]
            self._model.get_submodule(name).loss_normalizer = value


class Throughput(HookBase):
    """Stores the images per second of all processes, as a scalar that the log shows.

    Once, when the speed is known, it also says how long an epoch and the rest of training take.

    Args:
        total_batch_size: images per iteration over all processes.
        data_loader: of the training; its `dataset_size`, if it has one, is an epoch.
        report_after: iterations after which the speed counts as known.
    """

    def __init__(self, total_batch_size: int, data_loader: Any, report_after: int = 20):
        self._total_batch_size = total_batch_size
        self._dataset_size = getattr(data_loader, "dataset_size", None)
        self._report_after = report_after

    def before_step(self) -> None:
        """Note when the iteration starts; the clock of all of them starts after the first."""
        self._start = time.perf_counter()
        # The first iteration pays for what comes once: workers that start, kernels that are chosen.
        if self.trainer.iter <= self.trainer.start_iter + 1:
            self._first_start = self._start

    def after_step(self) -> None:
        """Store the speed of this iteration."""
        now = time.perf_counter()
        rate = self._total_batch_size / (now - self._start)
        self.trainer.storage.put_scalar("[metric]images_per_second", rate)
        timed = self.trainer.iter - self.trainer.start_iter
        if timed == self._report_after:
            self._report(self._total_batch_size * timed / (now - self._first_start))

    def _report(self, images_per_second: float) -> None:
        left = self.trainer.max_iter - self.trainer.iter - 1
        seconds = left * self._total_batch_size / images_per_second
        text = (
            f"{_duration(seconds)} left for {left} of {self.trainer.max_iter} iterations at "
            f"{images_per_second:.1f} images per second, evaluations besides"
        )
        if self._dataset_size:
            epochs = self._total_batch_size * self.trainer.max_iter / self._dataset_size
            text += (
                f"; an epoch of {self._dataset_size} images takes "
                f"{_duration(self._dataset_size / images_per_second)}, and training is "
                f"{epochs:.1f} epochs"
            )
        logger.info(text)


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=math.ceil(seconds)))
