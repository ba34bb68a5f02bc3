"""Several processes train as one does; a rank that fails ends the run, or it is started again.

Every process imports torch anew, which takes seconds: few runs, each for more than one claim.
"""

import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from toy_runs import REPOSITORY, TINY, command, metrics, started, train_net

TESTS = REPOSITORY / "tests"
DETERMINISTIC = str(TESTS / "deterministic_toy.py")
LOSSES = ("total_loss", "loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def output_of(*commands: list[str], timeout: float = 200) -> list[tuple[int, str]]:
    """Run commands side by side -> return code and output of each."""
    with ExitStack() as stack:
        processes = [stack.enter_context(started(arguments)) for arguments in commands]
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    return [(p.returncode, output) for p, output in zip(processes, outputs, strict=True)]


def last_iterations(folder: Path) -> list[int]:
    return [line["iteration"] for line in metrics(folder) if "total_loss" in line]


# --- As many processes as you like ----------------------------------------------------------------


@pytest.fixture(scope="module")
def two_objects_root(toy_root, tmp_path_factory):
    """The toy dataset with two objects in every image of the training split, and no crowd."""
    root = tmp_path_factory.mktemp("two") / "data"
    shutil.copytree(toy_root, root)
    path = root / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    objects = {}
    for annotation in content["annotations"]:
        if not annotation["iscrowd"]:
            objects.setdefault(annotation["image_id"], []).append(annotation)
    content["annotations"] = [a for of_image in objects.values() for a in of_image[:2]]
    assert {len(of_image[:2]) for of_image in objects.values()} == {2}
    path.write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def same_run(two_objects_root, trained, tmp_path_factory):
    """The overrides of a run that must not depend on the processes -> for a name: folder, them."""

    def overrides(name: str) -> tuple[Path, list[str]]:
        output = tmp_path_factory.mktemp(name)
        return output, [
            f"toy.root={two_objects_root}",
            f"train.output_dir={output}",
            f"train.init_checkpoint={trained / 'model_final.pth'}",
            "dataloader.train.dataset.name=two_objects_train",
            "dataloader.test.dataset.name=two_objects_val",
            f"+dataloader.evaluator.output_dir={output}",
        ]

    return overrides


@pytest.fixture(scope="module")
def one_process(same_run):
    """The folder of that run in one process."""
    output, overrides = same_run("one")
    train_net(*overrides, config=DETERMINISTIC)
    return output


@pytest.fixture(scope="module", params=["two machines", "four processes"])
def several_processes(request, same_run):
    """The folder of that run in several processes."""
    output, overrides = same_run("several")
    if request.param == "two machines":
        flags = ["--num-machines", "2", "--master_addr", "127.0.0.1"]
        flags += ["--master_port", str(free_port())]
        several = [[*flags, "--node_rank", rank] for rank in ("0", "1")]
    else:
        several = [["--num-gpus", "4", "--dist-url", "auto"]]
    ended = output_of(
        *(command("--config-file", DETERMINISTIC, *flags, *overrides) for flags in several)
    )
    for code, log in ended:
        assert code == 0, log[-3000:]
    world_size = len(list(output.glob("log.txt*")))
    assert world_size == (2 if request.param == "two machines" else 4)
    return output


def test_losses_of_the_same_batch_are_equal_on_any_number_of_processes(
    one_process, several_processes
):
    # Sums of up to 1e5 float32 terms in another order, in a few updates: 1e-5 of the value.
    expected, actual = metrics(one_process)[:4], metrics(several_processes)[:4]
    for name in LOSSES:
        assert [line[name] for line in actual] == pytest.approx(
            [line[name] for line in expected], rel=1e-5
        ), name


def test_weights_after_updates_are_equal_on_any_number_of_processes(
    one_process, several_processes, trained
):
    before, expected, actual = (
        torch.load(folder / "model_final.pth", weights_only=True)["model"]
        for folder in (trained, one_process, several_processes)
    )
    moved = max((expected[name] - before[name]).abs().max() for name in expected)
    assert moved > 1e-3
    for name, weight in expected.items():  # a ten-thousandth of what the updates have changed
        torch.testing.assert_close(actual[name], weight, rtol=1e-5, atol=1e-4 * float(moved))


def test_an_uneven_split_of_the_images_gives_the_evaluation_of_one_process(
    several_processes, same_run
):
    # 6 images are 3 + 3, or 2 + 2 + 1 + 1.
    output, overrides = same_run("evaluated")
    weights = f"train.init_checkpoint={several_processes / 'model_final.pth'}"
    train_net("--eval-only", *overrides, weights, config=DETERMINISTIC)
    results, predictions = [], []
    for folder in (output, several_processes):
        results.append(json.loads((folder / "results.json").read_text()))
        assert results[-1].pop("seconds_per_batch") > 0
        results[-1]["protocol"].pop("weights")  # of a file, or of the training that goes on
        results[-1]["protocol"].pop("evaluator")  # it has a folder of its own
        predictions.append(json.loads((folder / "coco_instances_results.json").read_text()))
    assert results[0] == results[1]
    assert results[0]["bbox"]["AP"] > 0
    assert predictions[0] == predictions[1]
    assert len(predictions[0]) > 20


# --- A rank that is different ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def nan_run(toy_root, tmp_path_factory):
    """Two processes; rank 1 never sees an object, and has a NaN in iteration 3."""
    output = tmp_path_factory.mktemp("nan")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS))
        ((code, log),) = output_of(
            command(
                *("--num-gpus", "2", "--dist-url", "auto", *TINY, f"toy.root={toy_root}"),
                *(f"train.output_dir={output}", "train.max_iter=4", "train.checkpointer.period=2"),
                "train.checkpointer.max_to_keep=1",
                "dataloader.train.mapper._target_=distributed_parts.NoObjectsOnRank1",
                "model._target_=distributed_parts.NaNOnRank1",
            )
        )
    return output, code, log


def test_a_rank_whose_images_are_empty_does_not_hold_up_the_others(nan_run):
    assert last_iterations(nan_run[0]) == [0, 1, 2]


def test_a_loss_of_nan_stops_all_ranks_together_and_tells_the_images(nan_run):
    output, code, log = nan_run
    assert code == 1
    message = re.compile(
        r"^FloatingPointError: Loss became infinite or NaN at iteration=3! loss_dict = "
        r"\{.*'loss_mask': nan.*\}; on rank 1, images \['\d+ .*/train/\d+\.jpg'\]$",
        re.MULTILINE,
    )
    for name in ("log.txt", "log.txt.rank1"):
        (found,) = message.findall((output / name).read_text())
        assert found.split("; on rank")[1] in log
    assert len(re.findall(r"Process \d terminated with the following error", log)) == 1


def test_a_loss_of_nan_leaves_the_last_good_checkpoint(nan_run):
    output = nan_run[0]
    assert [path.name for path in output.glob("*.pth*")] == ["model_0000001.pth"]
    assert (output / "last_checkpoint").read_text() == "model_0000001.pth"
    weights = torch.load(output / "model_0000001.pth", weights_only=True)["model"]
    assert all(weight.isfinite().all() for weight in weights.values())


def test_ranks_leave_out_a_batch_together_and_end_by_the_notice_to_one_of_them(
    toy_root, tmp_path, monkeypatch
):
    """Rank 1 alone has a NaN in iteration 3, and alone receives a signal in iteration 4."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    ((code, log),) = output_of(
        command(
            *("--num-gpus", "2", "--dist-url", "auto", *TINY, f"toy.root={toy_root}"),
            *(f"train.output_dir={tmp_path}", "train.max_iter=1000", "train.nonfinite=skip"),
            "dataloader.train.mapper._target_=distributed_parts.Signalled",
            "+dataloader.train.mapper.iteration=4",
            "model._target_=distributed_parts.NaNOnRank1",
            "dataloader.train.num_workers=0",
            "preflight=False",  # it reads a sample outside of a training
        )
    )
    assert code == 75, log[-3000:]
    assert "Traceback" not in log
    assert "A notice to another process has ended the run after iteration 5; to go on" in log
    assert re.search(
        r"at iteration=3! .*; on rank 1, images \['\d+ .*jpg'\]\. train.nonfinite", log
    )
    assert last_iterations(tmp_path) == [0, 1, 2, 4, 5]
    assert metrics(tmp_path)[-1]["nonfinite_batches"] == 1
    assert (tmp_path / "last_checkpoint").read_text() == "model_preempted.pth"
    saved = torch.load(tmp_path / "model_preempted.pth", weights_only=True)
    assert saved["iteration"] == 5
    assert all(weight.isfinite().all() for weight in saved["model"].values())


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGINT, 130, "Interrupted: all processes of this machine have ended"),
        (signal.SIGTERM, 75, "SIGTERM came when there was nothing to be saved; to go on, start"),
    ],
)
def test_a_signal_to_all_ends_ranks_that_wait_for_each_other(
    number, code, words, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    call = f"launch(wait, 2, dist_url='auto', args=({str(tmp_path)!r},))"
    imports = "from mimdet.engine.launch import launch; from distributed_parts import wait"
    with started([sys.executable, "-c", f"{imports}; {call}"]) as process:
        while len(list(tmp_path.iterdir())) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, number)
        output = process.communicate(timeout=100)[0]
    assert process.returncode == code
    assert output.count(words) == 1
    assert "Traceback" not in output


def test_torchrun_starts_a_killed_run_again_and_it_resumes(toy_root, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node=2", "--max-restarts=1"]
    arguments = command(
        *("--resume", *TINY, f"toy.root={toy_root}", f"train.output_dir={tmp_path}"),
        *("train.checkpointer.period=2", "dataloader.train.total_batch_size=2"),
        "dataloader.train.mapper._target_=distributed_parts.KilledOnceOnRank1",
        f"+dataloader.train.mapper.folder={tmp_path}",
    )
    start = time.monotonic()
    ((code, log),) = output_of([*torchrun, *arguments[1:]])
    assert code == 0, log[-3000:]
    assert time.monotonic() - start < 100
    assert (tmp_path / "killed").exists()
    starts = re.findall(
        r"Starting training from iteration (\d+)", (tmp_path / "log.txt").read_text()
    )
    assert starts == ["0", "2"]
    assert last_iterations(tmp_path) == [0, 1, 2, 3]
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == 3


@pytest.mark.parametrize("starter", ["srun", "flags"])
def test_what_one_machine_refuses_ends_all_of_them(starter, toy_root, tmp_path):
    """Only the second machine lacks the data."""
    port = free_port()
    ends = []
    for rank, root in enumerate((toy_root, tmp_path / "absent")):
        overrides = (*TINY, f"toy.root={root}", f"train.output_dir={tmp_path / 'output'}")
        if starter == "srun":
            slurm = {"STEP_ID": 0, "PROCID": rank, "LOCALID": 0, "NTASKS": 2, "NNODES": 2}
            variables = [f"SLURM_{name}={value}" for name, value in slurm.items()]
            meeting = ["MASTER_ADDR=127.0.0.1", f"MASTER_PORT={port}"]
            ends.append(["env", *variables, *meeting, *command(*overrides)])
        else:
            flags = ["--num-machines", "2", "--node_rank", str(rank)]
            flags += ["--master_addr", "127.0.0.1", "--master_port", str(port)]
            ends.append(command(*flags, *overrides))
    (first, first_log), (second, second_log) = output_of(*ends, timeout=100)
    assert first and second, first_log + second_log
    assert "preflight: error: see the output of rank 1" in first_log
    assert "preflight: error: " in second_log and "absent" in second_log
    assert not (tmp_path / "output").exists()
