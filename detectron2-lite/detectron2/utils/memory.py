import functools
import logging
from collections.abc import Callable
from typing import Any

import torch

logger = logging.getLogger(__name__)


def retry_if_cuda_oom(func: Callable) -> Callable:
    """Let a function survive a full GPU: retry with an empty cache, then on the CPU.

    Args:
        func: function whose tensor arguments (and arguments with a `.to(device)`, such as `Boxes`)
            may live on the CPU as well. It must be safe to call again.

    Returns:
        A function with the same arguments. After the last retry its result lives on the CPU.
    """

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        # The retries stand outside of the handlers: while an exception is handled, its traceback
        # keeps the tensors of the failed call alive.
        try:
            return func(*args, **kwargs)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
        try:
            return func(*args, **kwargs)
        except torch.cuda.OutOfMemoryError:
            logger.warning(
                "CUDA is out of memory in %s; running it on the CPU, which can be 100 times slower",
                getattr(func, "__qualname__", func),
            )
        return func(*map(_to_cpu, args), **{name: _to_cpu(arg) for name, arg in kwargs.items()})

    return wrapped


def _to_cpu(value: Any) -> Any:
    on_gpu = getattr(getattr(value, "device", None), "type", None) == "cuda"
    return value.to("cpu") if on_gpu and hasattr(value, "to") else value
