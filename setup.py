"""Packaging of mimdet; `requirements.txt` pins what CI runs, the ranges are here."""

import re
from pathlib import Path

from setuptools import find_packages, setup

_version = re.search(r'__version__ = "(.+)"', Path("mimdet/__init__.py").read_text()).group(1)

setup(
    name="mimdet",
    version=_version,
    description="Object detection with backbones pre-trained by masked image modelling",
    long_description=Path("README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    classifiers=[f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)],
    packages=[*find_packages(include=["mimdet", "mimdet.*"]), "mimdet.configs", "mimdet.tools"],
    # What lies beside the package in a clone lies inside it once installed (mimdet/installed.py).
    package_dir={"mimdet.configs": "configs", "mimdet.tools": "tools"},
    package_data={
        "mimdet.data": ["*.json"],
        "mimdet.report": ["templates/*.html"],
        "mimdet.configs": ["**/*.py", "**/*.md"],
    },
    py_modules=["lazyconfig_train_net"],
    entry_points={"console_scripts": ["mimdet = mimdet.__main__:main"]},
    python_requires=">=3.11",  # numpy, Pillow and shapely of requirements.txt need it
    # Detectron2 is missing here: it comes from no index, neither upstream's nor detectron2-lite.
    install_requires=[
        "torch>=2.6",  # before, weights_only=True could be made to execute code (CVE-2025-32434)
        "torchvision>=0.21",  # the release that matches torch
        "timm>=1.0",
        "einops>=0.8",
        "fvcore>=0.1.5.post20221221",
        "omegaconf>=2.1",
        "hydra-core>=1.1",
        "cloudpickle>=2.0",
        "PyYAML",
        "pycocotools>=2.0.7",
        "shapely>=2.0",
        "msgspec>=0.18",
        "numpy",
        "Pillow",
        "Jinja2>=3.1",
        "tqdm",
        "safetensors",
    ],
    extras_require={
        "lite": ["detectron2-lite"],  # from a clone: pip install ./detectron2-lite .
        "dev": ["pytest", "pytest-xdist", "ruff"],
        "tensorboard": ["tensorboard"],
        "video": ["av>=12"],
        "onnx": ["onnx", "onnxscript", "onnxruntime"],
    },
)
