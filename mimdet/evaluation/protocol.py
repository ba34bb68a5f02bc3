"""What an evaluation's numbers depend on besides the weights, for its result file."""

import importlib.metadata
from typing import Any

import torch
from torch import nn

from detectron2 import __version__ as detectron2_version
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, LVISEvaluator
from mimdet import __version__ as mimdet_version

# Name in the protocol -> what modules call it, in Detectron2 and in our backbones.
_SETTINGS = {
    "sample_ratio": ("sample_ratio",),
    "sample_seed": ("sample_seed",),
    "sample_padding": ("sample_padding",),
    "sampler": ("sampler",),
    "score_threshold": ("test_score_thresh",),
    "nms_threshold": ("test_nms_thresh",),
    "crop_size": ("crop_size",),
    "crop_stride": ("crop_stride",),
    "max_detections_per_image": ("test_topk_per_image", "max_detections_per_image"),
}


def model_settings(model: nn.Module) -> dict[str, Any]:
    """The settings of a model that change its detections, as far as it has them.

    They are read from the modules and not from a config, which leaves defaults out. Of the stages
    of a cascade the last one counts, as in its inference.
    """
    settings = {}
    for module in model.modules():
        for name, attributes in _SETTINGS.items():
            for attribute in attributes:
                if attribute in vars(module):
                    settings[name] = vars(module)[attribute]
    return settings


def scorer(evaluator: DatasetEvaluator) -> str | None:
    """The package that computes AP for an evaluator, with its version; None without AP."""
    if not isinstance(evaluator, COCOEvaluator | LVISEvaluator):
        return None
    if "+lite" in detectron2_version:
        return _with_version("faster-coco-eval")
    if isinstance(evaluator, LVISEvaluator):
        return _with_version("lvis")
    # Upstream's evaluator of COCO chooses between pycocotools' scorer and its own in C++.
    name = _with_version("pycocotools")
    is_fast = getattr(evaluator, "_use_fast_impl", False)
    return f"COCOeval_opt of Detectron2, {name}" if is_fast else name


def versions() -> dict[str, str]:
    """Of what computed the detections; that of detectron2-lite contains ``+lite``."""
    return {
        "torch": torch.__version__,  # with its build, such as +cu130
        # Of the modules: as distributions they may have another name, or not be installed.
        "mimdet": mimdet_version,
        "detectron2": detectron2_version,
    }


def _with_version(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"
