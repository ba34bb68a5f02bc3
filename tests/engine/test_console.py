"""What a run shows on the screen."""

import io
import logging
import sys

import pytest

from detectron2.utils.events import EventStorage
from mimdet.engine.console import MovingLine, beside_a_moving_line, short_console, with_line


class Terminal(io.StringIO):
    """A stream that says it is a terminal, or that it is none."""

    def __init__(self, is_terminal):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal


@pytest.fixture(params=[True, False], ids=["terminal", "none"])
def terminal(request):
    return Terminal(request.param)


@pytest.fixture
def printed(terminal, monkeypatch):
    """Where the logger prints to, and the logger."""
    logger = logging.getLogger("mimdet")
    console = logging.StreamHandler(terminal)
    monkeypatch.setattr(logger, "handlers", [console])
    monkeypatch.setattr(logger, "propagate", False)
    logger.setLevel(logging.INFO)
    return terminal, logger


@pytest.mark.parametrize(
    "text, is_long",
    [
        ("Model:\nRCNN(\n)", True),
        ("Environment info:\n---\n", True),
        ("Contents of args.config_file=a.py:\nx = 1", True),
        (" eta: 0:01:00  iter: 19  total_loss: 2.4", True),
        ("Inference done 5/10. Dataloading: 0.1 s/iter", True),
        ("Model: it is a line", False),
        ("copypaste: AP\nmore", False),
    ],
)
@pytest.mark.parametrize("is_moving", [False, True])
def test_long_texts_and_lines_of_progress_are_left_out_on_a_terminal(
    printed, monkeypatch, text, is_long, is_moving
):
    stream, logger = printed
    monkeypatch.setattr(sys, "stderr", stream)  # here, because pytest sets it before each test
    monkeypatch.setattr(sys, "stdout", stream)  # tqdm takes over handlers of these two alone
    with beside_a_moving_line() if is_moving else short_console():
        logger.info(text)
    assert (text in stream.getvalue()) == (not (is_long and stream.isatty()))
    logger.info(text)
    assert text in stream.getvalue()  # afterwards everything is as it was


def test_a_training_is_one_line_that_moves(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal)
    line = MovingLine(100)
    for iteration in (38, 39, 99, 100):
        with EventStorage(iteration) as storage:
            storage.put_scalars(total_loss=1.25, **{"[metric]images_per_second": 8.0})
            line.write()
    line.close()
    text = terminal.getvalue()
    if not terminal.isatty():
        assert text == ""
        return
    assert (
        "38/100" in text
        and "100/100" in text
        and "101/" not in text
        and "loss 1.25, 8 images/s" in text
    )
    assert text.count("\n") <= 1


def test_an_evaluation_is_one_line_that_moves(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal)
    calls = []
    callbacks = with_line({"before_inference": list, "after_inference": lambda: calls.append(1)}, 3)
    for _ in range(3):
        callbacks["after_inference"]()
    callbacks["on_end"]()
    assert len(calls) == 3 and "before_inference" in callbacks
    assert ("evaluation" in terminal.getvalue()) == terminal.isatty()
