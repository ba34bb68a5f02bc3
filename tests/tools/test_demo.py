"""The demo: its commands fit the scripts, and its table shows what the evaluations wrote."""

import contextlib
import json
import os
from pathlib import Path

import pytest
from toy_runs import REPOSITORY, TINY, isolated, load_script, metrics

from mimdet.__main__ import _TOOLS

demo = load_script("tools/demo.py")


def write_results(output: Path, ratio: float, results: dict) -> None:
    folder = output / f"eval_ratio_{ratio}"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results))


# --- The table ------------------------------------------------------------------------------------


def test_the_table_shows_ap_and_time_at_each_ratio(tmp_path):
    for ratio, shift in ((0.5, 0), (1.0, 10)):
        box, mask = dict(AP=41.26 + shift, AP50=60.0), dict(AP=38.44 + shift, AP50=59.0)
        results = dict(bbox=box, segm=mask, seconds_per_batch=0.0316)
        write_results(tmp_path, ratio, results)
    head, half, full = demo.results_table(tmp_path).splitlines()
    assert head.split("  ")[0] == "sample_ratio"
    assert half.split() == ["0.50", "41.3", "60.0", "38.4", "59.0", "0.032"]
    assert full.split() == ["1.00", "51.3", "60.0", "48.4", "59.0", "0.032"]
    assert len(head) == len(half) == len(full)


def test_a_model_that_detects_nothing_has_no_ap_in_the_table(tmp_path):
    write_results(tmp_path, 0.5, dict(bbox=dict(AP=None, AP50=None), seconds_per_batch=0.1))
    write_results(tmp_path, 1.0, dict(seconds_per_batch=0.1))
    _, half, full = demo.results_table(tmp_path).splitlines()
    assert half.split() == ["0.50", "none", "none", "none", "none", "0.100"]
    assert full.split() == ["1.00", "none", "none", "none", "none", "0.100"]


# --- One step -------------------------------------------------------------------------------------


def test_a_step_runs_in_the_repository_and_one_that_fails_stops_the_demo(tmp_path, capfd):
    demo._run(["mimdet", "inspect", "--help"])
    assert "usage: mimdet inspect" in capfd.readouterr().out
    with pytest.raises(SystemExit, match="demo: the command above ended with exit code 2"):
        demo._run(["mimdet", "check", "none.json", str(tmp_path)])
    assert "mimdet check: error: " in capfd.readouterr().err


# --- The whole, with the steps in this process ----------------------------------------------------


@contextlib.contextmanager
def in_repository():
    before = os.getcwd()
    os.chdir(REPOSITORY)
    try:
        yield
    finally:
        os.chdir(before)


def run_here(command: list[str]) -> None:
    """Do what a command of the demo does, on less data."""
    name, *argv = command[1:]
    with isolated(), in_repository():
        if name in ("train", "eval"):
            module = load_script("lazyconfig_train_net.py")
            module.main(module.parse_args([*argv, *["--eval-only"] * (name == "eval")]))
        else:
            more = ["--num-train", "8", "--num-val", "2"] if name == "toy" else []
            load_script(f"tools/{_TOOLS[name]}.py").main([*argv, *more])


@pytest.fixture
def steps(monkeypatch):
    """Commands that the demo has run, which it now does in this process."""
    done = []

    def run(command: list[str]) -> None:
        assert command[0] == "mimdet"
        run_here(command)
        done.append(command)

    monkeypatch.setattr(demo, "_run", run)
    return done


def tiny(name: str) -> list[str]:
    """Overrides of a short run on datasets of its own."""
    names = {
        split: f"dataloader.{split}.dataset.name={name}_{split}" for split in ("train", "test")
    }
    # the width must reach the evaluations too, or the checkpoint would not fit
    width = "model.roi_heads.box_head.fc_dims=[64]"
    return [*TINY, *names.values(), width, "train.max_iter=2"]


def test_the_demo_makes_data_trains_evaluates_at_both_ratios_and_draws(
    steps, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)  # a relative folder is that of the caller
    demo.main(["--output", "demo", *tiny("demo")])
    output = tmp_path / "demo"
    names = {path.name for path in output.iterdir()}
    assert names == {
        *("data", "train", "eval_ratio_0.5", "eval_ratio_1.0", "pictures", "predictions")
    }
    assert len(list((output / "pictures").glob("*.png"))) == 2
    assert len(list((output / "predictions").glob("*.jpg"))) == 2
    for ratio in (0.5, 1.0):
        folder = output / f"eval_ratio_{ratio}"
        assert f"sample_ratio: {ratio}" in (folder / "config.yaml").read_text()
        assert (folder / "results.json").exists()
    printed = capsys.readouterr().out
    assert demo.results_table(output) in printed
    assert len(steps) == 6
    for command in steps:
        assert f"$ {demo.shlex.join(command)}" in printed


def test_the_demo_run_again_goes_on_where_it_was(steps, tmp_path):
    for _ in range(2):
        demo.main(["--output", str(tmp_path / "demo"), *tiny("again")])
    trained = [m["iteration"] for m in metrics(tmp_path / "demo/train") if "total_loss" in m]
    assert trained == [0, 1]


def test_the_demo_of_pretraining_compares_detectors_by_their_start(steps, tmp_path, capsys):
    mae = ["dataloader.train.total_batch_size=4", "train.max_iter=2", "train.device=cpu"]
    options = [word for option in mae for word in ("--mae", option)]
    output = tmp_path / "demo"
    demo.main(["--pretrain", "--output", str(output), *options, *tiny("starts")])
    names = {path.name for path in output.iterdir()}
    assert names == {"data", "pretrain", "pictures", "scratch", "mae"}
    assert len(list((output / "pictures").glob("*.png"))) == 2
    logs = {name: (output / name / "log.txt").read_text() for name in ("scratch", "mae")}
    assert "tensors loaded" in logs["mae"] and "tensors loaded" not in logs["scratch"]
    printed = capsys.readouterr().out
    assert demo.starts_table(output) in printed
    assert len(steps) == 5
    trained = [c for c in steps if demo.CONFIG in c]
    assert all(f"train.max_iter={demo.DETECTOR_ITERATIONS}" in c for c in trained)


def test_the_table_of_starts_has_a_line_for_each(tmp_path):
    for k, name in enumerate(("scratch", "mae")):
        (tmp_path / name).mkdir()
        results = dict(bbox=dict(AP=10.0 + k, AP50=20.0), segm=dict(AP=8.0, AP50=None))
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    head, scratch, mae = demo.starts_table(tmp_path).splitlines()
    assert scratch.split() == ["from", "scratch", "10.0", "20.0", "8.0", "none"]
    assert mae.split() == ["from", "MAE", "11.0", "20.0", "8.0", "none"]
    assert len(head) == len(scratch) == len(mae)
