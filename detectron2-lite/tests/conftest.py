"""Settings shared by the API tests, which run on detectron2-lite and on upstream alike."""

import torch
from ranks import as_rank  # noqa: F401
from upstream import pytest_collection_modifyitems, pytest_configure  # noqa: F401

# The reference numbers come from one thread, and two test processes share two cores.
torch.set_num_threads(1)
