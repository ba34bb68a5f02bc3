"""The evaluation loop: modes of the model, order of calls, times, several evaluators."""

import re
import types

import pytest
import torch
from log_records import captured, messages
from omegaconf import OmegaConf
from torch import nn

from detectron2.config import LazyCall, instantiate
from detectron2.evaluation import (
    DatasetEvaluator,
    DatasetEvaluators,
    inference_context,
    inference_on_dataset,
)


class _Recorder(DatasetEvaluator):
    """Notes what it is called with."""

    def __init__(self, results=None):
        self.calls = []
        self.results = results

    def reset(self):
        self.calls.append("reset")

    def process(self, inputs, outputs):
        self.calls.append((inputs, outputs))

    def evaluate(self):
        self.calls.append("evaluate")
        return self.results


class _Doubler(nn.Module):
    """Returns twice its input, and notes in which mode it ran."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.modes = []

    def forward(self, inputs):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return [x * self.weight for x in inputs]


def test_every_batch_reaches_the_evaluator_in_order():
    evaluator = _Recorder({"bbox": {"AP": 1.0}})
    results = inference_on_dataset(_Doubler(), [[1.0], [2.0, 3.0]], evaluator)
    assert results == {"bbox": {"AP": 1.0}}
    assert evaluator.calls == ["reset", ([1.0], [2.0]), ([2.0, 3.0], [4.0, 6.0]), "evaluate"]


@pytest.mark.parametrize("training", [True, False])
def test_the_model_runs_in_eval_mode_without_gradients_and_gets_its_mode_back(training):
    model = _Doubler().train(training)
    inference_on_dataset(model, [[1.0]], None)
    assert model.modes == [(False, False)]
    assert model.training == training
    assert torch.is_grad_enabled()


def test_outputs_may_enter_autograd_later():
    evaluator = _Recorder()
    inference_on_dataset(_Doubler(), [[torch.ones(1)]], evaluator)
    ((_, (output,)),) = [call for call in evaluator.calls if isinstance(call, tuple)]
    weight = torch.ones(1, requires_grad=True)
    (output * weight).sum().backward()
    assert weight.grad.item() == 2


@pytest.mark.lite
def test_the_model_gets_its_mode_back_after_an_error():
    model = _Doubler().train()
    with pytest.raises(TypeError):
        inference_on_dataset(model, [[None]], None)
    assert model.training
    with pytest.raises(KeyError), inference_context(model):
        raise KeyError
    assert model.training


def test_inference_context_switches_to_eval_mode():
    model = _Doubler()
    with inference_context(model):
        assert not model.training
    assert model.training


def test_several_evaluators_give_merged_results():
    evaluators = [_Recorder({"bbox": 1}), _Recorder(None), _Recorder({"segm": 2})]
    assert inference_on_dataset(_Doubler(), [[1.0]], evaluators) == {"bbox": 1, "segm": 2}
    assert all(len(evaluator.calls) == 3 for evaluator in evaluators)


def test_several_evaluators_may_come_from_a_config():
    evaluators = instantiate(OmegaConf.create([LazyCall(_Recorder)(results={"bbox": 1})]))
    assert not isinstance(evaluators, list)
    assert inference_on_dataset(_Doubler(), [[1.0]], evaluators) == {"bbox": 1}


def test_an_evaluator_without_results_gives_an_empty_dict():
    assert inference_on_dataset(lambda inputs: inputs, [[1.0]], _Recorder(None)) == {}
    assert inference_on_dataset(lambda inputs: inputs, [[1.0]], None) == {}


def test_two_evaluators_must_not_report_the_same_task():
    evaluator = DatasetEvaluators([_Recorder({"bbox": 1}), _Recorder({"bbox": 2})])
    with pytest.raises(AssertionError, match="bbox"):
        evaluator.evaluate()


def test_callbacks_run_around_the_loop_and_around_the_model():
    calls = []
    names = ("on_start", "before_inference", "after_inference", "on_end")
    callbacks = {name: lambda name=name: calls.append(name) for name in names}
    inference_on_dataset(lambda inputs: calls.append("model"), [0, 0], None, callbacks)
    step = ["before_inference", "model", "after_inference"]
    assert calls == ["on_start", *step, *step, "on_end"]


def test_the_loop_logs_its_length_and_times(monkeypatch):
    progress = []  # in place of a line every five seconds
    monkeypatch.setattr(
        "detectron2.evaluation.evaluator.log_every_n_seconds",
        lambda level, message, *args, **kwargs: progress.append(message),
    )
    with captured("detectron2") as records:
        inference_on_dataset(lambda inputs: inputs, [[i] for i in range(12)], None)
    text = messages(records)
    assert "Start inference on 12 batches" in text
    number = r"\d+\.\d+"
    assert len(progress) == 2  # from twice the five warm-up iterations on
    assert re.fullmatch(
        rf"Inference done 12/12\. Dataloading: {number} s/iter\. Inference: {number} s/iter\. "
        rf"Eval: {number} s/iter\. Total: {number} s/iter\. ETA=0:00:00",
        progress[-1],
    )
    per_device = rf"\({number} s / iter per device, on 1 devices\)"
    assert re.search(rf"Total inference time: 0:00:\S+ {per_device}", text)
    assert re.search(rf"Total inference pure compute time: 0:00:\S+ {per_device}", text)


@pytest.mark.parametrize(("batches", "warmup"), [(1, 0), (3, 2), (6, 5), (12, 5)])
def test_times_are_those_of_the_iterations_after_the_warm_up(batches, warmup, monkeypatch):
    clock = types.SimpleNamespace(now=0.0, slow=True)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr("detectron2.evaluation.evaluator.time", clock)

    def spend(seconds):
        clock.now += 1000.0 if clock.slow else seconds

    class Loader(list):
        def __iter__(self):
            for index in range(batches):
                spend(0.5)
                clock.slow = index < warmup
                yield index

    class Slow(DatasetEvaluator):
        def process(self, inputs, outputs):
            spend(0.25)

    with captured("detectron2") as records:
        inference_on_dataset(lambda inputs: spend(2.0), Loader(range(batches)), Slow())
    timed = batches - warmup
    # The first of them has its data already when the clocks start.
    total, compute = 2.25 * timed + 0.5 * (timed - 1), 2.0 * timed
    assert f"({total / timed:.6f} s / iter per device, on 1 devices)" in messages(records)
    assert f"({compute / timed:.6f} s / iter per device, on 1 devices)" in messages(records)


def test_a_loader_without_batches_is_evaluated():
    evaluator = _Recorder({"bbox": {}})
    assert inference_on_dataset(_Doubler(), [], evaluator) == {"bbox": {}}
