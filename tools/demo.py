#!/usr/bin/env python
"""The main job at toy size: make data, train MIMDet, evaluate it at two ratios, draw.

    python tools/demo.py --output output/demo
    python tools/demo.py --pretrain --output output/demo_pretrain

With --pretrain, how it starts: pretrain its ViT by MAE on the images of the toy data, and train the
detector with the same budget from that file and from scratch.

Interrupted, it goes on where it was; remove the folder to start anew.
"""

import json
import re
import shlex
import subprocess
import sys
from collections import deque
from pathlib import Path

from mimdet.command_line import add_overrides, tool_parser

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = "configs/toy/mimdet_mask_rcnn_fpn_sr_0p5_toy.py"
RATIOS = (0.5, 1.0)
RATIO_KEY = "model.backbone.bottom_up.sample_ratio"

MAE_CONFIG = "configs/toy/mae_vit_toy.py"
# Fewer iterations than the config has: there are two detectors, and a head start counts for most
# in a short race.
DETECTOR_ITERATIONS = 250
STARTS = {"scratch": "from scratch", "mae": "from MAE"}  # folder -> title

# Of the long log a reader of the demo sees the progress and what is out of the ordinary.
_SHOWN = re.compile(
    r"eta: |Inference done|\bWARNING\b|\bERROR\b|toy|\.png$|tensors loaded|per second;"
)
_COLOR_CODE = re.compile(r"\x1b\[[0-9;]*m")


def main(argv: list[str] | None = None) -> None:
    """Run the steps one after the other and print what came out."""
    parser = tool_parser(__doc__)
    parser.add_argument("--output", default="output/demo", help="folder for everything it makes")
    parser.add_argument("--pretrain", action="store_true", help="compare starts of the detector")
    parser.add_argument(
        "--mae",
        action="append",
        default=[],
        metavar="key=value",
        help="override of the pretraining's config; may be repeated",
    )
    add_overrides(parser)
    args = parser.parse_intermixed_args(argv)
    # The steps run in the repository, from which relative paths would lead elsewhere.
    output = Path(args.output) if Path.cwd() == REPOSITORY else Path(args.output).resolve()
    if args.pretrain:
        steps, table = pretrain_commands(output, args.opts, args.mae), starts_table
    else:
        steps, table = demo_commands(output, args.opts), results_table
    for title, command in steps:
        print(f"\n=== {title}\n$ {shlex.join(command)}", flush=True)
        _run(command)
    print(f"\n{table(output)}\n")
    what = "reconstructions" if args.pretrain else "predictions next to the ground truth"
    print(f"Pictures of {what}: {output / 'pictures'}")
    print("\nThe commands of this demo, to go on from here:\n")
    for _, command in steps:
        print(f"  {shlex.join(command)}")


def demo_commands(output: Path, opts: list[str]) -> list[tuple[str, list[str]]]:
    """(title, command) of each step, to be run in the repository."""
    data = f"toy.root={output / 'data'}"
    train_net = _train_net(CONFIG)
    weights = f"train.init_checkpoint={output / 'train' / 'model_final.pth'}"
    train = [*train_net, "--resume", *opts, data, f"train.output_dir={output / 'train'}"]
    steps = [_data_step(output), ("Training at ratio 0.5", train)]
    for ratio in RATIOS:
        folder = f"train.output_dir={_results_folder(output, ratio)}"
        evaluate = [*train_net, "--eval-only", *opts, data, weights, folder]
        steps.append((f"Evaluation at ratio {ratio}", [*evaluate, f"{RATIO_KEY}={ratio}"]))
    draw = ["python", "tools/draw_predictions.py", "--config-file", CONFIG]
    draw += ["--output", str(output / "pictures"), *opts, data, weights, f"{RATIO_KEY}=1.0"]
    return [*steps, ("Pictures", draw)]


def pretrain_commands(
    output: Path, opts: list[str], mae_opts: list[str]
) -> list[tuple[str, list[str]]]:
    """The same, to compare a detector from a pretrained ViT with one from scratch."""
    data = f"toy.root={output / 'data'}"
    weights = output / "pretrain" / "model_final.pth"
    mae = [*mae_opts, data]
    pretrain = [*_train_net(MAE_CONFIG), "--resume", *mae, f"train.output_dir={weights.parent}"]
    draw = ["python", "tools/draw_reconstructions.py", "--config-file", MAE_CONFIG]
    draw += ["--images", str(output / "data" / "val"), "--output", str(output / "pictures")]
    draw += [*mae, f"train.init_checkpoint={weights}"]
    steps = [_data_step(output), ("Pretraining by MAE", pretrain), ("Reconstructions", draw)]
    budget = f"train.max_iter={DETECTOR_ITERATIONS}"
    for folder, title in STARTS.items():
        train = [*_train_net(CONFIG), "--resume", budget, *opts, data]
        train += [f"train.output_dir={output / folder}"]
        if folder == "mae":
            train.append(f"mae_checkpoint.path={weights}")
        steps.append((f"Detector {title}", train))
    return steps


def _train_net(config: str) -> list[str]:
    return ["python", "lazyconfig_train_net.py", "--config-file", config]


def _data_step(output: Path) -> tuple[str, list[str]]:
    return "Toy data", ["python", "tools/make_toy_dataset.py", str(output / "data")]


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
    lines = [f"sample_ratio {_AP_HEAD}  seconds/image"]
    for ratio in RATIOS:
        results = _results(_results_folder(output, ratio))
        lines.append(f"{ratio:12.2f} {_ap_cells(results)} {results['seconds_per_batch']:14.3f}")
    return "\n".join(lines)


def starts_table(output: Path) -> str:
    """Box and mask AP of the detectors that differ in how they started."""
    lines = [f"{'detector':12} {_AP_HEAD}"]
    for folder, title in STARTS.items():
        lines.append(f"{title:12} {_ap_cells(_results(output / folder))}")
    return "\n".join(lines)


_AP_HEAD = "  box AP  box AP50  mask AP  mask AP50"


def _results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def _ap_cells(results: dict) -> str:
    numbers = [results.get(task, {}).get(m) for task in ("bbox", "segm") for m in ("AP", "AP50")]
    # a model that detects nothing has no AP
    box, box50, mask, mask50 = ("none" if n is None else f"{n:.1f}" for n in numbers)
    return f"{box:>8} {box50:>9} {mask:>8} {mask50:>10}"


if __name__ == "__main__":
    main()
