"""`python -m detectron2.utils.collect_env` prints what a bug report should contain."""

import importlib
import os
import sys

import torch
from tabulate import tabulate
from torch.utils import collect_env

_MODULES = ("numpy", "detectron2", "torch", "torchvision", "fvcore", "iopath", "PIL", "cv2")


def collect_env_info() -> str:
    """Versions and hardware as a text table, followed by the build settings of PyTorch.

    `python -m torch.utils.collect_env` says more, but takes seconds, and every run logs this.
    """
    rows = [
        ("sys.platform", sys.platform),
        ("Python", sys.version.replace("\n", "")),
        *((module, _version(module)) for module in _MODULES),
        ("detectron2 ops", "detectron2-lite, no compiled ops"),
        ("PyTorch debug build", torch.version.debug),
        ("GPU available", torch.cuda.is_available()),
        ("GPU models", collect_env.get_gpu_info(collect_env.run)),
        ("CUDA of PyTorch", torch.version.cuda),
        ("Driver version", collect_env.get_nvidia_driver_version(collect_env.run)),
        ("CUDA_HOME", os.environ.get("CUDA_HOME")),
    ]
    known = [(name, value) for name, value in rows if value is not None]
    return f"{tabulate(known)}\n{torch.__config__.show()}"


def _version(module: str) -> str:
    try:
        found = importlib.import_module(module)
    except ImportError:
        return "not installed"
    version = getattr(found, "__version__", "unknown version")
    return f"{version} @{os.path.dirname(found.__file__)}"


if __name__ == "__main__":
    print(collect_env_info())
