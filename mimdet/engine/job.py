"""The job that torchrun, SLURM's srun or mpirun has started this process for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class Job:
    """The place of this process among those that `starter` has started.

    Attributes:
        starter: torchrun, SLURM or MPI.
        rank: index among all processes.
        world_size: number of all processes.
        local_rank: index among the processes of this machine.
        local_size: number of processes of this machine, the same on every machine.
        meeting_point: where they find each other, as `init_process_group` takes it.

    Raises:
        ValueError: if machines differ in size, or ranks do not count machine by machine.
    """

    starter: str
    rank: int
    world_size: int
    local_rank: int
    local_size: int
    meeting_point: str

    def __post_init__(self):
        # Detectron2 takes each block of `local_size` ranks for those of one machine.
        is_even = self.local_size > 0 and self.world_size % self.local_size == 0
        if not (
            is_even
            and self.rank < self.world_size
            and self.rank % self.local_size == self.local_rank
        ):
            raise ValueError(
                f"{self.starter} must start the same number of processes on every machine and "
                f"number them machine by machine, got rank {self.rank} of {self.world_size} as "
                f"process {self.local_rank} of {self.local_size} on its machine"
            )

    def check_flags(self, num_gpus: int, num_machines: int) -> None:
        """Refuse flags that describe another job; each is 1 where it was not given.

        Raises:
            ValueError: naming the flag.
        """
        for flag, given, started, what in (
            ("--num-gpus", num_gpus, self.local_size, "process(es) on each machine"),
            ("--num-machines", num_machines, self.world_size // self.local_size, "machine(s)"),
        ):
            if given not in (1, started):
                raise ValueError(
                    f"{flag} {given} contradicts {self.starter}, which has started {started} "
                    f"{what}; leave {flag} out"
                )


def find_job(environ: Mapping[str, str], num_machines: int = 1) -> Job | None:
    """The job that somebody else has started this process for, or None.

    Args:
        environ: the environment variables of this process.
        num_machines: the flag. Where srun or mpirun starts just one process per machine
            (``srun --ntasks-per-node=1 python ... --num-machines N``), the command line describes
            the job.

    Raises:
        ValueError: if the variables contradict each other or one is missing.
    """
    is_ranked = "RANK" in environ and "WORLD_SIZE" in environ
    if is_ranked and "LOCAL_RANK" in environ:
        _check_own_task(environ)
        return _torchrun_job(environ)
    # A cluster may number its machines by these two, for `--num-machines` or for torchrun. Without
    # either every machine would train on its own.
    if is_ranked and num_machines == 1 and _number(environ, "WORLD_SIZE") > 1:
        raise ValueError(
            f"WORLD_SIZE={environ['WORLD_SIZE']} and RANK={environ['RANK']} tell of several "
            "processes, but without LOCAL_RANK they do not say where; start them by torchrun, "
            "give --num-machines, or unset them"
        )
    # mpirun may use srun to reach other machines, so that both have left their variables.
    for processes, job in (
        (_number(environ, _OPEN_MPI.world_size, 1), partial(_mpi_job, names=_OPEN_MPI)),
        (_processes_of_hydra(environ), partial(_mpi_job, names=_HYDRA)),
        (_tasks_of_step(environ), _slurm_job),
    ):
        if processes > 1:
            return None if processes == num_machines else job(environ)
    return None


def _check_own_task(environ: Mapping[str, str]) -> None:
    """Refuse torchrun's variables where they were exported once for all tasks of srun.

    Each task would take itself for the same process.
    """
    tasks = _tasks_of_step(environ)
    # torchrun, which may run in each task of srun, names its run; a script that exports does not.
    if tasks == 1 or "TORCHELASTIC_RUN_ID" in environ:
        return
    own = _number(environ, "RANK"), _number(environ, "WORLD_SIZE")
    if own != (_number(environ, "SLURM_PROCID"), tasks):
        raise ValueError(
            f"RANK={own[0]} and WORLD_SIZE={own[1]} contradict SLURM, whose srun has started this "
            f"process as task {environ['SLURM_PROCID']} of {tasks}; unset RANK, WORLD_SIZE and "
            "LOCAL_RANK, or let srun start torchrun once on each machine"
        )


def _torchrun_job(environ: Mapping[str, str]) -> Job:
    world_size = _number(environ, "WORLD_SIZE")
    return Job(
        "torchrun",
        _number(environ, "RANK"),
        world_size,
        _number(environ, "LOCAL_RANK"),
        _number(environ, "LOCAL_WORLD_SIZE", world_size),
        "env://",
    )


@dataclass(frozen=True)
class _Names:
    """The variables of an mpirun."""

    rank: str
    world_size: str
    local_rank: str
    local_size: str


_OPEN_MPI = _Names(*(f"OMPI_COMM_WORLD_{n}" for n in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")))
# The mpirun of MPICH and Intel MPI.
_HYDRA = _Names("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")


def _processes_of_hydra(environ: Mapping[str, str]) -> int:
    # srun sets the first two as well (--mpi=pmi2), for its own tasks.
    is_own = _HYDRA.local_size in environ or _tasks_of_step(environ) == 1
    return _number(environ, _HYDRA.world_size, 1) if is_own else 1


def _mpi_job(environ: Mapping[str, str], names: _Names) -> Job:
    world_size = _number(environ, names.world_size)
    local_size = _number(environ, names.local_size)
    # Of several machines mpirun's variables do not name the first: MASTER_ADDR has to.
    address = "127.0.0.1" if local_size == world_size else ""
    return Job(
        "MPI",
        _number(environ, names.rank),
        world_size,
        _number(environ, names.local_rank),
        local_size,
        # The default port of torch.distributed's own launchers.
        _meeting_point(environ, "MPI", address, 29500),
    )


def _tasks_of_step(environ: Mapping[str, str]) -> int:
    """How many tasks srun has started together with this process; 1 without srun.

    A batch script, which is one process, has SLURM_NTASKS too: it is task 0 and of no step.
    """
    is_task = "SLURM_STEP_ID" in environ or environ.get("SLURM_PROCID", "0") != "0"
    tasks = _number(environ, "SLURM_NTASKS", 1) if is_task else 1
    return _number(environ, "SLURM_STEP_NUM_TASKS", tasks)


def _slurm_job(environ: Mapping[str, str]) -> Job:
    world_size = _tasks_of_step(environ)
    of_step = "SLURM_STEP_NUM_NODES" in environ
    machines = _number(environ, "SLURM_STEP_NUM_NODES" if of_step else "SLURM_NNODES")
    names = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "")
    address = "127.0.0.1" if machines == 1 else _first_machine(names)
    # Steps that share a machine must not meet each other.
    # 20000 to 29999 is below the ports that Linux gives to outgoing connections (from 32768).
    own = 7 * _number(environ, "SLURM_JOB_ID", 0) + _number(environ, "SLURM_STEP_ID", 0)
    return Job(
        "SLURM",
        _number(environ, "SLURM_PROCID"),
        world_size,
        _number(environ, "SLURM_LOCALID"),
        world_size // max(machines, 1),
        _meeting_point(environ, "SLURM", address, 20000 + own % 10000),
    )


def _first_machine(names: str) -> str:
    """The first of SLURM's list: node03-ib of ``node[03-05,11]-ib,other``."""
    found = re.match(r"([^\[,]*)(?:\[(\w+)[^\]]*\]([^\[,]*))?", names)
    return "".join(part or "" for part in found.groups())


def _meeting_point(environ: Mapping[str, str], starter: str, address: str, port: int) -> str:
    address = environ.get("MASTER_ADDR", address)
    if not address:
        raise ValueError(
            f"{starter} does not name the machine of rank 0, at which the processes meet; set "
            "MASTER_ADDR to it, and MASTER_PORT to a free port of it"
        )
    return f"tcp://{address}:{_number(environ, 'MASTER_PORT', port)}"


def _number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environ.get(name, "" if default is None else str(default))
    if not re.fullmatch(r"[0-9]+", text):
        raise ValueError(
            f"{name} must be a whole number, because other variables tell of several processes, "
            f"got {text!r}; start them by torchrun, or give --num-gpus to a single process"
        )
    return int(text)
