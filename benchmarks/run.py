"""Run all benchmarks, print a table and write it to a dated file.

    python -m benchmarks.run

Costs are medians of runs that take turns, in CPU time of the process, with one thread.
"""

import argparse
import datetime
import importlib
import importlib.metadata
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import detectron2
from benchmarks.measure import Row

BENCHMARKS = (
    "mapper",
    "masks",
    "scoring",
    "pooling",
    "roi_boxes",
    "coco_reading",
    "dataset_index",
    "resuming",
    "startup",
    "mpvit_stages",
    "pretraining",
    "attention",
    "vitdet_backbone",
    "benchmarking_backbone",
    "segmentation",
    "mimdet_backbone",
)
_TABLES = ("training_step",)  # tables of their own, with other columns
_ALL = BENCHMARKS + _TABLES
_PACKAGES = (
    *("torch", "torchvision", "numpy", "Pillow"),
    *("pycocotools", "faster-coco-eval", "shapely"),
)
_HEADERS = ["what: plain / ours", "plain", "ours", "ratio", "aim", "met"]


def main(arguments: list[str] | None = None) -> Path:
    """Measure and report; returns the file that was written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=_ALL, default=_ALL)
    parser.add_argument("--repeats", type=int, default=7, help="measured runs of each way")
    parser.add_argument("--hardware", default=f"cpu_{len(os.sched_getaffinity(0))}cores")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    import torch  # after the arguments are checked: it takes seconds

    torch.set_num_threads(1)
    date = datetime.date.today().isoformat()
    path = options.output / f"speed_{options.hardware}_{date}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, tables = [], []
    for number, name in enumerate(options.only, 1):
        print(f"{name}, {number} of {len(options.only)}", file=sys.stderr, flush=True)
        module = importlib.import_module(f"benchmarks.{name}")
        if name in _TABLES:
            tables.append(module.table(options.repeats))
        else:
            rows += module.measure(options.repeats)
        text = "\n\n".join([_table(rows)] * bool(rows) + tables)
        # What is measured outlives a stopped run, under the command that measures as much.
        path.write_text(_report(text, options, options.only[:number], date))
    print(text)
    return path


def _table(rows: list[Row]) -> str:
    lines = [_HEADERS, ["---"] * len(_HEADERS), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _report(text: str, options: argparse.Namespace, measured: Sequence[str], date: str) -> str:
    command = ["python", "-m", "benchmarks.run", "--repeats", str(options.repeats)]
    if tuple(measured) != _ALL:
        command += ["--only", *measured]
    versions = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    versions += f", detectron2 {detectron2.__version__}"
    return f"""# Speed and memory, {options.hardware}, {date}

    {shlex.join(command)}

{text}

{" ".join(__doc__.strip().splitlines()[-1:])}
The ratio is plain / ours: above 1 is a gain. A MiB is memory, not time.

Python {sys.version.split()[0]}; {versions}.
"""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
