"""What a checkpoint says of itself."""

import pytest
import torch
from torch import nn

from mimdet.checkpoint.card import Card, as_entry, card_of
from mimdet.checkpoint.file import read_checkpoint
from mimdet.checkpoint.strict import StrictCheckpointer
from mimdet.checkpoint.summary import summarize

CARD = Card("train: {}\n", ["red", "blue"], [7, "b"], {"sample_ratio": 0.5}, {"torch": "2"})


@pytest.fixture
def saved(tmp_path):
    StrictCheckpointer(nn.Linear(2, 1), str(tmp_path), card=CARD).save("model", iteration=3)
    return str(tmp_path / "model.pth")


def test_a_card_is_read_as_it_was_saved(saved):
    content = read_checkpoint(saved, "the test")
    assert card_of(content, saved) == CARD
    assert content["iteration"] == 3 and {*content["model"]} == {"weight", "bias"}


def test_detectron2_loads_the_weights_and_leaves_the_card_alone(saved):
    model = nn.Linear(2, 1)
    rest = StrictCheckpointer(model).load(saved)
    assert torch.equal(model.weight, read_checkpoint(saved, "the test")["model"]["weight"])
    assert rest["iteration"] == 3


def test_a_file_without_a_card_has_none(tmp_path):
    StrictCheckpointer(nn.Linear(2, 1), str(tmp_path)).save("model")
    path = str(tmp_path / "model.pth")
    assert card_of(read_checkpoint(path, "the test"), path) is None


@pytest.mark.parametrize(
    "entry, message",
    [
        ([], "the card of a.pth must be a dict, got list"),
        ({}, "must have the config of its run"),
        ({"config": 3}, "config in the card of a.pth must be str, got int"),
        ({**as_entry(CARD), "classes": "red"}, "classes in the card of a.pth must be list"),
    ],
)
def test_other_cards_are_refused(entry, message):
    with pytest.raises(ValueError, match=message):
        card_of({"card": entry}, "a.pth")


def test_what_a_later_version_adds_is_left_alone():
    assert card_of({"card": {**as_entry(CARD), "more": 1}}, "a.pth") == CARD


def test_the_summary_of_a_file_has_the_card(saved):
    text = summarize(saved)
    assert "what to do: it tells its config and classes: mimdet predict" in text
    assert "2 classes: red, blue\nsettings: sample_ratio 0.5\ntrained with: torch 2" in text
    assert text.endswith("besides: iteration 3")
