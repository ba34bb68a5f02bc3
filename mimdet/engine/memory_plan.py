"""The memory that a training step needs, and what follows for activation checkpointing."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from detectron2.config import instantiate
from detectron2.utils import comm
from mimdet.config import AUTO, SWITCHES, all_keys
from mimdet.engine.follow_data import nodes
from mimdet.engine.kept_memory import kept_bytes

GIB = 2**30

# What is not measured: losses, gradients on their way, what kernels need while they run, fragments
# of the allocator; and what a process holds before its first tensor. A step of MIMDet-B on the CPU
# took 0.7 GiB for the one and 0.8 GiB for the other.
_MARGIN = 1.2
_PROCESS = GIB

_STRIDE = 32  # of the coarsest map; padded sides are multiples of it
_LANDSCAPE = 5 / 3  # as 800 x 1333, for recipes that do not bound the longer side
# Of a container (cgroup v2); "max" where there is no limit.
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one process in a training step.

    Attributes:
        state: weights, their gradients, what the optimizer keeps of them, and their average.
        kept: by the forward pass for the backward pass.
    """

    state: int
    kept: int

    @property
    def needed(self) -> int:
        """What a device must have, with a margin for what is not measured."""
        return int(self.state + _MARGIN * self.kept) + _PROCESS


def step_memory(
    cfg: DictConfig, images: int, checkpointing: bool | None = None, ratio: float | None = None
) -> StepMemory:
    """Measure what a training step of a detector needs.

    Args:
        cfg: of the run; not changed.
        images: in one pass of one process.
        checkpointing: instead of what the config says.
        ratio: of the sampled tokens, instead of what the config says.
    """
    cfg = cfg.copy()
    if checkpointing is not None:
        set_checkpointing(cfg, switches(cfg), checkpointing)
    if ratio is not None:
        cfg.model.backbone.bottom_up.sample_ratio = ratio
    kept = kept_bytes(cfg.model, images, training_size(cfg), bool(cfg.train.amp.enabled))
    return StepMemory(state_bytes(cfg), kept.backbone + kept.heads)


def state_bytes(cfg: DictConfig, gradients: int = 1) -> int:
    """Bytes of weights, of their gradients and of what a checkpoint holds besides the weights.

    Args:
        cfg: of the run.
        gradients: 0 leaves them out, as a checkpoint does.
    """
    with torch.device("meta"):
        model = instantiate(cfg.model)
    weights = sum(p.nbytes for p in model.parameters())
    learned = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    target = cfg.optimizer._target_
    is_sgd = (target if isinstance(target, str) else target.__name__).endswith("SGD")
    moments = 1 if is_sgd else 2  # momentum; the two of Adam
    averages = OmegaConf.select(cfg, "train.ema.decay") is not None
    return weights * (1 + averages) + learned * (gradients + moments)


def switches(cfg: DictConfig, value: Any = None) -> list[str]:
    """The keys that turn activation checkpointing on and off; with a value, those that have it."""
    keys = [key for key in all_keys(cfg.model, "model.") if key.rpartition(".")[2] in SWITCHES]
    return [key for key in keys if value is None or OmegaConf.select(cfg, key) == value]


def set_checkpointing(cfg: DictConfig, keys: list[str], value: bool) -> None:
    """Turn activation checkpointing on or off, in place."""
    for key in keys:
        OmegaConf.update(cfg, key, value)


def images_per_pass(cfg: DictConfig, processes: int) -> int:
    """How many images of a batch pass through the model of a process at once."""
    pieces = processes * cfg.train.get("accumulation_steps", 1)
    return max(1, cfg.dataloader.train.total_batch_size // pieces)


def training_size(cfg: DictConfig) -> tuple[int, int]:
    """Height and width of the largest padded batch of a recipe, by its augmentations."""
    found = [size for node in nodes(cfg.dataloader.train) for size in _sizes(node)]
    # The last one, because a crop behind a resize decides.
    height, width = found[-1] if found else (800, 1333)
    return _padded(height), _padded(width)


def _padded(side: float) -> int:
    return -(-int(side) // _STRIDE) * _STRIDE


def _sizes(node: DictConfig) -> Iterator[tuple[float, float]]:
    """The (height, width) that an augmentation gives an image, if it is one that gives sizes."""
    target = node.get("_target_", "")
    name = (target if isinstance(target, str) else target.__name__).rpartition(".")[2]
    if name == "FixedSizeCrop":
        yield tuple(node.crop_size)
    if name == "ResizeShortestEdge":
        edges = node.short_edge_length
        short = edges if isinstance(edges, int) else max(edges)
        yield short, min(node.get("max_size") or 10**9, short * _LANDSCAPE)


def device_memory(device: str, processes_here: int = 1) -> int:
    """Bytes of a card; on the CPU a process's part of those of the machine or container.

    Raises:
        ValueError: if there is no such card.
    """
    if torch.device(device).type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(
                f"train.device={device} needs a card, and torch finds none on this machine; "
                "train.device=cpu does without (to plan for a card elsewhere: --memory 24GB)"
            )
        return torch.cuda.get_device_properties(device).total_memory
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if _CGROUP_LIMIT.is_file() and (limit := _CGROUP_LIMIT.read_text().strip()).isdecimal():
        total = min(total, int(limit))
    return total // processes_here


def settle_checkpointing(cfg: DictConfig) -> list[str]:
    """Put what "auto" means on these devices into the switches of activation checkpointing.

    It changes no number, and costs about a third more computation: it is on where what would be
    kept without it does not fit. All processes of the job call this and get the same; the main one
    measures.

    Args:
        cfg: of a training, whose heads know their classes; changed in place.

    Returns:
        A line with the estimate and the reason, or none.
    """
    keys = switches(cfg, AUTO)
    if not keys:
        return []
    memory = min(comm.all_gather(device_memory(cfg.train.device, comm.get_local_size())))
    plan = None
    if comm.is_main_process():
        plan = plan_step(cfg, comm.get_world_size(), memory)
    recomputes, line = comm.all_gather(plan)[0]
    set_checkpointing(cfg, keys, recomputes)
    return [line]


def plan_step(cfg: DictConfig, processes: int, memory: int) -> tuple[bool, str]:
    """Compare what a training step needs with a device of so many bytes.

    Args:
        cfg: of a training, whose heads know their classes.
        processes: of the job.
        memory: bytes of each one's device.

    Returns:
        Whether "auto" recomputes activations, and the estimate with the reason in one line.
    """
    images, is_auto = images_per_pass(cfg, processes), bool(switches(cfg, AUTO))
    told = "; activation checkpointing: auto {} activations"
    try:
        needs = step_memory(cfg, images, checkpointing=False if is_auto else None)
        if not is_auto:
            return False, describe(cfg, needs, processes, memory)
        recomputing = step_memory(cfg, images, checkpointing=True)
    # What somebody else's backbone does with tensors without content is not known here.
    except Exception as e:
        line = f"memory: not known, this model cannot be measured ({' '.join(str(e).split())[:99]})"
        return True, line + told.format("recomputes") * is_auto
    if needs.needed <= memory:
        return False, describe(cfg, needs, processes, memory) + told.format("keeps")
    needed = gib(needs.needed)
    line = describe(cfg, recomputing, processes, memory)
    return True, f"{line}{told.format('recomputes')}, which would need {needed} if they were kept"


def describe(cfg: DictConfig, needs: StepMemory, processes: int, memory: int) -> str:
    """What a training step needs, in words."""
    height, width = training_size(cfg)
    return (
        f"memory: about {gib(needs.needed)} of the {gib(memory)} of "
        f"{cfg.train.device}: {gib(needs.state)} weights, gradients and optimizer, "
        f"{gib(needs.kept)} activations of {images_per_pass(cfg, processes)} images of "
        f"{height}x{width}, and a margin"
    )


def gib(number: int) -> str:
    """A number of bytes for people."""
    return f"{number / GIB:.1f} GiB" if number >= 0.1 * GIB else f"{number / 2**20:.0f} MiB"
