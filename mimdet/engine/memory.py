"""Memory of the process that nothing uses any more goes back to the system."""

import ctypes

from detectron2.engine import HookBase


def give_back_memory() -> None:
    """Let the C library return free pages to the system; without glibc nothing happens.

    Tensors on the CPU come from its heap. Their sizes differ from batch to batch, so that small
    objects which stay (results, plans that oneDNN keeps for a size) lie between them, and by itself
    glibc returns only what is free at the end of the heap.

    A fixed threshold for allocations outside of the heap (M_MMAP_THRESHOLD) bounds it only where it
    is low, and then each tensor costs its pages again. With 16 or 31 MiB a toy training has
    grown as it does with glibc's own.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


class MemoryGivenBack(HookBase):
    """Gives back free memory now and then, which slows the growth of a long run on the CPU.

    Until the next time a run may take as much as its heap spans; that still grows for a while.

    Args:
        period: iterations from one time to the next.
    """

    def __init__(self, period: int = 20):
        self._period = period

    def after_step(self) -> None:
        """Give it back, if it is time."""
        if (self.trainer.iter + 1) % self._period == 0:
            give_back_memory()
