"""The most memory that a piece of work takes."""

from collections.abc import Callable
from pathlib import Path

import torch

from mimdet.engine.memory import give_back_memory

_PROCESS = Path("/proc/self")


def peak_memory(work: Callable[[], object], device: torch.device) -> int | None:
    """Run `work` and tell the most bytes that were in use meanwhile, whatever was before included.

    Args:
        work: what is measured.
        device: where it computes. On a GPU the tensors there count, on a CPU the whole process.

    Returns:
        None where nothing counts it: on other devices, and on a CPU without Linux.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu" or not (_PROCESS / "clear_refs").exists():
        work()
        return None
    give_back_memory()  # pages that earlier work has freed would hide what this one takes
    # proc(5): 5 sets the peak, VmHWM below, to what the process has now.
    (_PROCESS / "clear_refs").write_text("5")  # the peak starts here
    work()
    lines = (_PROCESS / "status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
