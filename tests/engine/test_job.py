"""Whoever starts the processes, they are one job; a job that cannot be one is refused."""

import re

import pytest

from mimdet.engine.job import find_job

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
STEP = {
    "SLURM_JOB_ID": "123456",
    "SLURM_STEP_ID": "2",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_NNODES": "2",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}
MPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "MASTER_ADDR": "10.0.0.1",
}

HYDRA = {
    "PMI_RANK": "5",
    "PMI_SIZE": "8",
    "MPI_LOCALRANKID": "1",
    "MPI_LOCALNRANKS": "4",
    "MASTER_ADDR": "10.0.0.1",
}


def without(environ: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in names}


@pytest.mark.parametrize(
    "environ, starter, meeting_point",
    [
        (TORCHRUN, "torchrun", "env://"),
        (STEP, "SLURM", "tcp://gpu07:24194"),
        (MPI, "MPI", "tcp://10.0.0.1:29500"),
        ({**STEP, "MASTER_ADDR": "head", "MASTER_PORT": "5"}, "SLURM", "tcp://head:5"),
        (HYDRA, "MPI", "tcp://10.0.0.1:29500"),
        ({**STEP, **TORCHRUN}, "torchrun", "env://"),  # exported by each task for itself
        (
            {**STEP, **TORCHRUN, "SLURM_PROCID": "1", "TORCHELASTIC_RUN_ID": "none"},
            "torchrun",  # which each task of srun has started
            "env://",
        ),
        ({**STEP, "PMI_RANK": "5", "PMI_SIZE": "8"}, "SLURM", "tcp://gpu07:24194"),
        ({**STEP, **HYDRA}, "MPI", "tcp://10.0.0.1:29500"),
        ({**STEP, **MPI}, "MPI", "tcp://10.0.0.1:29500"),  # mpirun that reaches others by srun
    ],
)
def test_a_started_process_finds_its_place(environ, starter, meeting_point):
    job = find_job(environ)
    assert (job.starter, job.meeting_point) == (starter, meeting_point)
    assert (job.rank, job.world_size, job.local_rank, job.local_size) == (5, 8, 1, 4)


@pytest.mark.parametrize(
    "names, first",
    [
        ("gpu07", "gpu07"),
        ("gpu07,gpu11", "gpu07"),
        ("gpu[3,5-7]", "gpu3"),
        ("rack-1-gpu[007-010]-ib,other", "rack-1-gpu007-ib"),
        ("a1,gpu[3-4]", "a1"),
    ],
)
def test_processes_of_slurm_meet_at_the_first_machine_of_its_list(names, first):
    url = find_job({**STEP, "SLURM_STEP_NODELIST": names}).meeting_point
    assert url == f"tcp://{first}:24194"


def test_processes_of_one_machine_meet_there():
    slurm = {**STEP, "SLURM_STEP_NUM_NODES": "1", "SLURM_LOCALID": "5"}
    assert find_job(slurm).meeting_point == "tcp://127.0.0.1:24194"
    mpi = {**MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "5"}
    assert find_job(without(mpi, "MASTER_ADDR")).meeting_point == "tcp://127.0.0.1:29500"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"},  # a batch script
        {**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # a shell that srun has started
        {**MPI, "OMPI_COMM_WORLD_SIZE": "1"},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"WORLD_SIZE": "8"},
    ],
)
def test_a_process_that_is_alone_has_no_job(environ):
    assert find_job(environ) is None


@pytest.mark.parametrize("environ", [STEP, MPI, {"RANK": "1", "WORLD_SIZE": "8"}])
def test_one_process_per_machine_follows_the_command_line(environ):
    assert find_job(environ, num_machines=8) is None


@pytest.mark.parametrize(
    "environ, message",
    [
        ({"RANK": "1", "WORLD_SIZE": "2"}, "WORLD_SIZE=2 and RANK=1 .* without LOCAL_RANK .* give"),
        ({**TORCHRUN, "RANK": "x"}, "RANK must be a whole number, .* got 'x'; start them by torch"),
        ({**TORCHRUN, "RANK": "9"}, "torchrun must start .* got rank 9 of 8 as process 1 of 4"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "3"}, "the same number of processes on every machine"),
        ({**STEP, "SLURM_LOCALID": "0"}, "SLURM must .* machine by machine, .* process 0 of 4"),
        ({**STEP, "SLURM_STEP_NUM_NODES": "0"}, "SLURM must start .* rank 5 of 8"),
        ({**STEP, "SLURM_STEP_NUM_NODES": "16"}, "SLURM must start .* as process 1 of 0"),
        (
            {**STEP, "SLURM_STEP_NODELIST": ""},
            "SLURM does not name the machine of rank 0, .* set",
        ),
        (without(STEP, "SLURM_STEP_NUM_NODES", "SLURM_NNODES"), "SLURM_NNODES must be .* got ''"),
        (without(STEP, "SLURM_LOCALID"), "SLURM_LOCALID must be a whole number"),
        (
            {**STEP, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"},
            "RANK=0 and WORLD_SIZE=1 contradict SLURM, .* as task 5 of 8; unset RANK",
        ),
        ({**STEP, **TORCHRUN, "SLURM_PROCID": "4"}, "RANK=5 .* task 4 of 8"),
        (without(HYDRA, "MPI_LOCALNRANKS"), "MPI_LOCALNRANKS must be a whole number"),
        (without(MPI, "MASTER_ADDR"), "MPI does not name the machine of rank 0"),
        (without(MPI, "OMPI_COMM_WORLD_LOCAL_SIZE"), "OMPI_COMM_WORLD_LOCAL_SIZE must be"),
    ],
)
def test_variables_that_do_not_describe_a_job_are_refused(environ, message):
    with pytest.raises(ValueError, match=message):
        find_job(environ)


@pytest.mark.parametrize("environ", [TORCHRUN, STEP, MPI])
def test_flags_may_repeat_what_was_started_and_must_not_contradict_it(environ):
    job = find_job(environ)
    for num_gpus, num_machines in ((1, 1), (4, 1), (1, 2), (4, 2)):
        job.check_flags(num_gpus, num_machines)
    for num_gpus, num_machines, flag in ((8, 1, "--num-gpus 8"), (4, 3, "--num-machines 3")):
        message = f"{flag} contradicts {job.starter}, which has started [24] .*; leave --num"
        with pytest.raises(ValueError, match=re.compile(message)):
            job.check_flags(num_gpus, num_machines)
