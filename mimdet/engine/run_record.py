"""``run.json``: each start of a run in its folder, with what it was made, and how it ended."""

import argparse
import contextlib
import importlib.metadata
import logging
import os
import platform
import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from detectron2.utils import comm
from mimdet.engine.notice import PREEMPTED
from mimdet.evaluation.protocol import versions
from mimdet.evaluation.results import write_json
from mimdet.report.page import make_report
from mimdet.report.run_files import RECORD, starts

logger = logging.getLogger(__name__)

_PACKAGES = ("torchvision", "timm", "numpy")


@contextlib.contextmanager
def recorded(args: argparse.Namespace, cfg: DictConfig) -> Iterator[None]:
    """Tell of the start of a run and, when the block ends, how it ended; then make its report.

    The main process does it, in `train.output_dir`. A report is made of what has failed too, but
    not of what a notice or Ctrl-C has ended: somebody waits for that. Neither file is worth a run:
    where one cannot be made, the log warns.

    Args:
        args: of the command line, with `command`, and `found` if preflight has looked.
        cfg: of the run; ``train.report=False`` leaves the report out.
    """
    if not comm.is_main_process():
        yield
        return
    folder = Path(cfg.train.output_dir)
    before, start = starts(folder), _describe(args, cfg)
    _write(folder, [*before, start])
    # Written before the work too: of a process that is killed the record stays "running".
    outcome, error = "finished", None
    try:
        yield
    except BaseException as e:
        outcome, error = _ending(e)
        raise
    finally:
        start |= {"outcome": outcome, "error": error, "ended": _now()}
        _write(folder, [*before, start])
        if cfg.train.get("report", True) and outcome in ("finished", "failed"):
            report(folder)


def report(folder: Path) -> None:
    """Make the report of a run; a warning says if that fails."""
    try:
        logger.info(f"The report of this run: {make_report(folder)}")
    except Exception as e:  # whatever it is: a run has not failed because its report has
        logger.warning(f"The report of this run could not be made ({e!r:.300}): mimdet report")


def command_of(program: str, words: Sequence[str]) -> str:
    """What was typed, as a shell takes it again.

    Args:
        program: the name of the script, or of the command with its subcommand.
        words: its arguments.
    """
    python = "python " if program.endswith(".py") else ""
    return f"{python}{program} {shlex.join(words)}"


def _describe(args: argparse.Namespace, cfg: DictConfig) -> dict[str, Any]:
    found = args.found or {}
    return {
        "kind": "evaluation" if args.eval_only else "training",
        "command": args.command,
        "folder": os.getcwd(),
        "processes": comm.get_world_size(),
        "started": _now(),
        "ended": None,
        "outcome": "running",
        "error": None,
        "iterations": None if args.eval_only else cfg.train.max_iter,
        "environment": environment(cfg.train.device),
        **found,
    }


def environment(device: str) -> dict[str, str]:
    """What a run runs on, by name: machine, device, versions."""
    names = {}
    if torch.device(device).type == "cuda":
        names["device"] = torch.cuda.get_device_name()
        names["CUDA of PyTorch"] = str(torch.version.cuda)
    names |= {
        "processor": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores for this process"
        if hasattr(os, "sched_getaffinity")
        else platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: str(version) for name, version in versions().items()},
    }
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            names[package] = importlib.metadata.version(package)
    return {"device": "CPU"} | names


def _ending(error: BaseException) -> tuple[str, str | None]:
    """The outcome that an exception means, and what to say of it."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped", None
    if isinstance(error, SystemExit):
        if error.code == PREEMPTED:
            return "preempted", None
        return "failed", str(error.code)
    return "failed", f"{type(error).__name__}: {error}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write(folder: Path, all_starts: list[dict[str, Any]]) -> None:
    try:
        write_json({"starts": all_starts}, folder / RECORD, indent=1)
    except OSError as e:
        logger.warning(f"{folder / RECORD} cannot be written ({e}): the run goes on without it")
