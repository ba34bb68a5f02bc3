"""What long work says of itself, on a terminal and in a log."""

import sys

import pytest

from mimdet import progress as module
from mimdet.progress import progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when `sleep` is called."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_a_log_gets_a_line_every_half_minute_with_the_time_that_is_left(clock, capsys):
    for _ in progress(range(10), 10, "prediction", "image"):
        clock(12)
    assert capsys.readouterr().err.splitlines() == [
        "prediction: 3 of 10 images, 01:24 left",
        "prediction: 6 of 10 images, 00:48 left",
        "prediction: 9 of 10 images, 00:12 left",
    ]


def test_work_that_is_soon_done_says_nothing_in_a_log(clock, capsys):
    assert list(progress(iter("abc"), 3, "prediction", "image")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_one_line_that_moves(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress(range(3), 3, "prediction", "image")) == [0, 1, 2]
    shown = capsys.readouterr().err
    assert "\r" in shown and "prediction: 100%" in shown and "3/3" in shown
