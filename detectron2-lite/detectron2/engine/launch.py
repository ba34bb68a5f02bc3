"""Starts the processes of a distributed run."""

import gc
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detectron2.utils import comm

__all__ = ["DEFAULT_TIMEOUT", "launch"]

DEFAULT_TIMEOUT = timedelta(minutes=30)


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Run a function in every process of a run; to be called once on every machine.

    One process in total runs `main_func` right here. Else this machine spawns
    `num_gpus_per_machine` processes, which join a process group (NCCL if there is CUDA, else
    GLOO). If one of them fails, the others of this machine are stopped at once and its failure is
    raised here. Those of other machines notice in their next collective operation, at the latest
    after `timeout`; their `launch` raises what they see of it, a lost connection for instance.

    Args:
        main_func: what to run; importable by name, because new processes are spawned.
        num_gpus_per_machine: processes per machine, one for each GPU (or each CPU process).
        num_machines: number of machines.
        machine_rank: index of this machine, from 0.
        dist_url: where the processes meet, as in "tcp://10.0.0.1:29500". "auto" or None picks a
            free port; only on a single machine.
        args: arguments of `main_func`, which can be pickled.
        timeout: how long one process waits for the others in a collective operation. Objects that
            are gathered (`comm.all_gather`) travel beside NCCL, with torch's limit of 30 minutes.

    Raises:
        AssertionError: no `dist_url` for several machines, or fewer GPUs than processes.
        torch.multiprocessing.ProcessRaisedException: a process has raised an exception; the
            message has its index on this machine and its traceback.
        torch.multiprocessing.ProcessExitedException: a process was killed or has died.
    """
    world_size = num_machines * num_gpus_per_machine
    if world_size <= 1:
        main_func(*args)
        return
    if dist_url in (None, "auto"):
        assert num_machines == 1, (
            f"dist_url={dist_url!r} works on a single machine only, got num_machines="
            f"{num_machines}; give the address of machine 0, as in --dist-url tcp://10.0.0.1:29500"
        )
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    if torch.cuda.is_available():
        assert num_gpus_per_machine <= torch.cuda.device_count(), (
            f"{num_gpus_per_machine} processes per machine need as many GPUs, but this machine has "
            f"{torch.cuda.device_count()}; reduce --num-gpus"
        )
    first_rank = machine_rank * num_gpus_per_machine
    mp.start_processes(
        _run,
        (main_func, args, num_gpus_per_machine, first_rank, world_size, dist_url, timeout),
        nprocs=num_gpus_per_machine,
        # CUDA does not work in a process that is forked from one which has used it.
        start_method="spawn",
    )


def _run(
    local_rank: int,
    main_func: Callable[..., Any],
    args: tuple,
    num_local: int,
    first_rank: int,
    world_size: int,
    dist_url: str,
    timeout: timedelta,
) -> None:
    """Be one process of the run.

    Args:
        local_rank: index of this process on its machine.
        main_func: see `launch`.
        args: see `launch`.
        num_local: number of processes of this machine.
        first_rank: global rank of the first of them.
        world_size: number of processes of all machines.
        dist_url: where they meet, as `init_process_group` takes it.
        timeout: see `launch`.
    """
    rank, has_gpu = first_rank + local_rank, torch.cuda.is_available()
    if has_gpu:
        # First of all: what is made on "cuda" from here on is on the device of this process.
        torch.cuda.set_device(local_rank)
    dist.init_process_group(
        "nccl" if has_gpu else "gloo", dist_url, timeout, world_size=world_size, rank=rank
    )
    comm.create_local_process_group(num_local)
    comm.synchronize()
    main_func(*args)
    # Nobody closes its connections while another still uses them, and what holds the process group
    # (a wrapped model in a reference cycle) is freed while the interpreter is still alive. A
    # process that has failed does not come here: it would wait for the others.
    comm.synchronize()
    gc.collect()
    dist.destroy_process_group()


def _free_port() -> int:
    # Port 0 asks for any that is free. Another process may still take it before the ranks meet.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
