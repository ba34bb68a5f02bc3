"""An evaluation takes the average where there is one, and every weight from the file."""

import logging

import pytest
import torch
from torch import nn

from detectron2.engine import SimpleTrainer
from mimdet.checkpoint.average import averaged_weights
from mimdet.checkpoint.evaluated import EvaluatedWeights, load_for_evaluation
from mimdet.checkpoint.strict import StrictCheckpointer
from mimdet.engine.hooks import EMA


class Loss(nn.Module):
    """Mean of a linear layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.layer(batch).mean()}


@pytest.fixture
def run(tmp_path):
    """A training with an average -> the file that it leaves, the model, the averaged model."""
    model = Loss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    trainer, ema = SimpleTrainer(model, [torch.ones(1, 2)] * 9, optimizer), EMA(model, 0.5)
    trainer.register_hooks([ema])
    trainer.train(0, 3)
    StrictCheckpointer(model, str(tmp_path), trainer=trainer).save("model_final", iteration=2)
    return str(tmp_path / "model_final.pth"), model, ema.averaged


@pytest.fixture
def said(caplog):
    """What is logged about the choice of weights."""
    caplog.set_level(logging.INFO, logger="mimdet.checkpoint.evaluated")
    return lambda: [r.message for r in caplog.records if r.name == "mimdet.checkpoint.evaluated"]


def weight_of(model: nn.Module) -> list:
    return model.layer.weight.tolist()


@pytest.mark.parametrize("choice", [None, "ema"])
def test_the_average_is_taken_by_default_and_the_log_says_so(run, said, choice):
    path, trained, averaged = run
    model = Loss()
    used = load_for_evaluation(model, path, choice)
    assert used == EvaluatedWeights("ema", path, iteration=2)
    assert weight_of(model) == weight_of(averaged) != weight_of(trained)
    (message,) = said()
    assert message.startswith(f"The averaged weights (EMA) of {path} are taken")


def test_the_raw_weights_can_be_chosen_and_the_log_says_so(run, said):
    path, trained, _ = run
    model = Loss()
    assert load_for_evaluation(model, path, "raw").kind == "raw"
    assert weight_of(model) == weight_of(trained)
    assert said() == [
        f"The raw weights of {path} are taken, not their average (train.eval_weights)"
    ]


def test_a_file_without_an_average_gives_what_it_has_and_the_log_says_so(tmp_path, said):
    path, saved, model = str(tmp_path / "model.pth"), Loss(), Loss()
    torch.save(saved.state_dict(), path)
    assert load_for_evaluation(model, path) == EvaluatedWeights("raw", path)
    assert weight_of(model) == weight_of(saved)
    assert said() == [f"The weights of {path} are taken; it has no average of them (train.ema)"]


def test_an_average_that_is_asked_for_must_be_there(tmp_path):
    path = str(tmp_path / "model.pth")
    torch.save({"model": Loss().state_dict(), "trainer": {"iteration": 1}}, path)
    with pytest.raises(ValueError, match=f"{path} has no average of its weights: the run had no"):
        load_for_evaluation(Loss(), path, "ema")


def test_another_word_is_refused_before_the_file_is_read():
    with pytest.raises(ValueError, match=r"train.eval_weights must be one of .*, got 'mean'"):
        load_for_evaluation(Loss(), "nowhere.pth", "mean")


def test_a_weight_that_the_file_lacks_stops_the_evaluation_without_advice_for_training(tmp_path):
    path = str(tmp_path / "model.pth")
    torch.save({"layer.weight": torch.ones(2, 2), "more": torch.ones(1)}, path)
    with pytest.raises(ValueError) as caught:
        load_for_evaluation(Loss(), path, allow_unexpected=["more"])
    message = str(caught.value)
    assert "1 parameters that the checkpoint lacks:\n    layer.bias" in message
    assert "an evaluation takes every weight from the file" in message
    assert "name them in train.allow_missing" not in message


def test_an_average_that_lacks_a_weight_stops_the_evaluation_too(run):
    path, *_ = run
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["trainer"]["hooks"]["EMA"]["layer.bias"]
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match="parameters that the checkpoint lacks"):
        load_for_evaluation(Loss(), path)
    load_for_evaluation(Loss(), path, "raw")


@pytest.mark.parametrize(
    "content", [None, [], {}, {"trainer": 3}, {"trainer": {"hooks": None}}, {"EMA": {}}]
)
def test_whatever_a_file_holds_it_can_be_asked_for_its_average(content):
    assert averaged_weights(content) is None


def test_the_log_does_not_speak_of_a_start_from_scratch(caplog):
    caplog.set_level(logging.INFO)
    assert StrictCheckpointer(Loss()).resume_or_load("", resume=True) == {}
    assert "scratch" not in caplog.text
    assert "No checkpoint of the whole model is loaded (train.init_checkpoint)" in caplog.text
