"""metrics.json: one strict JSON object a line, whatever is stored."""

import contextlib
import errno
import json
import logging
import math
import threading

import pytest

from detectron2.utils.events import EventStorage, EventWriter, JSONWriter
from mimdet.engine import writers
from mimdet.engine.writers import (
    ForgivingWriter,
    StrictJSONWriter,
    forgive_full_disk,
    run_writers,
)


def lines_of(path) -> list[dict]:
    """The lines, read as strictly as other languages do."""
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def store(writer, *scalars: dict) -> None:
    with EventStorage() as storage:
        for iteration, values in enumerate(scalars):
            storage.iter = iteration
            storage.put_scalars(smoothing_hint=False, **values)
            writer.write()
    writer.close()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_scalar_that_is_not_finite_is_null(tmp_path, value):
    path = tmp_path / "metrics.json"
    store(StrictJSONWriter(path), {"a": 1.5, "b": value}, {"a": value})
    assert lines_of(path) == [
        {"a": 1.5, "b": None, "iteration": 0},
        {"a": None, "iteration": 1},
    ]


def test_finite_scalars_are_written_as_detectron2_does(tmp_path):
    scalars = [{"z": 1.0, "a": 1 / 3}, {}, {"z": 2.0}]
    for name, kind in (("ours", StrictJSONWriter), ("theirs", JSONWriter)):
        store(kind(str(tmp_path / name)), *scalars)
    assert (tmp_path / "ours").read_text() == (tmp_path / "theirs").read_text()


class OtherWriter(JSONWriter):
    """Stands for another provider's."""


@pytest.mark.parametrize("kind", [None, OtherWriter])
def test_the_writers_of_a_run_are_detectron2s_with_a_strict_one(tmp_path, monkeypatch, kind):
    path = tmp_path / "metrics.json"
    if kind:
        monkeypatch.setattr(writers, "default_writers", lambda *args: [kind(str(path))])
    found = run_writers(str(tmp_path), 5)
    (ours,) = [writer for writer in found if isinstance(writer, StrictJSONWriter)]
    assert not [writer for writer in found if isinstance(writer, JSONWriter)]
    assert kind or len(found) >= 2
    store(ours, {"bbox/APl": math.nan})
    assert lines_of(path) == [{"bbox/APl": None, "iteration": 0}]
    for writer in found:
        writer.close()


# --- A full disk ----------------------------------------------------------------------------------


class FullDisk:
    """A file that takes `room` bytes more."""

    def __init__(self, file, room: int):
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        if self.room == 0 and data:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self.file.write(data[: self.room])
        self.room -= taken
        return taken

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_lines_wait_for_room_and_no_half_line_is_left(tmp_path, caplog):
    path = tmp_path / "metrics.json"
    writer = StrictJSONWriter(path)
    with EventStorage() as storage, caplog.at_level(logging.WARNING):
        for iteration, room in enumerate((999, 10, 0, 999)):
            storage.iter = iteration
            storage.put_scalar("a", iteration, smoothing_hint=False)
            writer._file = FullDisk(getattr(writer._file, "file", writer._file), room)
            writer.write()
            count = 4 if iteration == 3 else 1
            assert [line["iteration"] for line in lines_of(path)] == list(range(count))
    writer.close()
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{path} cannot be written (No space left on device): training goes on, and its lines are "
        "kept until there is room"
    )


def test_lines_that_never_found_room_are_counted(tmp_path, caplog):
    writer = StrictJSONWriter(tmp_path / "metrics.json")
    writer._file = FullDisk(writer._file, 0)
    store(writer, {"a": 1}, {"a": 2})
    assert f"The last 2 lines of {tmp_path / 'metrics.json'} could not be written" in caplog.text


class FailingWriter(EventWriter):
    """Cannot write."""

    calls = 0

    def write(self) -> None:
        self.calls += 1
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    close = write


def test_another_writer_that_cannot_write_is_left_out_with_one_warning(caplog):
    failing = FailingWriter()
    writer = ForgivingWriter(failing)
    for _ in range(3):
        writer.write()
    writer.close()
    assert failing.calls == 1
    (record,) = caplog.records
    assert record.getMessage() == (
        "FailingWriter cannot write (Disk quota exceeded): training goes on without it"
    )


def test_a_log_on_a_full_disk_is_said_once(monkeypatch, capsys):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    logs = [logging.getLogger(f"full.{name}") for name in ("a", "b")]
    for log in logs:
        log.propagate = False
        log.addHandler(logging.FileHandler("/dev/full"))
    forgive_full_disk("full.a", "full.b")
    for log in (*logs, *logs):
        log.warning("a line")
    logs[0].warning("not a number: %d", "text")  # a fault of the code is still shown
    for log in logs:
        handler = log.handlers.pop()
        with contextlib.suppress(OSError):
            handler.close()
    printed = capsys.readouterr().err
    text = "warning: /dev/full cannot be written (No space left on device): training goes on\n"
    assert printed.count(text) == 1 and printed.startswith(text)
    assert printed.count("Traceback") == 1 and "not a number" in printed
