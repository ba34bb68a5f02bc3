"""Settings of all tests of mimdet."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes share two cores

import torch  # noqa: E402  after the setting that it reads

torch.set_num_threads(1)
