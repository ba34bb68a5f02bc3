"""Resuming: the first batch of a loader that goes on from an iteration, beyond its images.

A detector's order is that of Detectron2's samplers and groups, which is found by going through the
indices before it; pretraining's is found at once.
"""

import functools
import random
import statistics
import time
from collections.abc import Iterable
from typing import Any

from benchmarks.measure import Row
from detectron2.utils.env import seed_all_rng
from mimdet.data.detection_loader import build_repeatable_train_loader
from mimdet.data.imagenet import ImageTrainLoader

_ITERATIONS = (10, 1_000, 90_000)
_IMAGES, _BATCH = 118_000, 16  # those of COCO, and of one of four GPUs with 64 images in all


def measure(repeats: int) -> list[Row]:
    """CPU seconds to the first batch, without reading an image."""
    rng = random.Random(0)
    sizes = [rng.choice([(480, 640), (640, 480)]) for _ in range(_IMAGES)]
    records = [{"image_id": i, "height": h, "width": w} for i, (h, w) in enumerate(sizes)]
    loaders = {
        "detector, grouped": functools.partial(build_repeatable_train_loader, mapper=dict),
        "detector": functools.partial(
            build_repeatable_train_loader, mapper=dict, aspect_ratio_grouping=False
        ),
        "pretraining": functools.partial(ImageTrainLoader, mapper=dict, collate_fn=list),
    }
    rows = []
    for name, build in loaders.items():
        seed_all_rng(0)
        loader = build(records, total_batch_size=_BATCH)
        for iteration in _ITERATIONS:
            seconds = [_seconds_to_first_batch(loader, iteration) for _ in range(repeats)]
            what = f"first batch ({name}) after resuming at iteration {iteration:,}"
            rows.append(Row(what, None, statistics.median(seconds), "s", 1, True))
    return rows


def _seconds_to_first_batch(loader: Iterable[Any], iteration: int) -> float:
    loader.set_start(iteration)
    start = time.process_time()
    batch = next(iter(loader))
    assert len(batch) == _BATCH
    return time.process_time() - start
