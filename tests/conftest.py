"""Settings of all tests of mimdet."""

import gc
import os

gc.disable()  # what is imported for thousands of tests stays; to look for garbage takes longer
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes share two cores

import pytest  # noqa: E402
import torch  # noqa: E402  after the setting that it reads
import toy_runs  # noqa: E402
from ranks import as_rank  # noqa: E402, F401
from upstream import (  # noqa: E402
    pytest_collection_modifyitems,  # noqa: F401
    pytest_configure,  # noqa: F401
)

from mimdet.data.toy import ToyDataset, make_toy_dataset  # noqa: E402

torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Look for garbage again, from now on among what the tests make."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory):
    """The folder of a toy dataset of 16 and 6 images."""
    root = tmp_path_factory.mktemp("toy") / "data"
    make_toy_dataset(root, ToyDataset(num_train=16, num_val=6))
    return root


@pytest.fixture(scope="session")
def trained(toy_root, tmp_path_factory):
    """The output folder of a tiny training of 40 iterations."""
    output = tmp_path_factory.mktemp("trained")
    options = (f"toy.root={toy_root}", f"train.output_dir={output}", "train.report=True")
    toy_runs.train_net(*toy_runs.TINY, *options, "train.max_iter=40")
    return output
