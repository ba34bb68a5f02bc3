"""Tables of what detectors keep for the backward pass."""

from omegaconf import DictConfig

from mimdet.engine.kept_memory import Kept, kept_bytes
from mimdet.engine.memory_plan import GIB, set_checkpointing, switches

HEADER = """\
| system | sample ratio | batch | size | kept without checkpointing | with it | heads besides |
|---|---|---:|---|---:|---:|---:|"""


def row(name: str, cfg: DictConfig, batch: int, size: tuple[int, int]) -> str:
    """A row below `HEADER`, measured in bfloat16.

    Args:
        name: of the system.
        cfg: of a detector, whose heads know their classes; not changed.
        batch: images of one process.
        size: (height, width) of the padded batch in pixels.
    """
    keeping, recomputing = (_kept(cfg.copy(), on, batch, size) for on in (False, True))
    ratio = cfg.model.backbone.get("bottom_up", {}).get("sample_ratio", "")
    numbers = (keeping.backbone, recomputing.backbone, keeping.heads)
    cells = (name, ratio, batch, f"{size[0]}x{size[1]}", *(f"{n / GIB:.2f} GiB" for n in numbers))
    return f"| {' | '.join(map(str, cells))} |"


def _kept(cfg: DictConfig, checkpointing: bool, batch: int, size: tuple[int, int]) -> Kept:
    set_checkpointing(cfg, switches(cfg), checkpointing)
    return kept_bytes(cfg.model, batch, size)
