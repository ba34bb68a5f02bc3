"""Timing and results file of an evaluation."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from detectron2.evaluation import DatasetEvaluators, inference_on_dataset
from mimdet.evaluation import results as results_module
from mimdet.evaluation.results import InferenceTimer, save_results


@pytest.fixture
def clock(monkeypatch):
    """Let each call of the timer's clock read the next given second."""

    def set_readings(*seconds):
        readings = iter(seconds)
        monkeypatch.setattr(results_module.time, "perf_counter", lambda: next(readings))

    return set_readings


def run(timer: InferenceTimer, num_batches: int) -> None:
    for _ in range(num_batches):
        timer.callbacks["before_inference"]()
        timer.callbacks["after_inference"]()


def test_mean_leaves_out_the_batches_of_warming_up(clock):
    timer = InferenceTimer(num_warmup=2)
    clock(0, 100, 100, 150, 200, 201, 300, 303)
    run(timer, 4)
    assert timer.seconds == [100, 50, 1, 3]
    assert timer.seconds_per_batch == 2.0


def test_mean_takes_all_batches_when_there_are_none_but_of_warming_up(clock):
    timer = InferenceTimer()
    clock(0, 1, 1, 4)
    run(timer, 2)
    assert timer.seconds_per_batch == 2.0


def test_the_clock_is_read_when_the_gpu_is_done(clock, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: calls.append("done"))
    clock(0, 1)
    run(InferenceTimer(), 1)
    assert calls == ["done", "done"]


def test_mean_of_no_batches_is_nan():
    assert math.isnan(InferenceTimer().seconds_per_batch)


def test_evaluation_loop_times_each_batch_by_the_callbacks():
    timer = InferenceTimer()
    inference_on_dataset(
        nn.Identity(), [torch.zeros(1)] * 5, DatasetEvaluators([]), callbacks=timer.callbacks
    )
    assert len(timer.seconds) == 5
    assert 0 < timer.seconds_per_batch < 10


def test_saved_results_read_back_and_replace_older_ones(tmp_path):
    path = tmp_path / "results.json"
    save_results({"bbox": {"AP": 1.0}}, path)
    results = {"bbox": {"AP": 51.5, "AP-disk": np.float64(3.5)}, "seconds_per_batch": 0.25}
    save_results(results, str(path))
    assert json.loads(path.read_text()) == results
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_numbers_that_are_not_finite_are_saved_as_null(tmp_path):
    path = tmp_path / "results.json"
    nan, inf = float("nan"), float("inf")
    save_results({"bbox": {"APl": nan, "AP": 2.0}, "list": [1, inf], "n": np.float64(nan)}, path)
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content == {"bbox": {"APl": None, "AP": 2.0}, "list": [1, None], "n": None}


def test_failed_save_leaves_the_older_file_whole(tmp_path):
    path = tmp_path / "results.json"
    save_results({"AP": 1.0}, path)
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_results({"AP": object()}, path)
    assert json.loads(path.read_text()) == {"AP": 1.0}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]
