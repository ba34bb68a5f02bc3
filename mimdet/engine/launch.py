"""One job, whoever starts its processes: the training script itself, torchrun, srun or mpirun.

Detectron2's `launch` starts processes and does not look for those that somebody else has started:
each of them would train on its own, all into one folder.
"""

import argparse
import contextlib
import gc
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from detectron2 import engine
from detectron2.utils import comm
from mimdet.engine.job import Job, find_job

_TIMEOUT = timedelta(minutes=30)  # that of Detectron2


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
        ValueError: if the environment tells of a job but not enough to join it.
    """
    job = find_job(os.environ, num_machines)
    if job is None:
        engine.launch(main, num_gpus, num_machines, machine_rank, dist_url, args)
    else:
        _run(job, main, args)


def _run(job: Job, main: Callable[..., Any], args: tuple) -> None:
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(job.local_rank)
    this = f"{job.starter}: rank {job.rank} of {job.world_size}"
    others = "the others" if job.rank == 0 else "rank 0"
    print(f"{this} joins the run at {job.meeting_point}", flush=True)
    with _repeated(f"{this} still waits for {others} at {job.meeting_point}"):
        dist.init_process_group(
            "nccl" if has_gpu else "gloo",
            **_meeting(job),
            rank=job.rank,
            world_size=job.world_size,
            timeout=_TIMEOUT,
        )
        comm.create_local_process_group(job.local_size)
        comm.synchronize()
    # `record` tells torchrun the exception, for its summary of a failed run.
    (record(main) if job.starter == "torchrun" else main)(*args)
    # Nobody closes its connections while another still uses them, and what holds the group (a
    # wrapped model in a reference cycle) goes while the interpreter is whole. A process that has
    # failed does not come here: it would wait for the others.
    comm.synchronize()
    gc.collect()
    dist.destroy_process_group()


def _meeting(job: Job) -> dict[str, Any]:
    """Where the processes meet, as arguments of `init_process_group`."""
    if job.starter != "torchrun":
        return {"init_method": job.meeting_point}
    store, _, _ = next(
        dist.rendezvous(job.meeting_point, job.rank, job.world_size, timeout=_TIMEOUT)
    )
    return {"store": dist.PrefixStore(_agree_on_name(store, job), store)}


def _agree_on_name(store: dist.Store, job: Job) -> str:
    """A name for this start of the job, which no earlier one has used.

    torchrun keeps its store when it starts the processes again, and with it the addresses of those
    that have died. Machines may count restarts differently, so rank 0 draws a name. The others
    cannot take it for an older one: it comes as the answer to a word that each draws anew.
    """
    word = uuid.uuid4().hex
    if job.rank > 0:
        store.set(f"asked/{job.rank}", word)
        store.wait([f"answer/{word}"], _TIMEOUT)
        name = store.get(f"answer/{word}").decode()
        store.set(f"{name}/{job.rank}", "")
        return name
    missing = list(range(1, job.world_size))
    while missing:
        for rank in missing:
            if store.check([f"asked/{rank}"]):  # perhaps by one that has died: ask again later
                store.set(f"answer/{store.get(f'asked/{rank}').decode()}", word)
        missing = [rank for rank in missing if not store.check([f"{word}/{rank}"])]
        time.sleep(0.01)
    return word


@contextlib.contextmanager
def _repeated(message: str, seconds: float = 30.0) -> Iterator[None]:
    """Print a message again and again until the block ends."""
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(seconds):
            print(message, flush=True)

    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


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
    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise ValueError(
            f"--num-gpus must be at most the number of GPUs that a process sees on this machine, "
            f"which is {torch.cuda.device_count()}, got {processes}"
            + (f" by {job.starter}" if job else "")
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
