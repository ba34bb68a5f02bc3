import logging
import os
import random
import time

import numpy as np
import torch

_MAX_SEED = 2**32 - 1  # numpy's legacy generator takes 32 bits


def seed_all_rng(seed: int | None = None) -> int:
    """Seed numpy, torch (CPU and all CUDA devices), `random` and the hash seed of subprocesses.

    Args:
        seed: in [0, 2**32). None draws one from process id, clock and the system's entropy, and
            logs it.

    Returns:
        The seed that was used.

    Raises:
        ValueError: if the seed is out of range.
    """
    if seed is None:
        entropy = int.from_bytes(os.urandom(4), "big")
        seed = (os.getpid() + time.time_ns() + entropy) % 2**31
        logging.getLogger(__name__).info("Using a generated random seed %d", seed)
    if not 0 <= seed <= _MAX_SEED:
        raise ValueError(f"seed must be in [0, {_MAX_SEED}], got {seed}; use a smaller number")
    np.random.seed(seed)
    torch.manual_seed(seed)
    random.seed(seed)
    os.environ["PYTHONHASHSEED"] = str(seed)
    return seed
