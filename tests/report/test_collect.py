"""The dict behind a report: what a run's files say, whole or not."""

import json

import pytest

from mimdet.report.collect import collect


def write_metrics(folder, *lines) -> None:
    folder.joinpath("metrics.json").write_text("".join(f"{line}\n" for line in lines))


def line(iteration, **values) -> str:
    return json.dumps({"iteration": iteration, **values})


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be the folder of a run"):
        collect(tmp_path)
    with pytest.raises(FileNotFoundError, match="lost is none"):
        collect(tmp_path / "lost")


def test_half_a_line_of_metrics_and_a_damaged_record_are_passed_over(tmp_path):
    write_metrics(tmp_path, line(0, total_loss=2.0), "[1]", '{"iteration": 1, "total_lo')
    for name in ("run.json", "results.json"):
        (tmp_path / name).write_text("{")
    data = collect(tmp_path)
    assert data["training"]["curves"]["total_loss"] == [(0, 2.0)]
    assert data["training"]["iterations"] == 1
    assert data["state"]["outcome"] == "unknown"
    assert data["tasks"] == {}


def test_what_a_resumed_run_writes_again_counts(tmp_path):
    lines = [line(k, total_loss=float(k)) for k in range(4)]
    write_metrics(tmp_path, *lines, line(2, total_loss=7.0), line(3, total_loss=None))
    curve = collect(tmp_path)["training"]["curves"]["total_loss"]
    assert curve == [(0, 0.0), (1, 1.0), (2, 7.0), (3, None)]


def test_long_curves_become_means_of_neighbours(tmp_path):
    write_metrics(tmp_path, *(line(k, total_loss=float(k)) for k in range(1000)))
    curve = collect(tmp_path)["training"]["curves"]["total_loss"]
    assert len(curve) == 334
    assert curve[0] == (2, 1.0) and curve[-1] == (999, 999.0)


def test_evaluations_have_their_metrics_and_not_those_of_classes(tmp_path):
    write_metrics(
        tmp_path,
        line(0, total_loss=1.0),
        line(1, **{"bbox/AP": 10.0, "bbox/AP-cat": 5.0, "bbox/APl": None}),
        line(3, **{"bbox/AP": 20.0, "bbox/APl": None}),
    )
    assert collect(tmp_path)["evaluations"] == [
        {"iteration": 1, "metrics": {"bbox/AP": 10.0, "bbox/APl": None}},
        {"iteration": 3, "metrics": {"bbox/AP": 20.0, "bbox/APl": None}},
    ]


def test_results_are_split_into_metrics_and_classes(tmp_path):
    results = {
        "bbox": {"AP": 50.0, "AP-a-b": 40.0, "AP-c": None},
        "sem_seg": {"mIoU": 30.0, "IoU-sky": 20.0, "ACC-sky": 60.0},
        "seconds_per_batch": 0.5,
        "protocol": {"sample_ratio": 1.0},
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    data = collect(tmp_path)
    assert data["tasks"]["bbox"] == {
        "metrics": {"AP": 50.0},
        "classes": {"a-b": {"AP": 40.0}, "c": {"AP": None}},
    }
    assert data["tasks"]["sem_seg"]["classes"] == {"sky": {"IoU": 20.0, "ACC": 60.0}}
    assert data["training"] is None and data["protocol"] == {"sample_ratio": 1.0}


def test_the_parts_of_the_time_add_up_to_the_iterations(tmp_path):
    seconds = {"data": 1.0, "forward": 2.0, "backward": 3.0, "optimizer": 0.5}
    parts = {f"seconds/{part}": value for part, value in seconds.items()}
    lines = [line(k, total_loss=1.0, time=7.0, **parts) for k in range(10)]
    write_metrics(tmp_path, *lines, line(10, **{"seconds/evaluation": 4.0}))
    spent = collect(tmp_path)["training"]["seconds"]
    assert spent == {
        **{part: 10 * value for part, value in seconds.items()},
        "other": pytest.approx(5.0),
        "evaluation": 4.0,
    }


@pytest.mark.parametrize(
    "outcome, iterations, told",
    [("finished", 2, "finished"), ("finished", 9, "ended early"), ("failed", 9, "failed")],
)
def test_how_a_run_ended(outcome, iterations, told, tmp_path):
    write_metrics(tmp_path, line(0, total_loss=1.0), line(1, total_loss=1.0))
    start = {"kind": "training", "outcome": outcome, "iterations": iterations, "error": "oh"}
    (tmp_path / "run.json").write_text(json.dumps({"starts": [start]}))
    assert collect(tmp_path)["state"] == {"outcome": told, "error": "oh"}


def test_a_run_without_a_record_that_left_a_traceback_has_failed(tmp_path):
    (tmp_path / "log.txt").write_text("Traceback (most recent call last):\n  x\nValueError: no")
    assert collect(tmp_path)["state"] == {"outcome": "failed", "error": "ValueError: no"}
