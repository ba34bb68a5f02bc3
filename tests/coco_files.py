"""Small COCO files for tests: sound ones, and ways to make every field something else."""

import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detectron2.data import DatasetCatalog, MetadataCatalog

WIDTH, HEIGHT = 64, 48
_BOXES = {1: [8.0, 8.0, 24.0, 16.0], 2: [34.0, 26.0, 26.0, 18.0]}

# A value of every type that JSON has, and of those that look like another one.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, -1, 7.0, 0.5, -0.0, 1e8, -1e30, 2**63, 10**40),
    *("", " ", "1", "0", "true", "x", "\x1b[31mred", "..", "a\0b", "é" * 500),
    *([], [1], [[]], [None], ["1", "2", "3", "4"], [1, 2, 3, 4], [[1, 2], [3, 4]], [{}]),
    *({}, {"id": 1}, {"size": [1, 1], "counts": "0"}, {"counts": None, "size": None}),
)


def rectangle(x: float, y: float, width: float, height: float) -> list[float]:
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def sound(images: int = 3) -> dict[str, list[dict[str, Any]]]:
    """Images with an object of each of two classes: a file without any problem."""
    content: dict[str, list[dict[str, Any]]] = {
        "images": [
            {"id": k, "file_name": f"{k}.png", "height": HEIGHT, "width": WIDTH}
            for k in range(1, images + 1)
        ],
        "annotations": [],
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}],
    }
    for image in content["images"]:
        for category, box in _BOXES.items():
            content["annotations"].append(
                {
                    **{"id": len(content["annotations"]) + 1, "image_id": image["id"]},
                    **{"category_id": category, "bbox": list(box), "area": box[2] * box[3]},
                    **{"iscrowd": 0, "segmentation": [rectangle(*box)]},
                }
            )
    return content


def write(folder: Path, content: Any, name: str = "instances.json") -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(path)


def changed(section: str, field: str, value: Any, entries: slice = slice(None)) -> dict[str, Any]:
    """The sound file with one field of some entries set; `...` removes it."""
    content = sound()
    for entry in content[section][entries]:
        entry.pop(field)
        if value is not ...:
            entry[field] = copy.deepcopy(value)
    return content


@contextlib.contextmanager
def own_catalogs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> Iterator[None]:
    """Datasets of these names are known only inside the block, and their truth in `tmp_path`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    for catalog in (DatasetCatalog, MetadataCatalog):
        for name in set(names) & set(catalog.list()):
            catalog.remove(name)
