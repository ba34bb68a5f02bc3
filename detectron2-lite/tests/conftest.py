"""Settings shared by the API tests, which run on detectron2-lite and on upstream alike."""

import pytest
import torch

import detectron2

# The reference numbers come from one thread, and two test processes share two cores.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Leave out tests of lite's own improvements when upstream provides `detectron2`."""
    if "lite" in detectron2.__version__:
        return
    for item in items:
        if item.get_closest_marker("lite"):
            item.add_marker(pytest.mark.skip(reason="an improvement of detectron2-lite"))
