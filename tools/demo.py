#!/usr/bin/env python
"""The main job at toy size: make data, train MIMDet, evaluate at two ratios, draw, predict.

    python tools/demo.py --output output/demo
    python tools/demo.py --pretrain --output output/demo_pretrain

With --pretrain, how it starts: pretrain its ViT by MAE on the images of the toy data, and train the
detector with the same budget from that file and from scratch.

Interrupted, it goes on where it was; remove the folder to start anew.
"""

import json
import shlex
import subprocess
import sys
from pathlib import Path

from mimdet.command_line import add_output, add_overrides, tool_parser

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = "toy/mimdet_mask_rcnn_fpn_sr_0p5_toy"
RATIOS = (0.5, 1.0)
RATIO_KEY = "model.backbone.bottom_up.sample_ratio"

MAE_CONFIG = "toy/mae_vit_toy"
# Fewer iterations than the config has: there are two detectors, and a head start counts for most
# in a short race.
DETECTOR_ITERATIONS = 250
STARTS = {"scratch": "from scratch", "mae": "from MAE"}  # folder -> title


def main(argv: list[str] | None = None) -> None:
    """Run the steps one after the other and print what came out."""
    parser = tool_parser(__doc__)
    add_output(parser, "folder for everything it makes", default="output/demo")
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
    runs = output.glob("*/report.html")
    print(f"Reports, for a browser: {', '.join(map(str, sorted(runs)))}")
    print("\nThe commands of this demo, to go on from here (make has put mimdet into .venv/bin):\n")
    for _, command in steps:
        print(f"  {shlex.join(command)}")


def demo_commands(output: Path, opts: list[str]) -> list[tuple[str, list[str]]]:
    """(title, command) of each step, to be run in the repository."""
    run = output / "train"
    train = ["mimdet", "train", "--data", str(output / "data"), "--config-file", CONFIG]
    # Two evaluations on the way instead of one after each epoch: people wait for a demo.
    train += ["--batch", "8", "--epochs", "7", "--resume", "train.eval_period=200", *opts]
    train.append(f"train.output_dir={run}")
    steps = [_data_step(output), ("Training at ratio 0.5", train)]
    # The run has written the config that it made for these data.
    trained = ["--config-file", str(run / "config.yaml"), *opts]
    weights = f"train.init_checkpoint={run / 'model_final.pth'}"
    for ratio in RATIOS:
        folder = f"train.output_dir={_results_folder(output, ratio)}"
        evaluate = ["mimdet", "eval", *trained, weights, folder, f"{RATIO_KEY}={ratio}"]
        steps.append((f"Evaluation at ratio {ratio}", evaluate))
    draw = ["mimdet", "draw", *trained, "--output", str(output / "pictures")]
    steps.append(("Predictions next to the ground truth", [*draw, weights, f"{RATIO_KEY}=1.0"]))
    predict = ["mimdet", "predict", str(run / "model_final.pth"), str(output / "data" / "val")]
    return [*steps, ("Predictions", [*predict, "--output", str(output / "predictions")])]


def pretrain_commands(
    output: Path, opts: list[str], mae_opts: list[str]
) -> list[tuple[str, list[str]]]:
    """The same, to compare a detector from a pretrained ViT with one from scratch."""
    data = f"toy.root={output / 'data'}"
    weights = output / "pretrain" / "model_final.pth"
    mae = ["--config-file", MAE_CONFIG, *mae_opts, data]
    pretrain = ["mimdet", "train", "--resume", *mae, f"train.output_dir={weights.parent}"]
    draw = ["mimdet", "reconstruct", *mae, "--images", str(output / "data" / "val")]
    draw += ["--output", str(output / "pictures"), f"train.init_checkpoint={weights}"]
    steps = [_data_step(output), ("Pretraining by MAE", pretrain), ("Reconstructions", draw)]
    budget = f"train.max_iter={DETECTOR_ITERATIONS}"
    for folder, title in STARTS.items():
        train = ["mimdet", "train", "--config-file", CONFIG, "--resume", budget, *opts, data]
        train += [f"train.output_dir={output / folder}"]
        if folder == "mae":
            train.append(f"mae_checkpoint.path={weights}")
        steps.append((f"Detector {title}", train))
    return steps


def _data_step(output: Path) -> tuple[str, list[str]]:
    return "Toy data", ["mimdet", "toy", str(output / "data")]


def _results_folder(output: Path, ratio: float) -> Path:
    return output / f"eval_ratio_{ratio}"


def _run(command: list[str]) -> None:
    """Run one step, which shows its own progress; if it fails, stop."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=REPOSITORY)
    if done.returncode != 0:
        sys.exit(f"demo: the command above ended with exit code {done.returncode}")


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
