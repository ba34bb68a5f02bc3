"""One process of each machine reads the annotations, whoever starts the processes."""

import subprocess
import sys

import pytest
from toy_runs import REPOSITORY

SCRIPT = str(REPOSITORY / "tests" / "index_readers.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.parametrize("starter", [[], TORCHRUN], ids=["spawned", "torchrun"])
def test_two_processes_read_each_file_once_and_know_the_same(toy_root, tmp_path, starter):
    command = [sys.executable, "-W", "ignore", *starter, SCRIPT, str(toy_root), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / str(rank)).read_text().splitlines() for rank in (0, 1))
    # the training set for its classes and its records, for which it is kept; then the test set
    assert [first[0], second[0]] == ["opened 2", "opened 0"]
    assert first[1:] == second[1:]
    told = dict(line.split(" ", 1) for line in first[1:])
    assert int(told["classes"]) > 1
    assert told["train"].endswith(" SharedRecords") and told["train"] != "0 SharedRecords"
    assert told["test"] == f"6 {toy_root / 'val'}/{told['test'].rpartition('/')[2]}"
    assert told["names"].startswith("[") and told["names"] != "[]"
