"""One job, whoever starts its processes: the training script itself, torchrun, srun or mpirun.

Detectron2's `launch` starts processes and does not look for those that somebody else has started:
each of them would train on its own, all into one folder.
"""

import argparse
import gc
import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from detectron2.utils import comm
from mimdet.engine.job import Job, find_job
from mimdet.engine.meeting import TIMEOUT, announced_machines, meet
from mimdet.engine.notice import NOTICE, until_notice
from mimdet.engine.ranks import start_ranks


def launch(
    main: Callable[..., Any],
    num_gpus: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple = (),
) -> None:
    """Run `main` in every process of a job.

    A process of torchrun, srun or mpirun joins the others of that. Any other one starts the
    processes of its machine, by `detectron2.engine.launch`, which describes the arguments.

    Raises:
        SystemExit: with `PREEMPTED`, if a notice has ended the run (see `mimdet.engine.notice`).
        ValueError: if the environment tells of a job but not enough to join it.
    """
    job = find_job(os.environ, num_machines)
    if job is not None:
        _run(job, main, args)
        return
    if num_gpus * num_machines > 1:  # else Detectron2 calls it right here
        main, args = _with_forked_workers, (main, *args)
    with announced_machines(dist_url, machine_rank, num_machines):
        start_ranks(main, num_gpus, num_machines, machine_rank, dist_url, args)


def _with_forked_workers(main: Callable[..., Any], *args: Any) -> None:
    """Run `main` in a process that Detectron2 has spawned, so that its data loaders fork workers.

    A spawned process spawns its own children too: each worker would import torch and the script
    anew, which takes as long as the start of a rank, and all of them at the same time.

    Forking is safe here as it is in a training of one process or of torchrun, where every loader of
    torch on Linux forks. Workers use neither CUDA nor the process group, of which they have a copy
    that they leave alone: batches are pinned and moved to the GPU by their parent, and they end by
    `_exit`, without closing what is not theirs. Of the parent's threads (NCCL, gloo) a worker has
    none; the locks that these might hold are not among those that it takes, and Python and the C
    library put theirs in order at a fork.
    """
    if sys.platform == "linux":  # on macOS system libraries do not survive a fork
        multiprocessing.set_start_method("fork", force=True)
    main(*args)


def _run(job: Job, main: Callable[..., Any], args: tuple) -> None:
    has_gpu = torch.cuda.is_available()
    gpu, device = "", None
    if has_gpu:
        # srun --gpus-per-task=1 hides the GPUs of the others: each process sees its own as 0.
        torch.cuda.set_device(job.local_rank if torch.cuda.device_count() > 1 else 0)
        device = torch.device("cuda", torch.cuda.current_device())
        gpu = str(torch.cuda.get_device_properties(device).uuid)
    this = f"{job.starter}: rank {job.rank} of {job.world_size}"
    print(f"{this} joins the run at {job.meeting_point}", flush=True)
    dist.init_process_group(
        "nccl" if has_gpu else "gloo",
        store=meet(job, gpu),
        rank=job.rank,
        world_size=job.world_size,
        timeout=TIMEOUT,
        device_id=device,  # or NCCL guesses it at the first barrier, from the rank
    )
    # Detectron2's `launch` would make it; `comm.get_local_rank` needs it.
    comm.create_local_process_group(job.local_size)
    comm.synchronize()
    with NOTICE.heeded():
        # `record` tells torchrun the exception, for its summary of a failed run.
        code = until_notice(record(main) if job.starter == "torchrun" else main, args)
    # Nobody closes its connections while another still uses them, and what holds the group (a
    # wrapped model in a reference cycle) goes while the interpreter is whole. A process that has
    # failed does not come here: it would wait for the others.
    comm.synchronize()
    gc.collect()
    dist.destroy_process_group()
    if code:
        raise SystemExit(code)


def check_processes(args: argparse.Namespace, default_url: str) -> None:
    """Refuse a command line whose processes cannot find each other, or have no GPU.

    Args:
        args: with `num_gpus`, `num_machines`, `machine_rank` and `dist_url`.
        default_url: the `dist_url` of a command line without it, good for one machine.

    Raises:
        ValueError: naming the flag.
    """
    for flag, number in (("--num-gpus", args.num_gpus), ("--num-machines", args.num_machines)):
        if number < 1:
            raise ValueError(f"{flag} must be at least 1 (on a CPU too), got {number}")
    if not 0 <= args.machine_rank < args.num_machines:
        raise ValueError(
            f"--machine-rank (--node_rank) must be from 0 to {args.num_machines - 1} because of "
            f"--num-machines {args.num_machines}, got {args.machine_rank}"
        )
    job = find_job(os.environ, args.num_machines)
    if job is None:
        processes = args.num_gpus
        _check_address(args.dist_url, args.num_machines, default_url)
    else:
        processes = job.local_size
        job.check_flags(args.num_gpus, args.num_machines)
    visible = torch.cuda.device_count() if torch.cuda.is_available() else processes
    # A task of srun or mpirun that sees one GPU may have it to itself, see `meet`.
    has_own = visible == 1 and job is not None and job.starter != "torchrun"
    if processes > visible and not has_own:
        raise ValueError(
            f"--num-gpus must be at most the number of GPUs that a process sees on this machine, "
            f"which is {visible}, got {processes}" + (f" by {job.starter}" if job else "")
        )


def _check_address(url: str, num_machines: int, default_url: str) -> None:
    if num_machines > 1 and url in (default_url, "auto"):
        raise ValueError(
            f"--num-machines {num_machines} needs the address of machine 0 on every machine: "
            "--master_addr ADDRESS --master_port PORT, or --dist-url tcp://ADDRESS:PORT"
        )
    try:
        parts = urlsplit(url)
        is_address = parts.scheme == "tcp" and bool(parts.hostname and parts.port)
    except ValueError:  # the port is no number or too large
        is_address = False
    if not (is_address or url == "auto" or url.startswith(("file://", "env://"))):
        raise ValueError(
            "--dist-url must be tcp://ADDRESS:PORT with a port from 1 to 65535 (or auto, on one "
            f"machine), got {url!r}"
        )
