"""How far long work has come."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

_SECONDS = 30  # from one plain line to the next
Item = TypeVar("Item")


def progress(
    items: Iterable[Item], total: int, desc: str, unit: str, leave: bool = True
) -> Iterator[Item]:
    """The items, while stderr tells how many are done.

    On a terminal it is one line that moves. Elsewhere, as in the log of a cluster's job, it is a
    line every half minute, and none for work that takes less.

    Args:
        items: one after the other, as the work needs them.
        total: how many.
        desc: the work.
        unit: an item, in the singular.
        leave: whether the moving line stays when all is done.
    """
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=desc, unit=f" {unit}", leave=leave)
        return
    started = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        # Told when the next item is asked for: only then the one before is done.
        if done and now - told >= _SECONDS:
            left = tqdm.format_interval((now - started) / done * (total - done))
            print(f"{desc}: {done} of {total} {unit}s, {left} left", file=sys.stderr, flush=True)
            told = now
        yield item
