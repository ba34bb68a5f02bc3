"""Reading a COCO file of 200,000 annotations: Detectron2's `load_coco_json`, and `read_coco`.

    python -m benchmarks.coco_reading load_coco_json FILE

`read_coco` also checks every field and measures every polygon, which `load_coco_json` does not.
"""

import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Row, in_new_process, peak_memory

_IMAGES, _ANNOTATIONS = 27_000, 200_000
_HEIGHT, _WIDTH = 480, 640


def measure(repeats: int) -> list[Row]:
    """CPU time and memory of one reading, in new processes because both keep what they read."""
    ways = ("load_coco_json", "read_coco")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "instances.json")
        path.write_text(json.dumps(_content()))
        runs = {way: [] for way in ways}
        for _ in range(repeats):
            for way in ways:
                runs[way].append(in_new_process(__name__, way, str(path)))
    (plain_ms, plain_mib), (ms, mib) = (
        [statistics.median(column) for column in zip(*runs[way], strict=True)] for way in ways
    )
    what = f"read {_ANNOTATIONS} annotations, load_coco_json / read_coco:"
    return [
        Row(f"{what} time", plain_ms, ms, "ms", aim=1.45),
        Row(f"{what} peak memory", plain_mib, mib, "MiB", aim=1.0),
    ]


def _content() -> dict:
    """Objects of 8 to 40 points, as in COCO."""
    draw = random.Random(0)
    images = [
        {"id": k, "file_name": f"{k:012d}.jpg", "height": _HEIGHT, "width": _WIDTH}
        for k in range(1, _IMAGES + 1)
    ]
    annotations = [_annotation(k, draw) for k in range(1, _ANNOTATIONS + 1)]
    categories = [{"id": k, "name": f"class {k}"} for k in range(1, 81)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _annotation(number: int, draw: random.Random) -> dict:
    left, top = draw.uniform(0, 500), draw.uniform(0, 350)
    width, height = draw.uniform(5, 130), draw.uniform(5, 120)
    points = draw.randint(8, 40)
    xs = [round(left + width * draw.random(), 2) for _ in range(points)]
    ys = [round(top + height * draw.random(), 2) for _ in range(points)]
    box = [min(xs), min(ys), round(max(xs) - min(xs), 2), round(max(ys) - min(ys), 2)]
    return {
        "id": number,
        "image_id": draw.randint(1, _IMAGES),
        "category_id": draw.randint(1, 80),
        "iscrowd": 0,
        "bbox": box,
        "area": round(box[2] * box[3] / 2, 2),
        "segmentation": [[v for point in zip(xs, ys, strict=True) for v in point]],
    }


def _once(way: str, path: str) -> tuple[float, float]:
    """CPU milliseconds and peak MiB of one reading in this process."""
    from detectron2.data.datasets import load_coco_json
    from mimdet.data.coco.read import read_coco

    read = {"load_coco_json": load_coco_json, "read_coco": read_coco}[way]
    start = time.process_time()
    memory = peak_memory(lambda: read(path, "images"))
    return 1000 * (time.process_time() - start), memory


if __name__ == "__main__":
    print(*_once(*sys.argv[1:]))
