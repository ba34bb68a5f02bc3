"""Memory of worker processes that read a list of Python objects, and `DatasetFromList`."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import Row
from detectron2.data import DatasetFromList

_ENTRIES, _WORKERS = 20000, 4


def measure(repeats: int) -> list[Row]:
    """Private memory of all workers after each has read every entry once (Linux)."""
    plain, ours = (
        _private_memory(DatasetFromList(_entries(), copy=False, serialize=serialize))
        for serialize in (False, True)
    )
    what = f"index of {_ENTRIES} images: memory of {_WORKERS} workers, list / DatasetFromList"
    return [Row(what, plain, ours, "MiB")]


class _ReadAll(Dataset):
    """Each element is the growth in KiB of the private memory by reading all of `entries`."""

    def __init__(self, entries: Dataset):
        self._entries = entries

    def __len__(self) -> int:
        return _WORKERS

    def __getitem__(self, index: int) -> int:
        before = _private_kib()
        for i in range(len(self._entries)):
            for annotation in self._entries[i]["annotations"]:
                sum(annotation["bbox"])
        return _private_kib() - before


def _private_memory(dataset: Dataset) -> float:
    with warnings.catch_warnings():
        # more workers than cores: they are measured for memory, not for speed
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        loader = DataLoader(
            _ReadAll(dataset), batch_size=None, num_workers=_WORKERS, multiprocessing_context="fork"
        )
        return sum(int(growth) for growth in loader) / 1024


def _private_kib() -> int:
    """Memory that this process shares with no other, in KiB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def _entries() -> list[dict[str, Any]]:
    random = np.random.RandomState(0)
    return [
        {
            "file_name": f"{i:012d}.jpg",
            "image_id": i,
            "annotations": [
                {"bbox": random.rand(4).tolist(), "segmentation": [random.rand(60).tolist()]}
                for _ in range(7)
            ],
        }
        for i in range(_ENTRIES)
    ]
