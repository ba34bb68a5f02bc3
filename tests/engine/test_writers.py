"""metrics.json: one strict JSON object a line, whatever is stored."""

import json
import math

import pytest

from detectron2.utils.events import EventStorage, JSONWriter
from mimdet.engine import writers
from mimdet.engine.writers import StrictJSONWriter, run_writers


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
