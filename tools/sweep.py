#!/usr/bin/env python
"""Train a config with several values of some keys, then compare the runs.

The trainings run one after the other, each with every seed. Given again, the command leaves what is
finished and goes on with the rest; --print only prints the commands, for a cluster. A key with one
value is an override of all runs. The first setting is what the others are compared with.

python tools/sweep.py toy/mimdet_mask_rcnn_fpn_sr_0p5_toy --seeds 3 --output output/sweep \
    model.backbone.bottom_up.sample_ratio=0.5,1.0 optimizer.lr=1e-3,5e-4 train.max_iter=300
"""

import argparse
import itertools
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mimdet.analysis.sweep import Setting, check, is_finished, other_settings, plan
from mimdet.command_line import add_output, add_overrides, mistakes_in_one_line, tool_parser
from mimdet.find_config import find_config
from mimdet.report.compare_page import make_comparison
from mimdet.report.models import Model

# Passed on to the training as they are.
_FLAGS = ("data", "batch", "epochs", "num_gpus")


def main(argv: list[str] | None = None) -> None:
    """Read the command line, run or print the trainings, and compare."""
    parser = tool_parser(__doc__)
    parser.add_argument("config", help="config file, or its name")
    parser.add_argument("--seeds", type=int, default=1, help="of each setting: 0, 1, ...")
    add_output(parser, "folder for runs and comparison", default="output/sweep")
    parser.add_argument("--print", action="store_true", help="print the commands, run nothing")
    for flag, what in zip(_FLAGS, ("DIR", "N", "N", "N"), strict=True):
        name = f"--{flag.replace('_', '-')}"
        parser.add_argument(name, metavar=what, help=f"that of mimdet train, {name}")
    add_overrides(parser)
    args = parser.parse_intermixed_args(argv)
    with mistakes_in_one_line(parser):
        if args.seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {args.seeds}")
        settings = plan(args.opts, Path(args.output))
        check(settings, find_config(args.config), args.trust_config)
        _refuse_others(settings, args.seeds)
    runs = list(_runs(args, settings))
    if args.print:
        for _, command in runs:
            print(shlex.join(["mimdet", *command]))
        folders = [str(setting.folder) for setting in settings]
        then = shlex.join(["mimdet", "compare", *folders, "--output", args.output])
        print(f"When all have run: {then}", file=sys.stderr)
        return
    for number, (folder, command) in enumerate(runs, start=1):
        _train(f"[{number}/{len(runs)}] {folder}", folder, command)
    models = [Model(s.name, [s.run(seed) for seed in range(args.seeds)]) for s in settings]
    with mistakes_in_one_line(parser):
        page, table = make_comparison(models, args.output)
    print(f"\n{table}\n\n{page}")


def _runs(args: argparse.Namespace, settings: list[Setting]) -> Iterator[tuple[Path, list[str]]]:
    """Folder and subcommand of each run; all settings with a seed come before the next seed."""
    flags = ["--config-file", args.config, "--resume"]
    for flag in _FLAGS:
        if (value := getattr(args, flag)) is not None:
            flags += [f"--{flag.replace('_', '-')}", value]
    if args.trust_config:
        flags += ["--trust-config", ",".join(args.trust_config)]
    for seed in range(args.seeds):
        for setting in settings:
            yield setting.run(seed), ["train", *flags, *setting.arguments(seed)]


def _refuse_others(settings: list[Setting], seeds: int) -> None:
    """Refuse to compare runs of an earlier sweep in the same folder that were trained otherwise."""
    for setting, seed in itertools.product(settings, range(seeds)):
        run = setting.run(seed)
        if is_finished(run) and (others := other_settings(run, setting.arguments(seed))):
            raise ValueError(
                f"{run} was trained with other settings ({', '.join(others)}); name another "
                "--output, or give the settings that it has"
            )


def _train(title: str, folder: Path, command: list[str]) -> None:
    if is_finished(folder):
        print(f"{title}: is finished", flush=True)
        return
    print(f"{title}\n$ {shlex.join(['mimdet', *command])}", flush=True)
    code = _call([sys.executable, "-m", "mimdet", *command])
    if code:
        code = code if code > 0 else 128 - code  # ended by a signal: as a shell tells it
        print(
            f"sweep: the training above ended with exit code {code}; the same command again leaves "
            "the finished ones and goes on with this one",
            file=sys.stderr,
        )
        raise SystemExit(code)


def _call(command: list[str]) -> int:
    """Run a command, which decides what a notice to end does; the sweep does not end before it.

    SIGTERM is passed on. Ctrl-C reaches both without that.
    """
    process = subprocess.Popen(command)
    handlers = {
        signal.SIGTERM: lambda number, _: process.send_signal(number),
        signal.SIGINT: lambda *_: None,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
