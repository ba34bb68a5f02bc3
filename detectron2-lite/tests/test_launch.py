import ast
import os
import socket
import time

import distributed_mains
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detectron2.engine import launch
from detectron2.utils import comm

# Spawned processes import the library anew, which takes seconds: few tests start any.

needs_gloo = pytest.mark.skipif(
    torch.cuda.is_available(), reason="with CUDA, launch wants one GPU for each process"
)


@pytest.fixture(autouse=True)
def one_thread_in_spawned_processes(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_one_process_runs_the_function_right_here():
    seen = []
    launch(lambda *args: seen.append((args, os.getpid(), dist.is_initialized())), 1, args=(1, "a"))
    assert seen == [((1, "a"), os.getpid(), False)]


def test_failure_of_a_single_process_comes_as_it_is():
    with pytest.raises(ZeroDivisionError):
        launch(lambda: 1 / 0, 1)


def test_auto_address_needs_a_single_machine():
    with pytest.raises(AssertionError):
        launch(print, 1, num_machines=2, dist_url="auto")


@pytest.mark.lite
def test_error_for_several_machines_without_address_tells_what_to_do():
    with pytest.raises(AssertionError, match="single machine only.*num_machines=2; give the addr"):
        launch(print, 1, num_machines=2)


@pytest.mark.lite
def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(AssertionError, match="2 processes per machine .* has 1; reduce --num-gpus"):
        launch(print, 2)


@needs_gloo
@pytest.mark.lite
def test_ranks_train_on_mean_losses_and_stop_together_at_a_loss_that_is_not_finite(tmp_path):
    launch(distributed_mains.train_together, 2, args=(str(tmp_path),))
    errors = [(tmp_path / f"error{rank}").read_text() for rank in (0, 1)]
    # Every rank has the message, though only rank 1 had the NaN.
    assert errors[0].startswith("Loss became infinite or NaN at iteration=2! loss_dict = {")
    assert [error.rpartition("; ")[2] for error in errors] == ["on ranks [1]"] * 2
    for rank in (0, 1):
        losses, total, weight = ast.literal_eval((tmp_path / f"losses{rank}").read_text())
        # Data 1 and 2, then 3 and 3. Weight 1, then 1 - 0.5 * 1.5 = 0.25, then 0.25 - 0.5 * 3.
        assert losses == [(1.5, 0), (0.75, 1)]
        assert total == [(pytest.approx(1.5 + 0.5), 0), (pytest.approx(0.75 + 1), 1)]
        assert weight == -1.25  # no update with the NaN


@needs_gloo
@pytest.mark.lite
@pytest.mark.parametrize(
    "how, error, message",
    [
        (
            "raise",
            mp.ProcessRaisedException,
            r"rank 1 of 2 has failed:\n\nTraceback (.*\n)*.*fail_on_rank_1\n(.*\n)*"
            "KeyError: 'the annotation of image 139'",
        ),
        ("exit", mp.ProcessRaisedException, "rank 1 of 2 has failed:(.*\n)*SystemExit: 7"),
        ("kill", mp.ProcessExitedException, "rank 1 of 2 has died with exit code -9 .SIGKILL; "),
    ],
)
def test_failing_rank_takes_the_others_down_at_once_and_is_named(how, error, message):
    start = time.monotonic()
    with pytest.raises(error, match=message) as info:
        launch(distributed_mains.fail_on_rank_1, 2, dist_url="auto", args=(how,))
    assert time.monotonic() - start < 30  # rank 0 would wait for 60 s, or for the timeout of 30 min
    assert info.value.error_index == 1


@needs_gloo
@pytest.mark.lite
def test_process_of_torchrun_joins_the_run_of_its_environment(tmp_path, monkeypatch):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    # Nothing is spawned, whatever the command line says.
    launch(distributed_mains.note_world, 4, num_machines=2, args=(str(tmp_path),))
    assert (tmp_path / "rank0").read_text() == "1 0 gloo"
    assert not dist.is_initialized()
    assert comm.get_world_size() == 1
