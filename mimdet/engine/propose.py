"""What fits into a given memory: `--plan`."""

import re
from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from mimdet.config import AUTO, RATIO
from mimdet.engine.memory_plan import GIB, StepMemory, gib, step_memory, switches

_RATIOS = (0.5, 0.25)
_HEADER = """\
| activation checkpointing | sample ratio | images in a pass that fit | batch of all processes |
|---|---|---:|---:|"""


def parse_memory(text: str) -> int:
    """Bytes of "24GB", as cards are sold: a GB is 2**30 bytes here.

    Raises:
        ValueError: if it is no such text.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:G|GB|GiB)?", text.strip(), re.IGNORECASE)
    if not found or not float(found[1]) > 0:
        raise ValueError(f"--memory must be a size such as 24GB, got {text!r}")
    return int(float(found[1]) * GIB)


def propose(cfg: DictConfig, processes: int, memory: int) -> list[str]:
    """The settings of a training that fit into a memory, and the first of them to take.

    What changes no number comes first: to keep activations, to recompute them, then a batch in
    pieces (which batch norms notice), and last fewer tokens.

    Args:
        cfg: of the run, whose heads know their classes; not changed.
        processes: of the job.
        memory: bytes of the device of each.

    Returns:
        Lines: a table, and a proposal as overrides.
    """
    of_process = cfg.dataloader.train.total_batch_size // processes
    steps = cfg.train.get("accumulation_steps", 1)
    lines, proposal, smallest = [_HEADER], None, None
    for ratio in _ratios(cfg):
        fitting = {}
        for checkpointing in (False, True) if switches(cfg) else (False,):
            one, two = (step_memory(cfg, n, checkpointing, ratio) for n in (1, 2))
            fitting[checkpointing] = most = _most_images(one, two, memory)
            smallest = min(smallest or one.needed, one.needed)
            lines.append(
                f"| {'on' if checkpointing else 'off'} | {'' if ratio is None else ratio} | "
                f"{most} | {most * processes * steps} |"
            )
        if proposal is None:
            proposal = _overrides(cfg, ratio, fitting, of_process, steps)
    if proposal is None:
        return [
            *lines,
            f"proposal: none, one image needs {gib(smallest)} at least: smaller images, or a "
            "smaller model",
        ]
    return [*lines, f"proposal: {' '.join(proposal) or 'as it is'}"]


def _ratios(cfg: DictConfig) -> list[float | None]:
    """Of MIMDet that of the config and smaller ones; else there is none."""
    own = OmegaConf.select(cfg, RATIO)
    return [own, *(ratio for ratio in _RATIOS if own and ratio < own)]


def _most_images(one: StepMemory, two: StepMemory, memory: int) -> int:
    """How many images fit, when those with one and with two are known."""
    # What an image adds is the same for each; one and two tell it apart from what is there once.
    return max(0, 1 + (memory - one.needed) // (two.needed - one.needed))


def _overrides(
    cfg: DictConfig, ratio: float | None, fitting: dict[bool, int], images: int, steps: int
) -> list[str] | None:
    """What to write for a batch of so many images of a process; None where nothing fits."""
    for pieces, checkpointing in _ways(fitting, images, steps):
        if images // pieces <= fitting[checkpointing]:
            # "auto" will do the same on that device
            fixed = [key for key in switches(cfg) if key not in switches(cfg, AUTO)]
            changes = dict.fromkeys(fixed, checkpointing)
            changes |= {"train.accumulation_steps": pieces, RATIO: ratio}
            return [f"{k}={v}" for k, v in changes.items() if OmegaConf.select(cfg, k) != v]
    return None


def _ways(fitting: dict[bool, int], images: int, steps: int) -> Iterator[tuple[int, bool]]:
    """Pieces of a batch and checkpointing, what is to be preferred first."""
    for pieces in range(steps, images + 1):
        if images % pieces == 0:
            yield from ((pieces, checkpointing) for checkpointing in fitting)
