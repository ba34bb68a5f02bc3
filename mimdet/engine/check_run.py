"""`preflight` for the processes of a job: who looks, who prints, and how all of them end."""

import argparse
import os
import sys

from detectron2.utils import comm
from mimdet.data.coco.read import forget_files
from mimdet.engine.job import find_job
from mimdet.engine.output_folder import look_at_folder
from mimdet.engine.preflight import preflight
from mimdet.engine.resume import is_resuming


def number_of_processes(args: argparse.Namespace) -> int:
    """Of the whole job that a command line starts, or that a launcher has started."""
    job = find_job(os.environ, args.num_machines)
    return job.world_size if job else args.num_gpus * args.num_machines


def check(args: argparse.Namespace) -> None:
    """Compare config, data and files, and end with exit code 2 if they contradict each other.

    On each machine its first process does it; ``preflight=False`` leaves it out. A process of
    several goes on as `args.is_refused`, so that `main` ends the others too. What it has found is
    `args.found`, for the record of the run.
    """
    cfg = args.config.unpack()
    job = find_job(os.environ, args.num_machines)
    is_first = job is None or job.local_rank == 0
    if not (is_first and cfg.get("preflight", True)):
        return
    # First, because reading annotations of COCO's size takes a minute.
    print(
        "preflight: compares config, data and files; looks for every image, and reads one of each "
        "loader as a sample (preflight=False leaves it out)",
        flush=True,
    )
    processes = number_of_processes(args)
    found = preflight(
        cfg, processes, args.eval_only, is_resuming(cfg, args.resume), tell=_print_step
    )
    if job is None and processes > 1:
        forget_files()  # the processes of the run read what they need; this one waits for them
    found.plan[:0] = args.notes
    # the process that will own the folder, before any other one of the job can own it
    if not args.eval_only and (job.rank if job else args.machine_rank) == 0:
        found.attempt(lambda: look_at_folder(cfg, args.resume))
    for kind, lines in (("", found.plan), ("warning: ", found.warnings), ("error: ", found.errors)):
        for line in lines:
            print(f"preflight: {kind}{line}", file=sys.stderr if kind else sys.stdout, flush=True)
    args.found = {"plan": found.plan, "warnings": found.warnings, "problems": found.problems}
    if found.errors and job is None and args.num_machines == 1:
        raise SystemExit(2)
    args.is_refused = bool(found.errors)


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
