"""One process that takes itself for one of several."""

from collections.abc import Callable

import pytest
from torch import distributed as dist


@pytest.fixture
def as_rank(monkeypatch) -> Callable[[int, int], None]:
    """`as_rank(rank, world_size)`; where processes would exchange something, torch refuses."""

    def become(rank: int, world_size: int) -> None:
        # In torch and not in `detectron2.utils.comm`, whose functions upstream's modules hold by
        # their own names.
        monkeypatch.setattr(dist, "is_initialized", lambda: True)
        monkeypatch.setattr(dist, "get_rank", lambda group=None: rank)
        monkeypatch.setattr(dist, "get_world_size", lambda group=None: world_size)

    return become
