"""Processes of others are joined, and command lines that cannot run are refused at once.

Detectron2's `launch` is replaced by one that, as upstream's, knows nothing of the environment.
"""

import json
import multiprocessing
import re
import signal
import socket
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import toy_runs

from detectron2 import engine
from detectron2.utils import comm
from mimdet.engine import launch as module
from mimdet.engine import meeting
from mimdet.engine.job import Job
from mimdet.engine.launch import check_processes, launch
from mimdet.engine.ranks import start_ranks

SLURM = {
    **{"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"},
    **{"SLURM_NNODES": "1", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"},
}
DEFAULT = "tcp://127.0.0.1:50000"


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@pytest.fixture
def started(monkeypatch):
    """Calls of Detectron2's launch, which starts nothing here."""
    calls = []
    monkeypatch.setattr(engine, "launch", lambda *arguments: calls.append(arguments))
    return calls


@pytest.fixture
def set_environment(monkeypatch):
    """Set environment variables for the test; a process group that it leaves is ended."""

    def set_variables(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    yield set_variables
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.fixture
def torchrun(set_environment, tmp_path):
    """The environment that torchrun gives to the only process of a run."""
    set_environment(
        **{"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()},
        TORCHELASTIC_ERROR_FILE=tmp_path / "error.json",
    )


needs_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="about processes on a CPU")


def test_a_process_that_nobody_has_started_starts_others_by_detectron2(started):
    launch(print, 4, num_machines=2, machine_rank=1, dist_url="tcp://a:1", args=("x",))
    ((_, *numbers, (_, args, _)),) = started  # in each process something that hears signals
    assert (numbers, args) == ([4, 2, 1, "tcp://a:1"], (print, "x"))


def test_a_training_of_one_process_runs_as_detectron2_does_it(started):
    launch(print, 1, dist_url="auto", args=("x",))
    assert started == [(print, 1, 1, 0, "auto", ("x",))]


@needs_cpu
def test_a_process_of_torchrun_joins_its_run_and_leaves_it(started, torchrun):
    seen = []

    def main(word):
        seen.append((word, dist.get_backend(), comm.get_world_size(), comm.get_local_rank()))

    launch(main, 1, args=("x",))
    assert seen == [("x", "gloo", 1, 0)]
    assert started == []
    assert not dist.is_initialized()


@needs_cpu
def test_torchrun_learns_why_its_process_has_failed(torchrun, tmp_path):
    def main():
        raise FloatingPointError("the loss of image 139")

    with pytest.raises(FloatingPointError):
        launch(main, 1)
    message = json.loads((tmp_path / "error.json").read_text())["message"]
    assert message["message"] == "FloatingPointError: the loss of image 139"


def in_threads(*calls):
    """Run calls side by side; -> what each has raised, or None."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.exception() for future in [pool.submit(*call) for call in calls]]


def jobs(size: int, starter: str = "SLURM") -> list[Job]:
    place = f"tcp://127.0.0.1:{free_port()}"
    return [Job(starter, rank, size, rank, size, place) for rank in range(size)]


def test_who_waits_says_for_whom(capfd):
    (first, second), store = jobs(2), dist.HashStore()

    def comes_late():
        time.sleep(0.3)
        meeting.roll_call(store, "process", 1, 2, "there")

    def waits():
        meeting.roll_call(store, "process", 0, 2, "there", 0.1)

    assert in_threads((waits,), (comes_late,)) == [None, None]
    said = capfd.readouterr().out.splitlines()
    assert said[0] == "waiting for 1 of 2 processes at there, 0 s (missing: {1})"

    def host_is_late():
        time.sleep(0.3)
        meeting.meet(first)

    assert in_threads((meeting.meet, second, "", 0.1), (host_is_late,)) == [None, None]
    said = capfd.readouterr().out.splitlines()
    assert said[0] == f"SLURM: waiting for rank 0 of 2 at {first.meeting_point}, 0 s"


@pytest.mark.parametrize("rank, who", [(0, r"ranks \[1\]"), (1, "rank 0")])
def test_ranks_of_torchrun_do_not_wait_for_ever(rank, who, monkeypatch):
    monkeypatch.setattr(meeting, "TIMEOUT", timedelta(seconds=0.1))
    with pytest.raises(TimeoutError, match=f"waited in vain for {who}; see"):
        meeting._agree_on_name(dist.HashStore(), jobs(2, "torchrun")[rank])


def test_machines_that_detectron2_lets_meet_say_for_whom_they_wait(capfd):
    url = f"tcp://127.0.0.1:{free_port()}"
    with meeting.announced_machines(url, 1, 2, period=0.05):
        time.sleep(0.3)
        store = meeting._tcp_store(url, is_host=True)  # as Detectron2 does on machine 0
        time.sleep(0.5)
        meeting.roll_call(store, "machine", 0, 2, url)
    said = capfd.readouterr().out.splitlines()
    assert f"waiting for machine 0 of 2 at {url}, 0 s" in said
    assert f"waiting for 1 of 2 machines at {url}, 0 s (missing: {{0}})" in said


def test_two_processes_on_one_gpu_are_refused():
    same = in_threads(*((meeting.meet, job, "GPU-1") for job in jobs(2)))
    message = r"SLURM: ranks 0 and 1 see the same GPU \(.* GPU-1\); .* \(--gpus-per-task=1\)"
    assert all(re.match(message, str(error)) for error in same)
    own = in_threads(*((meeting.meet, job, f"GPU-{job.rank}") for job in jobs(2)))
    assert own == [None, None]


def test_a_task_that_sees_its_own_gpu_alone_takes_that(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: taken[0])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Namespace(uuid="GPU-7"))

    class Met(Exception):
        pass

    def meets(job, device):
        raise Met(device)

    monkeypatch.setattr(module, "meet", meets)
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    check()
    with pytest.raises(Met, match="^GPU-7$"):
        launch(print, 1)
    assert taken == [0]


def start_method_of_workers(folder):
    (folder / f"{comm.get_rank()}").write_text(multiprocessing.get_start_method())


@needs_cpu
def test_workers_of_spawned_ranks_are_forked(tmp_path):
    launch(start_method_of_workers, 2, dist_url="auto", args=(tmp_path,))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["fork", "fork"]


# --- Command lines --------------------------------------------------------------------------------


def check(**flags):
    default = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": DEFAULT}
    check_processes(Namespace(**{**default, **flags}), DEFAULT)


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"dist_url": "auto"},
        {"num_machines": 2, "machine_rank": 1, "dist_url": "tcp://10.0.0.1:29500"},
        {"num_machines": 2, "dist_url": "tcp://[fe80::1]:29500"},
        {"num_machines": 2, "dist_url": "file:///shared/meet"},
    ],
)
def test_a_command_line_that_can_run_is_accepted(flags):
    check(**flags)


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"num_gpus": 0}, "--num-gpus must be at least 1 .on a CPU too., got 0"),
        ({"num_gpus": -2}, "--num-gpus must be at least 1 .* got -2"),
        ({"num_machines": 0}, "--num-machines must be at least 1 .* got 0"),
        ({"machine_rank": 1}, "--machine-rank .* from 0 to 0 because of --num-machines 1, got 1"),
        ({"num_machines": 2, "machine_rank": 2}, "from 0 to 1 .* got 2"),
        ({"num_machines": 2, "machine_rank": -1}, "from 0 to 1 .* got -1"),
        ({"num_machines": 2}, "needs the address of machine 0 .* --master_addr .* --dist-url tcp"),
        ({"num_machines": 2, "dist_url": "auto"}, "--num-machines 2 needs the address"),
        ({"dist_url": "10.0.0.1:29500"}, "--dist-url must be tcp://ADDRESS:PORT .*'10.0.0.1:2950"),
        ({"dist_url": "tcp://10.0.0.1"}, "--dist-url must be tcp://ADDRESS:PORT"),
        ({"dist_url": "tcp://10.0.0.1:0"}, "a port from 1 to 65535"),
        ({"dist_url": "tcp://10.0.0.1:70000"}, "a port from 1 to 65535"),
        ({"dist_url": "tcp://http://a:1"}, "--dist-url must be"),
    ],
)
def test_a_command_line_that_cannot_run_is_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        check(**flags)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check(num_gpus=2)
    with pytest.raises(ValueError, match="--num-gpus must be at most .* which is 2, got 4$"):
        check(num_gpus=4)
    for name, value in {"RANK": "0", "WORLD_SIZE": "8", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="which is 2, got 8 by torchrun"):
        check()


def test_torchrun_needs_no_address_and_no_other_number(monkeypatch):
    torchrun = {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check(num_machines=2)
    with pytest.raises(ValueError, match="--num-gpus 4 contradicts torchrun, which has started 2"):
        check(num_gpus=4)


def test_the_script_refuses_it_in_one_line_before_it_reads_the_config(capsys):
    script = toy_runs.load_script("lazyconfig_train_net.py")
    for flags in (["--num-machines", "2"], ["--num-gpus", "0"], ["--node_rank", "1"]):
        with pytest.raises(SystemExit) as caught:
            script.parse_args(["--config-file", "nowhere.py", *flags])
        assert caught.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"error: {'--machine-rank' if flags[0] == '--node_rank' else flags[0]}" in line


@pytest.mark.parametrize(
    ("ends_with", "code", "told"), [("error: the disk is full", 1, True), (2, 2, False)]
)
def test_a_rank_that_ends_by_a_sentence_or_a_code_leaves_no_traceback(
    ends_with, code, told, monkeypatch, capsys
):
    def ended(*args):
        raise SystemExit(ends_with)

    def launch(main, *rest):  # what Detectron2's does, in this process
        with pytest.raises(SystemExit):
            main(*rest[-1])
        raise RuntimeError("process 0 terminated with exit code 1")

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("mimdet.engine.ranks.engine.launch", launch)
    try:
        with pytest.raises(SystemExit) as caught:
            start_ranks(ended, 2, 1, 0, "auto", ())
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.value.code == code and caught.value.__suppress_context__
    assert capsys.readouterr().err == (f"{ends_with}\n" if told else "")
