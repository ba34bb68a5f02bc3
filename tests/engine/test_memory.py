"""Memory that is free inside of the heap goes back to the system."""

from pathlib import Path
from types import SimpleNamespace

from mimdet.engine.memory import MemoryGivenBack


def resident_mib() -> float:
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in x)
    return int(line.split()[1]) / 1024


def test_memory_between_things_that_stay_is_given_back():
    # As in training on the CPU: what is large goes, and between it something small stays. Blocks of
    # 100 KB are below the size at which the C library asks the system for each.
    hook = MemoryGivenBack(period=20)
    blocks = [bytearray(b"x") * 100_000 for _ in range(2000)]
    staying = blocks[::20]
    del blocks
    before = resident_mib()
    hook.trainer = SimpleNamespace(iter=18)
    hook.after_step()
    assert resident_mib() > before - 20
    hook.trainer.iter = 19
    hook.after_step()
    assert resident_mib() < before - 120
    assert len(staying) == 100
