"""run.json tells how a run was started and ended; nothing about a report can fail a run."""

import json
from argparse import Namespace

import pytest
from omegaconf import OmegaConf

from mimdet.engine import run_record
from mimdet.engine.notice import PREEMPTED
from mimdet.engine.run_record import command_of, recorded

FOUND = {"plan": ["2 classes"], "warnings": [], "problems": ["x.json: boxes"]}


@pytest.fixture
def args():
    return Namespace(command="mimdet train a", eval_only=False, found=FOUND)


def config(folder, **train):
    train = {"output_dir": str(folder), "max_iter": 7, "device": "cpu", **train}
    return OmegaConf.create({"train": train})


def record(folder) -> list[dict]:
    return json.loads((folder / "run.json").read_text())["starts"]


def test_a_run_is_recorded_from_its_start_on_and_reported_at_its_end(args, tmp_path):
    with recorded(args, config(tmp_path)):
        (running,) = record(tmp_path)
        assert running["outcome"] == "running" and running["ended"] is None
    (start,) = record(tmp_path)
    assert start["outcome"] == "finished" and start["ended"] >= start["started"]
    assert start["command"] == "mimdet train a" and start["iterations"] == 7
    assert start["kind"] == "training" and start["processes"] == 1
    assert {name: start[name] for name in FOUND} == FOUND
    assert start["environment"]["device"] == "CPU" and "torch" in start["environment"]
    assert "mimdet train a" in (tmp_path / "report.html").read_text()


def test_later_starts_follow_the_earlier_ones(args, tmp_path):
    for kind, eval_only in (("training", False), ("evaluation", True)):
        with recorded(Namespace(**{**vars(args), "eval_only": eval_only}), config(tmp_path)):
            assert record(tmp_path)[-1]["kind"] == kind
    assert [start["outcome"] for start in record(tmp_path)] == ["finished", "finished"]


@pytest.mark.parametrize(
    "error, outcome, told",
    [
        (ValueError("no boxes"), "failed", "ValueError: no boxes"),
        (SystemExit("the disk is full"), "failed", "the disk is full"),
        (SystemExit(PREEMPTED), "preempted", None),
        (KeyboardInterrupt(), "stopped", None),
    ],
)
def test_what_ends_a_run_is_recorded_and_goes_on(error, outcome, told, args, tmp_path):
    with pytest.raises(type(error)), recorded(args, config(tmp_path)):
        raise error
    (start,) = record(tmp_path)
    assert (start["outcome"], start["error"]) == (outcome, told)
    # Somebody who waits for the end of a run does not wait for a page.
    assert (tmp_path / "report.html").exists() == (outcome == "failed")


def test_a_report_that_cannot_be_made_is_a_warning(args, tmp_path, monkeypatch, caplog):
    def fail(run):
        raise ZeroDivisionError("of a template")

    monkeypatch.setattr(run_record, "make_report", fail)
    with recorded(args, config(tmp_path)):
        pass
    (warning,) = caplog.records
    assert warning.levelname == "WARNING" and "of a template" in warning.message
    assert record(tmp_path)[0]["outcome"] == "finished"


def test_a_folder_that_is_gone_is_a_warning(args, tmp_path, caplog):
    with recorded(args, config(tmp_path / "lost")):
        pass
    assert all("could not be" in r.message or "cannot be" in r.message for r in caplog.records)
    assert caplog.records


def test_a_report_can_be_left_out(args, tmp_path):
    with recorded(args, config(tmp_path, report=False)):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_command_is_one_that_a_shell_takes():
    words = ["--config-file", "a b.py", "x=[1,2]"]
    command = "lazyconfig_train_net.py --config-file 'a b.py' 'x=[1,2]'"
    assert command_of("lazyconfig_train_net.py", words) == f"python {command}"
    assert command_of("mimdet train", ["--data", "mine"]) == "mimdet train --data mine"
