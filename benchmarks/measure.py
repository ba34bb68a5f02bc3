"""How two ways of doing the same are compared."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: the task.
        plain: cost of the plain way, in `unit`.
        ours: cost of the way under test, in `unit`.
        unit: "ms", "MiB" and so on.
        aim: the least ratio plain / ours that is wanted, or the largest cost; None without an aim.
        aim_is_cost: whether `aim` is a cost of `ours`.
    """

    what: str
    plain: float | None
    ours: float
    unit: str
    aim: float | None = None
    aim_is_cost: bool = False

    def cells(self) -> list[str]:
        """The row as text: task, plain, ours, ratio, aim, whether it is met."""
        plain = "" if self.plain is None else f"{self.plain:.3g} {self.unit}"
        ratio = "" if self.plain is None else f"{self.plain / max(self.ours, 1e-9):.2f}"
        aim, met = "", ""
        if self.aim is not None:
            reached = self.ours <= self.aim if self.aim_is_cost else self._ratio_met()
            aim = f"<= {self.aim:g} {self.unit}" if self.aim_is_cost else f">= {self.aim:g}"
            met = "yes" if reached else "NO"
        return [self.what, plain, f"{self.ours:.3g} {self.unit}", ratio, aim, met]

    def _ratio_met(self) -> bool:
        return self.plain is not None and self.plain >= self.aim * self.ours


def cpu_ms(plain: Callable[[], object], ours: Callable[[], object], repeats: int) -> list[float]:
    """Median CPU milliseconds of this process for both ways, run in turn.

    In turn, because a busy or throttled machine then slows both alike. One run of each goes
    before, unmeasured, for caches and lazy imports.

    Args:
        plain: the plain way.
        ours: the way under test.
        repeats: measured runs of each.
    """
    ways = (plain, ours)
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for way, measured in zip(ways, times, strict=True):
            start = time.process_time()
            way()
            if repeat > 0:
                measured.append(1000 * (time.process_time() - start))
    return [statistics.median(measured) for measured in times]


def in_new_process(module: str, *arguments: str) -> list[float]:
    """The numbers that `python -m module arguments` prints in its last line."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", module, *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return [float(number) for number in done.stdout.splitlines()[-1].split()]


def peak_memory(run: Callable[[], object]) -> float:
    """MiB by which the memory of this process grows at most while `run` runs (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    """An entry of the process status in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
