import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import detectron2
from detectron2.utils import comm

WORKER = """
import sys
import numpy as np
import torch
import torch.distributed as dist
from detectron2.utils import comm

rank, num_local, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
try:
    comm.get_local_rank()
except AssertionError:
    pass
else:
    raise SystemExit("a local rank without a local group")
comm.create_local_process_group(num_local)
assert (comm.get_rank(), comm.get_world_size()) == (rank, 2)
assert (comm.get_local_rank(), comm.get_local_size()) == (rank % num_local, num_local)
assert comm.is_main_process() == (rank == 0)
np.random.seed(rank)
assert comm.shared_random_seed() == 209652396
assert comm.all_gather({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
assert comm.gather("ab"[rank], dst=1) == (["a", "b"] if rank == 1 else [])
comm.synchronize()
losses = {"b": torch.tensor(2.0 * rank), "a": torch.tensor(1.0)}
reduced = comm.reduce_dict(losses)
total = comm.reduce_dict(losses, average=False)
assert list(reduced) == ["a", "b"]
if rank == 0:
    assert reduced == {"a": 1.0, "b": 1.0} and total == {"a": 2.0, "b": 2.0}
try:
    comm.create_local_process_group(3)
except AssertionError:
    pass
else:
    raise SystemExit("two processes on machines of three")
dist.destroy_process_group()
"""


def test_without_a_process_group_there_is_one_process_of_rank_zero():
    assert (comm.get_world_size(), comm.get_rank()) == (1, 0)
    assert (comm.get_local_size(), comm.get_local_rank()) == (1, 0)
    assert comm.is_main_process()
    comm.synchronize()


def test_without_a_process_group_collectives_return_the_own_value():
    losses = {"b": torch.ones(()), "a": torch.zeros(())}
    assert comm.all_gather("x") == ["x"]
    assert comm.gather("x") == ["x"]
    assert comm.reduce_dict(losses) == losses


def test_the_shared_seed_is_one_draw_of_numpy():
    np.random.seed(0)
    expected = np.random.randint(2**31)
    np.random.seed(0)
    assert comm.shared_random_seed() == expected == 209652396


@pytest.mark.parametrize("num_local", [1, 2])  # on two machines, and on one
def test_two_processes_exchange_objects_and_agree_on_a_seed(tmp_path, num_local):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    source = str(Path(detectron2.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(num_local), str(tmp_path / "store")],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors


@pytest.mark.lite
def test_the_local_group_ends_with_its_run(tmp_path):
    for number in range(2):
        store = f"file://{tmp_path / f'store{number}'}"
        torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
        try:
            with pytest.raises(AssertionError, match="not grouped yet"):
                comm.get_local_rank()
            comm.create_local_process_group(1)
            assert (comm.get_local_rank(), comm.get_local_size()) == (0, 1)
            assert torch.distributed.get_world_size(comm.get_local_process_group()) == 1
        finally:
            torch.distributed.destroy_process_group()
    assert (comm.get_local_rank(), comm.get_local_size()) == (0, 1)


@pytest.mark.lite
def test_the_local_rank_before_grouping_says_what_to_do(tmp_path):
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        with pytest.raises(AssertionError, match="start the run with detectron2.engine.launch"):
            comm.get_local_rank()
        with pytest.raises(AssertionError, match="must be a multiple of the processes per machine"):
            comm.create_local_process_group(2)
    finally:
        torch.distributed.destroy_process_group()
