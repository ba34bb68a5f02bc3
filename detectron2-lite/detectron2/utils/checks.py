from collections.abc import Callable

import torch
from torch import Tensor


def assert_all(condition: Tensor, message: str, received: Callable[[], str]) -> None:
    """Assert that all values are True; on a GPU without waiting for it.

    There a False ends the process's use of the device some time later, with `message` alone.

    Args:
        condition: bools of any shape.
        message: what must hold.
        received: returns what came instead, to be put behind the message.

    Raises:
        AssertionError: on the CPU, if a value is False.
    """
    if condition.is_cuda:
        torch._assert_async(condition.all() if condition.dim() else condition, message)
    else:
        assert condition.all(), f"{message}, got {received()}"
