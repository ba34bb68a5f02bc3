"""The batch script of docs/cluster.md, with stand-ins for the programs of SLURM."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import toy_runs

from mimdet.engine.notice import PREEMPTED

SCRIPT = toy_runs.REPOSITORY / "docs/train.sbatch"
# Two tasks on one machine; the exit code is the highest, as that of SLURM's.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
export SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NUM_NODES=1
for rank in 0 1; do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" > "$LOGS/$rank.log" 2>&1 &
    tasks[$rank]=$!
    echo $! > "$LOGS/$rank.pid"
done
code=0
for task in "${tasks[@]}"; do
    wait "$task"
    own=$?
    (( own > code )) && code=$own
done
exit "$code"
"""
SCONTROL = """#!/bin/bash
echo "$@" > "$LOGS/scontrol.log"
"""


@pytest.fixture
def submit(tmp_path):
    """Run the batch script with a Python and arguments -> its exit code; logs in `tmp_path`."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(python, *arguments):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        environ = {
            **os.environ,
            **{"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOGS": str(tmp_path)},
            **{"PYTHON": str(python), "SLURM_JOB_ID": "7", "MASTER_PORT": str(port)},
            **{"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        }
        return subprocess.run(
            ["bash", SCRIPT, *arguments], env=environ, cwd=toy_runs.REPOSITORY, timeout=200
        ).returncode

    return run


def test_tasks_of_srun_are_one_training(submit, toy_root, tmp_path):
    output = tmp_path / "output"
    overrides = (*toy_runs.TINY, f"toy.root={toy_root}", f"train.output_dir={output}")
    arguments = ("--config-file", toy_runs.CONFIG, *overrides, "train.max_iter=1")
    code = submit(sys.executable, *arguments)
    log = (tmp_path / "1.log").read_text()
    assert code == 0, log[-3000:]
    assert "SLURM: rank 1 of 2 joins the run at tcp://127.0.0.1:" in log
    assert (output / "log.txt.rank1").exists()
    assert [line["iteration"] for line in toy_runs.metrics(output) if "total_loss" in line] == [0]
    assert not (tmp_path / "scontrol.log").exists()


def test_a_notice_to_one_task_saves_and_requeues_the_job(submit, toy_root, tmp_path):
    output = tmp_path / "output"
    overrides = (*toy_runs.TINY, f"toy.root={toy_root}", f"train.output_dir={output}")
    arguments = ("--config-file", toy_runs.CONFIG, *overrides, "train.max_iter=1000")
    with ThreadPoolExecutor() as pool:
        job = pool.submit(submit, sys.executable, *arguments)
        while not job.done() and not (output / "metrics.json").exists():
            time.sleep(0.1)
        os.kill(int((tmp_path / "1.pid").read_text()), signal.SIGUSR1)
        code = job.result()
    log = (tmp_path / "0.log").read_text()
    assert code == PREEMPTED, log[-3000:]
    assert (tmp_path / "scontrol.log").read_text() == "requeue 7\n"
    assert (output / "model_preempted.pth").exists()


@pytest.mark.parametrize("code, is_requeued", [(PREEMPTED, True), (1, False), (143, False)])
def test_only_a_run_that_says_that_it_can_go_on_is_requeued(code, is_requeued, submit, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/bash\necho "$@"\nexit $(( SLURM_PROCID ? {code} : 0 ))\n')
    python.chmod(0o755)
    assert submit(python, "--config-file", "a b.py") == code
    assert (tmp_path / "0.log").read_text() == (
        "lazyconfig_train_net.py --resume --config-file a b.py\n"
    )
    requeued = tmp_path / "scontrol.log"
    assert (requeued.read_text() if requeued.exists() else "") == "requeue 7\n" * is_requeued


def test_the_document_names_the_exit_code_of_the_script():
    (code,) = re.findall(r'"\$code" -eq (\d+)', SCRIPT.read_text())
    assert int(code) == PREEMPTED
    assert f"exit code {code}" in Path(SCRIPT.parent / "cluster.md").read_text()
