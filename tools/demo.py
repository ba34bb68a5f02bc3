#!/usr/bin/env python
"""The main job at toy size: make data, train MIMDet, evaluate it at two ratios, draw.

    python tools/demo.py --output output/demo

Interrupted, it goes on where it was; remove the folder to start anew.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections import deque
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = "configs/toy/mimdet_mask_rcnn_fpn_sr_0p5_toy.py"
RATIOS = (0.5, 1.0)
RATIO_KEY = "model.backbone.bottom_up.sample_ratio"

# Of the long log a reader of the demo sees the progress and what is out of the ordinary.
_SHOWN = re.compile(r"eta: |Inference done|\bWARNING\b|\bERROR\b|toy|\.png$")
_COLOR_CODE = re.compile(r"\x1b\[[0-9;]*m")


def main(argv: list[str] | None = None) -> None:
    """Run the steps one after the other and print what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default="output/demo", help="folder for everything it makes")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="overrides of the config")
    args = parser.parse_args(argv)
    # The steps run in the repository, from which relative paths would lead elsewhere.
    output = Path(args.output) if Path.cwd() == REPOSITORY else Path(args.output).resolve()
    steps = demo_commands(output, args.opts)
    for title, command in steps:
        print(f"\n=== {title}\n$ {shlex.join(command)}", flush=True)
        _run(command)
    print(f"\n{results_table(output)}\n")
    print(f"Pictures of predictions next to the ground truth: {output / 'pictures'}")
    print("\nThe commands of this demo, to go on from here:\n")
    for _, command in steps:
        print(f"  {shlex.join(command)}")


def demo_commands(output: Path, opts: list[str]) -> list[tuple[str, list[str]]]:
    """(title, command) of each step, to be run in the repository."""
    data = f"toy.root={output / 'data'}"
    train_net = ["python", "lazyconfig_train_net.py", "--config-file", CONFIG]
    weights = f"train.init_checkpoint={output / 'train' / 'model_final.pth'}"
    train = [*train_net, "--resume", *opts, data, f"train.output_dir={output / 'train'}"]
    steps = [
        ("Toy data", ["python", "tools/make_toy_dataset.py", str(output / "data")]),
        ("Training at ratio 0.5", train),
    ]
    for ratio in RATIOS:
        folder = f"train.output_dir={_results_folder(output, ratio)}"
        evaluate = [*train_net, "--eval-only", *opts, data, weights, folder]
        steps.append((f"Evaluation at ratio {ratio}", [*evaluate, f"{RATIO_KEY}={ratio}"]))
    draw = ["python", "tools/draw_predictions.py", "--config-file", CONFIG]
    draw += ["--output", str(output / "pictures"), *opts, data, weights, f"{RATIO_KEY}=1.0"]
    return [*steps, ("Pictures", draw)]


def _results_folder(output: Path, ratio: float) -> Path:
    return output / f"eval_ratio_{ratio}"


def _run(command: list[str]) -> None:
    """Run one step, showing its progress; on failure show the end of its log and stop."""
    last: deque[str] = deque(maxlen=40)
    with subprocess.Popen(
        [sys.executable, *command[1:]],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout:
            line = _COLOR_CODE.sub("", line.rstrip("\n"))
            last.append(line)
            if _SHOWN.search(line):
                print(line, flush=True)
    if process.returncode != 0:
        print("\n".join(last), file=sys.stderr)
        sys.exit(f"demo: the command above ended with exit code {process.returncode}")


def results_table(output: Path) -> str:
    """Box and mask AP and the time per image at each ratio, from the evaluations' files."""
    lines = ["sample_ratio   box AP  box AP50  mask AP  mask AP50  seconds/image"]
    for ratio in RATIOS:
        results = json.loads((_results_folder(output, ratio) / "results.json").read_text())
        numbers = [
            results.get(task, {}).get(m) for task in ("bbox", "segm") for m in ("AP", "AP50")
        ]
        # a model that detects nothing has no AP
        box, box50, mask, mask50 = ("none" if n is None else f"{n:.1f}" for n in numbers)
        lines.append(
            f"{ratio:12.2f} {box:>8} {box50:>9} {mask:>8} {mask50:>10} "
            f"{results['seconds_per_batch']:14.3f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
