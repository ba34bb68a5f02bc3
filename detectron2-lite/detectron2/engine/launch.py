"""Starts the processes of a distributed run."""

import contextlib
import gc
import logging
import os
import signal
import socket
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detectron2.utils import comm

__all__ = ["DEFAULT_TIMEOUT", "launch"]

logger = logging.getLogger(__name__)

DEFAULT_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class _Run:
    """What the processes of a run must know to find each other.

    Attributes:
        dist_url: where they meet, as `init_process_group` takes it; None under torchrun.
        world_size: number of processes of all machines.
        num_local: number of processes of this machine.
        first_rank: global rank of the first process of this machine.
        timeout: how long one process waits for the others.
    """

    dist_url: str | None
    world_size: int
    num_local: int
    first_rank: int
    timeout: timedelta

    def join(self, local_rank: int) -> None:
        """Make this process one of the run."""
        rank = self.first_rank + local_rank
        on_cuda = torch.cuda.is_available()
        if on_cuda:
            torch.cuda.set_device(local_rank)
        try:
            dist.init_process_group(
                backend="nccl" if on_cuda else "gloo",
                init_method=self.dist_url,
                store=None if self.dist_url else self._store_of_this_start(rank),
                world_size=self.world_size,
                rank=rank,
                timeout=self.timeout,
            )
        except Exception:
            place = self.dist_url or f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            logger.error(f"Rank {rank} cannot join the process group at {place}")
            raise
        comm.create_local_process_group(self.num_local)
        comm.synchronize()

    @staticmethod
    def leave() -> None:
        """Take this process out of the run, which it has ended well, together with the others.

        Nobody closes its connections while another still uses them, and what holds the process
        group (a wrapped model in a reference cycle) is freed while the interpreter is still alive.
        A process that has failed must not call this: it would wait for the others.
        """
        comm.synchronize()
        gc.collect()
        dist.destroy_process_group()

    def _store_of_this_start(self, rank: int) -> dist.Store:
        """A part of torchrun's store that no earlier start of the run has used.

        torchrun may keep its store over restarts, and with it the addresses of processes that have
        died. So rank 0 names a new part. The others know its answer from older ones because it is
        to a question that each asks anew.
        """
        store, _, _ = next(dist.rendezvous("env://", rank, self.world_size, timeout=self.timeout))
        own_name = uuid.uuid4().hex
        if rank == 0:
            self._answer_all(store, own_name)
            return dist.PrefixStore(own_name, store)
        store.set(f"question/{rank}", own_name)
        store.wait([f"answer/{own_name}"], self.timeout)
        name = store.get(f"answer/{own_name}").decode()
        store.set(f"{name}/joined/{rank}", "")
        return dist.PrefixStore(name, store)

    def _answer_all(self, store: dist.Store, name: str) -> None:
        missing = set(range(1, self.world_size))
        end = time.monotonic() + self.timeout.total_seconds()
        while missing:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"ranks {sorted(missing)} of {self.world_size} have not joined the run within "
                    f"{self.timeout}; see their output"
                )
            for rank in missing:
                if store.check([f"question/{rank}"]):  # maybe that of an earlier start
                    store.set(f"answer/{store.get(f'question/{rank}').decode()}", name)
            missing = {rank for rank in missing if not store.check([f"{name}/joined/{rank}"])}
            time.sleep(0.01)


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

    Under `torchrun` (RANK, WORLD_SIZE and LOCAL_RANK are set) nothing is spawned: this process
    joins the group that the environment describes, and the numbers given here are ignored.

    Args:
        main_func: what to run; importable by name, because new processes are spawned.
        num_gpus_per_machine: processes per machine, one for each GPU (or each CPU process).
        num_machines: number of machines.
        machine_rank: index of this machine, from 0.
        dist_url: where the processes meet, as in "tcp://10.0.0.1:29500". "auto" or None picks a
            free port; only on a single machine.
        args: arguments of `main_func`, which can be pickled.
        timeout: how long one process waits for the others in a collective operation.

    Raises:
        AssertionError: no `dist_url` for several machines, or fewer GPUs than processes.
        torch.multiprocessing.ProcessRaisedException: a process has raised an exception; the
            message names its rank and holds its traceback.
        torch.multiprocessing.ProcessExitedException: a process was killed or has died.
    """
    if _is_under_torchrun() and not dist.is_initialized():
        _run_under_torchrun(main_func, args, timeout)
        return
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
    _check_gpus(num_gpus_per_machine)
    first_rank = machine_rank * num_gpus_per_machine
    _spawn(_Run(dist_url, world_size, num_gpus_per_machine, first_rank, timeout), main_func, args)


def _spawn(run: _Run, main_func: Callable[..., Any], args: tuple) -> None:
    """Run `main_func` in new processes, until all have ended or one has failed."""
    with tempfile.TemporaryDirectory(prefix="detectron2_launch_") as folder:
        report = Path(folder) / "first_failure.txt"
        context = mp.start_processes(
            _worker, (run, main_func, args, report), run.num_local, join=False, start_method="spawn"
        )
        try:
            while not context.join():
                pass  # True when all processes have ended well
        except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
            raise _cause(error, context.processes, report, run) from None


def _worker(
    local_rank: int, run: _Run, main_func: Callable[..., Any], args: tuple, report: Path
) -> None:
    try:
        run.join(local_rank)
        main_func(*args)
    except (Exception, SystemExit) as error:
        if not (isinstance(error, SystemExit) and error.code in (None, 0)):
            _report_if_first(report, local_rank)
        raise
    run.leave()


def _report_if_first(report: Path, local_rank: int) -> None:
    """Leave the current exception for `launch`, unless another process was earlier.

    One failure makes the others fail in their collectives soon after: the first is the cause.
    """
    own = report.with_name(f"failure_{local_rank}.txt")
    own.write_text(f"{local_rank}\n{traceback.format_exc()}", encoding="utf-8")
    # A link appears with its whole content or not at all, though this process may be killed now.
    with contextlib.suppress(FileExistsError):
        report.hardlink_to(own)


def _cause(
    error: mp.ProcessRaisedException | mp.ProcessExitedException,
    processes: Sequence[BaseProcess],
    report: Path,
    run: _Run,
) -> Exception:
    """The exception that tells a user which rank has failed first, and why."""
    stopped = "All ranks of this machine were stopped."
    if run.world_size > run.num_local:
        stopped += " If a connection was lost, the output of the other machines has the cause."
    trace = ""
    if report.exists():
        head, trace = report.read_text(encoding="utf-8").split("\n", 1)
        index = int(head)
        trace = f"rank {run.first_rank + index} of {run.world_size} has failed:\n\n{trace}"
    # What is killed from outside leaves no report, but makes the others fail and report that.
    exit_codes = [process.exitcode for process in processes]
    killed = [i for i, code in enumerate(exit_codes) if code < 0 and code != -signal.SIGTERM]
    if trace and not killed:
        return mp.ProcessRaisedException(f"{trace}\n{stopped}", index, processes[index].pid)
    index = killed[0] if killed else error.error_index
    code = exit_codes[index]
    return mp.ProcessExitedException(
        f"rank {run.first_rank + index} of {run.world_size} has died with exit code {code}"
        f"{_signal_hint(code)}. {stopped}" + (f"\n\nThe first exception: {trace}" if trace else ""),
        index,
        processes[index].pid,
        code,
    )


def _signal_hint(exit_code: int) -> str:
    if exit_code == -signal.SIGKILL:
        return " (SIGKILL; that often means: out of memory)"
    return f" ({signal.Signals(-exit_code).name})" if exit_code < 0 else ""


def _is_under_torchrun() -> bool:
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))


def _run_under_torchrun(main_func: Callable[..., Any], args: tuple, timeout: timedelta) -> None:
    from torch.distributed.elastic.multiprocessing.errors import record

    world_size, local_rank = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
    num_local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    _check_gpus(num_local)
    first_rank = int(os.environ["RANK"]) - local_rank
    run = _Run(None, world_size, num_local, first_rank, timeout)
    run.join(local_rank)
    record(main_func)(*args)  # tells torchrun the exception, for its summary of the failed run
    run.leave()


def _check_gpus(num_local: int) -> None:
    if torch.cuda.is_available():
        assert num_local <= torch.cuda.device_count(), (
            f"{num_local} processes per machine need as many GPUs, but this machine has "
            f"{torch.cuda.device_count()}; reduce --num-gpus"
        )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
