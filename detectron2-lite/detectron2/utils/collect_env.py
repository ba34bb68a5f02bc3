"""`python -m detectron2.utils.collect_env` prints what a bug report should contain."""

import importlib
import os
import shutil
import subprocess
import sys

import torch
from tabulate import tabulate


def collect_env_info() -> str:
    """Versions and hardware as a text table, followed by the build settings of PyTorch."""
    rows = [
        ("sys.platform", sys.platform),
        ("Python", sys.version.replace("\n", "")),
        ("numpy", _version("numpy")),
        ("detectron2", _version("detectron2", with_path=True)),
        ("detectron2 ops", "detectron2-lite, no compiled ops"),
        ("PyTorch", _version("torch", with_path=True)),
        ("PyTorch debug build", torch.version.debug),
        ("GPU available", torch.cuda.is_available()),
        *_gpu_rows(),
        ("Pillow", _version("PIL")),
        ("torchvision", _version("torchvision", with_path=True)),
        ("fvcore", _version("fvcore")),
        ("iopath", _version("iopath")),
        ("cv2", _version("cv2")),
    ]
    return f"{tabulate(rows)}\n{torch.__config__.show()}"


def _version(module: str, with_path: bool = False) -> str:
    try:
        found = importlib.import_module(module)
    except ImportError:
        return "not installed"
    version = getattr(found, "__version__", "unknown version")
    return f"{version} @{os.path.dirname(found.__file__)}" if with_path else version


def _gpu_rows() -> list[tuple[str, str]]:
    if not torch.cuda.is_available():
        return []
    rows = [
        (f"GPU {index}", torch.cuda.get_device_name(index))
        for index in range(torch.cuda.device_count())
    ]
    return [*rows, ("CUDA of PyTorch", torch.version.cuda), *_driver_rows()]


def _driver_rows() -> list[tuple[str, str]]:
    rows = []
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, check=False)
        rows.append(("Driver version", " ".join(sorted(set(answer.stdout.split()))) or "unknown"))
    if "CUDA_HOME" in os.environ:
        rows.append(("CUDA_HOME", os.environ["CUDA_HOME"]))
    return rows


if __name__ == "__main__":
    print(collect_env_info())
