"""`preflight` for the processes of a job: who looks, who prints, and how all of them end."""

import argparse
import os
import sys

from omegaconf import DictConfig

from detectron2.utils import comm
from mimdet.config import AUTO
from mimdet.data.coco.read import forget_files
from mimdet.engine.disk_plan import plan_disk
from mimdet.engine.job import find_job
from mimdet.engine.memory_plan import device_memory, plan_step, switches
from mimdet.engine.output_folder import look_at_folder
from mimdet.engine.preflight import Findings, preflight
from mimdet.engine.propose import propose
from mimdet.engine.resume import is_resuming


def number_of_processes(args: argparse.Namespace) -> int:
    """Of the whole job that a command line starts, or that a launcher has started."""
    job = find_job(os.environ, args.num_machines)
    return job.world_size if job else args.num_gpus * args.num_machines


def check(args: argparse.Namespace) -> None:
    """Compare config, data and files, and end with exit code 2 if they contradict each other.

    On each machine its first process does it; ``preflight=False`` leaves it out. A process of
    several goes on as `args.is_refused`, so that `main` ends the others too. What it has found is
    `args.found`, for the record of the run. With `args.plan` it also prints what fits the memory.
    """
    cfg = args.config.unpack()
    job = find_job(os.environ, args.num_machines)
    is_first = job is None or job.local_rank == 0
    if not (is_first and (args.plan or cfg.get("preflight", True))):
        return
    # First, because reading annotations of COCO's size takes a minute.
    print(
        "preflight: compares config, data and files; looks for every image, and reads one of each "
        "loader as a sample (preflight=False leaves it out)",
        flush=True,
    )
    processes, resuming = number_of_processes(args), is_resuming(cfg, args.resume)
    found = preflight(
        cfg, processes, args.eval_only, resuming, tell=_print_step, rate_origin=_rate_origin(args)
    )
    if job is None and processes > 1:
        forget_files()  # the processes of the run read what they need; this one waits for them
    found.plan[:0] = args.own.notes if args.own else []
    memory = None
    if not (args.eval_only or found.errors):
        local = job.local_size if job else args.num_gpus
        memory = args.memory or found.attempt(lambda: device_memory(cfg.train.device, local))
        _plan_memory(cfg, processes, memory, args.plan, found)
    # the process that will own the folder, before any other one of the job can own it
    if (job.rank if job else args.machine_rank) == 0:
        found.attempt(lambda: look_at_folder(cfg, args.resume, args.eval_only))
        if not (args.eval_only or found.errors):
            _plan_disk(cfg, resuming, found)
    for kind, lines in (("", found.plan), ("warning: ", found.warnings), ("error: ", found.errors)):
        for line in lines:
            print(f"preflight: {kind}{line}", file=sys.stderr if kind else sys.stdout, flush=True)
    args.found = {"plan": found.plan, "warnings": found.warnings, "problems": found.problems}
    if found.errors and job is None and args.num_machines == 1:
        raise SystemExit(2)
    args.is_refused = bool(found.errors)
    if args.plan and memory and "backbone" in cfg.model:
        try:
            print(*propose(cfg, processes, memory), sep="\n", flush=True)
        # What cannot be measured is told above, with the reason.
        except Exception as e:
            print(f"proposal: none ({type(e).__name__} while measuring the model)", flush=True)


def _rate_origin(args: argparse.Namespace) -> str:
    if any(text.lstrip("+").startswith("optimizer.lr=") for text in args.opts):
        return "optimizer.lr of the command line"
    if args.own and args.own.rate_origin:
        return args.own.rate_origin
    return f"optimizer.lr of {args.config_file}"


def _plan_memory(
    cfg: DictConfig, processes: int, memory: int | None, is_plan: bool, found: Findings
) -> None:
    """What a step needs; where that has to be decided, the run itself does it and says so."""
    is_detector = "backbone" in cfg.model
    if memory and is_detector and (is_plan or not switches(cfg, AUTO)):
        found.plan.append(plan_step(cfg, processes, memory)[1])


def _plan_disk(cfg: DictConfig, resuming: bool, found: Findings) -> None:
    try:
        disk = plan_disk(cfg, resuming)
    # A stranger's model may be built with values that weights without content do not have.
    except Exception as e:
        found.plan.append(f"disk: not known ({' '.join(str(e).split())[:99]})")
        return
    found.plan.append(str(disk))
    found.errors += disk.errors()
    found.warnings += [] if found.errors else disk.warnings()


def _print_step(line: str) -> None:
    print(f"preflight: {line}", flush=True)


def end_if_refused(args: argparse.Namespace) -> None:
    """End all processes of the job, with exit code 2, if `check` has found errors in one of them.

    If that one ended alone, the others would wait for it: on another machine nobody stops them.
    """
    refused = [
        rank for rank, is_refused in enumerate(comm.all_gather(args.is_refused)) if is_refused
    ]
    if not refused:
        return
    if comm.get_local_rank() == 0 and not args.is_refused:
        print(f"preflight: error: see the output of rank {refused[0]}", file=sys.stderr, flush=True)
    raise SystemExit(2)
