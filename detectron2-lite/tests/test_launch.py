import ast
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import distributed_mains
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from detectron2.engine import launch

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


@pytest.fixture(scope="module")
def trained_twice(tmp_path_factory):
    """What two processes have written that ran `train_twice`."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        launch(distributed_mains.train_twice, 2, args=(str(folder),))
    return folder


@needs_gloo
@pytest.mark.lite
def test_ranks_stop_together_at_a_loss_that_is_not_finite_and_know_its_images(trained_twice):
    errors = [(trained_twice / f"error{rank}").read_text() for rank in (0, 1)]
    for error in errors:  # of every rank, though only rank 1 had the NaN
        assert error.startswith("Loss became infinite or NaN at iteration=2! loss_dict = {")
        assert error.endswith("}; on rank 1, images ['21 2_1.jpg']")


@needs_gloo
@pytest.mark.lite
def test_ranks_train_on_mean_losses(trained_twice):
    for rank in (0, 1):
        losses, total, weight = ast.literal_eval((trained_twice / f"losses{rank}").read_text())
        # Data 1 and 2, then 3 and 3. Weight 1, then 1 - 0.5 * 1.5 = 0.25, then 0.25 - 0.5 * 3.
        assert losses == [(1.5, 0), (0.75, 1)]
        assert total == [(pytest.approx(1.5 + 0.5), 0), (pytest.approx(0.75 + 1), 1)]
        assert weight == -1.25  # no update with the NaN


@needs_gloo
@pytest.mark.lite
def test_every_rank_knows_how_long_the_slowest_rank_has_waited_for_data(trained_twice):
    times = [ast.literal_eval((trained_twice / f"times{rank}").read_text()) for rank in (0, 1)]
    slowest, own = zip(*times, strict=True)
    assert own[0] < 0.1 <= own[1]  # rank 1 waits a tenth of a second
    assert slowest == pytest.approx((own[1], own[1]))


@needs_gloo
@pytest.mark.lite
def test_sync_bn_trains_data_parallel_on_the_cpu_as_in_one_process(trained_twice):
    images = torch.cat([distributed_mains.images_of(rank) for rank in (0, 1)])
    start = distributed_mains.sync_norm_model()
    before = {name: value.clone() for name, value in start.state_dict().items()}
    expected = distributed_mains.train_sync_norm(start, images)
    for rank in (0, 1):
        state = torch.load(trained_twice / f"sync_norm{rank}.pt", weights_only=True)
        for name, value in expected.items():
            # A bias in front of a norm has no effect: its gradient is rounding only.
            atol = 1e-5 if name != "0.bias" else 1e-4
            torch.testing.assert_close(state[name], value, rtol=1e-5, atol=atol)
    assert all(not torch.equal(before[name], expected[name]) for name in ("0.weight", "1.weight"))


def seconds_since_failure(folder):
    return time.time() - (folder / "failing").stat().st_mtime


@needs_gloo
@pytest.mark.lite
@pytest.mark.parametrize(
    "how, error, message",
    [
        (
            "raise",
            mp.ProcessRaisedException,
            r"Process 1 terminated .*:\nTraceback (.*\n)*.*fail_on_rank_1\n(.*\n)*"
            "KeyError: 'the annotation of image 139'",
        ),
        ("exit", mp.ProcessExitedException, "process 1 terminated with exit code 7"),
        ("kill", mp.ProcessExitedException, "process 1 terminated with signal SIGKILL"),
    ],
)
def test_failing_rank_takes_the_others_down_at_once_and_is_named(tmp_path, how, error, message):
    with pytest.raises(error, match=message) as info:
        launch(distributed_mains.fail_on_rank_1, 2, dist_url="auto", args=(how, str(tmp_path)))
    # Rank 0 would wait for 60 s, or for the timeout of 30 min.
    assert seconds_since_failure(tmp_path) < 30
    assert info.value.error_index == 1


@needs_gloo
@pytest.mark.lite
def test_rank_that_fails_in_the_last_iteration_is_not_evaluated_and_does_not_wait(tmp_path):
    message = r"boxes are infinite .iteration=1; on rank 1, images \['11 1_1.jpg'\]"
    with pytest.raises(mp.ProcessRaisedException, match=message):
        launch(
            distributed_mains.diverge_in_last_iteration,
            2,
            args=(str(tmp_path),),
            timeout=timedelta(seconds=60),  # how long ranks would wait for each other
        )
    assert os.listdir(tmp_path) == []


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@needs_gloo
@pytest.mark.lite
def test_rank_killed_on_one_machine_ends_the_run_on_the_other(tmp_path):
    url = f"tcp://127.0.0.1:{free_port()}"
    main, args = distributed_mains.fail_on_rank_1, ("kill", str(tmp_path))
    with ThreadPoolExecutor() as machines:
        runs = [machines.submit(launch, main, 1, 2, rank, url, args=args) for rank in (0, 1)]
        other, killed = (run.exception() for run in runs)
    assert seconds_since_failure(tmp_path) < 30
    assert str(killed) == "process 0 terminated with signal SIGKILL"
    assert isinstance(other, mp.ProcessRaisedException)
