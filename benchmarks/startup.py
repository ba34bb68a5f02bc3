"""Start-up: imports beyond torch, and loading a config of MIMDet beyond imports."""

import importlib
import statistics
import sys
import time

from benchmarks.measure import Row, in_new_process

_PACKAGES = ("detectron2", "detectron2.config", "detectron2.data", "detectron2.modeling")
_CONFIG = "configs/mimdet/mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x.py"


def measure(repeats: int) -> list[Row]:
    """CPU seconds, each in new processes that take turns."""
    seconds = {name: [] for name in (*_PACKAGES, "torchvision", "config")}
    for _ in range(repeats):
        for name, measured in seconds.items():
            measured.append(in_new_process("benchmarks.startup", name)[0])
    medians = {name: statistics.median(measured) for name, measured in seconds.items()}
    rows = [Row("import detectron2, beyond torch", None, medians["detectron2"], "s", 0.3, True)]
    rows += [
        Row(f"import {name}, beyond torch", None, medians[name], "s") for name in _PACKAGES[1:]
    ]
    rows += [Row("import torchvision, beyond torch", None, medians["torchvision"], "s")]
    what = "LazyConfig.load of a MIMDet config, beyond imports"
    return [*rows, Row(what, None, medians["config"], "s", 1, True)]


def _import_seconds(name: str) -> float:
    import torch  # noqa: F401

    start = time.process_time()
    importlib.import_module(name)
    return time.process_time() - start


def _config_seconds() -> float:
    from detectron2.config import LazyConfig

    LazyConfig.load(_CONFIG)  # imports what the config imports
    start = time.process_time()
    LazyConfig.load(_CONFIG)
    return time.process_time() - start


if __name__ == "__main__":
    print(_config_seconds() if sys.argv[1] == "config" else _import_seconds(sys.argv[1]))
