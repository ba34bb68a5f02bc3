import json
import logging
import math

import pytest
import torch

from detectron2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
    has_event_storage,
)


@pytest.fixture
def storage():
    with EventStorage() as storage:
        yield storage


def read_lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ----------------------------------------------------------------------------- storage


def test_the_current_storage_is_that_of_the_innermost_block():
    assert not has_event_storage()
    with EventStorage() as outer:
        with EventStorage(5) as inner:
            assert get_event_storage() is inner and inner.iter == 5
        assert get_event_storage() is outer and has_event_storage()
    with pytest.raises(AssertionError, match="EventStorage"):
        get_event_storage()


def test_scalars_keep_value_and_iteration(storage):
    storage.put_scalar("a", torch.tensor(2.0))
    storage.iter = 3
    storage.put_scalars(a=4, b=1)
    storage.put_scalar("c", 7, cur_iter=1)
    assert storage.latest() == {"a": (4.0, 3), "b": (1.0, 3), "c": (7.0, 1)}
    assert storage.history("a").values() == [(2.0, 0), (4.0, 3)]
    assert list(storage.histories()) == ["a", "b", "c"]


def test_step_goes_to_the_next_iteration(storage):
    storage.step()
    assert storage.iter == 1


def test_smoothed_scalars_are_medians_of_the_last_iterations(storage):
    for iteration, value in enumerate([100, 1, 2, 30]):
        storage.iter = iteration
        storage.put_scalar("noisy", value)
        storage.put_scalar("exact", value, smoothing_hint=False)
    assert storage.latest_with_smoothing_hint(3) == {"noisy": (2.0, 3), "exact": (30.0, 3)}


def test_samples_are_counted_by_iteration_and_not_by_number(storage):
    for iteration in [0, 10, 20, 25]:
        storage.put_scalar("a", 0, cur_iter=iteration)
    assert storage.count_samples("a", 20) == 3  # 6..25
    assert storage.count_samples("a", 1) == 1


def test_a_scalar_keeps_its_smoothing_hint(storage):
    storage.put_scalar("a", 1, smoothing_hint=False)
    with pytest.raises(AssertionError):
        storage.put_scalar("a", 1)


@pytest.mark.lite
def test_a_changed_smoothing_hint_names_the_scalar(storage):
    storage.put_scalar("a", 1, smoothing_hint=False)
    with pytest.raises(AssertionError, match="'a' was stored with smoothing_hint=False"):
        storage.put_scalar("a", 1)


def test_the_iteration_and_how_scalars_are_shown_can_be_asked_for(storage):
    storage.iter = 3
    storage.put_scalars(loss=1.0)
    storage.put_scalar("lr", 0.1, smoothing_hint=False)
    assert storage.iteration == 3
    assert storage.smoothing_hints() == {"loss": True, "lr": False}


def test_a_name_scope_is_put_in_front_of_names(storage):
    with storage.name_scope("group"):
        storage.put_scalar("a", 1)
    storage.put_scalar("a", 2)
    assert storage.latest() == {"group/a": (1.0, 0), "a": (2.0, 0)}


def test_the_history_of_an_unknown_scalar_is_a_key_error(storage):
    with pytest.raises(KeyError, match="nothing"):
        storage.history("nothing")


@pytest.mark.lite
def test_a_history_does_not_grow_beyond_ten_thousand_values(storage):
    for iteration in range(10_010):
        storage.put_scalar("a", iteration, cur_iter=iteration)
    assert len(storage.history("a").values()) == 10_000
    assert storage.latest()["a"] == (10_009.0, 10_009)


# ----------------------------------------------------------------------------- JSONWriter


def test_json_writer_appends_one_sorted_line_per_new_iteration(storage, tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 0}\n')
    writer = JSONWriter(str(path))
    storage.iter = 4
    storage.put_scalar("total_loss", 2)
    storage.put_scalar("bbox/AP", 30, smoothing_hint=False, cur_iter=3)
    storage.put_scalar("lr", 0.1, smoothing_hint=False)
    writer.write()
    writer.write()  # nothing is new
    storage.iter = 5
    storage.put_scalar("total_loss", 4)
    writer.write()
    writer.close()
    assert path.read_text() == (
        '{"iteration": 0}\n'
        '{"iteration": 4, "lr": 0.1, "total_loss": 2.0}\n'
        '{"bbox/AP": 30.0, "iteration": 3}\n'
        '{"iteration": 5, "total_loss": 3.0}\n'
    )


def test_json_writer_keeps_nan(storage, tmp_path):
    writer = JSONWriter(str(tmp_path / "m.json"))
    storage.put_scalar("bbox/AP", float("nan"), smoothing_hint=False)
    writer.write()
    writer.close()
    assert (tmp_path / "m.json").read_text() == '{"bbox/AP": NaN, "iteration": 0}\n'


@pytest.mark.lite
def test_json_writer_never_writes_infinity(storage, tmp_path):
    writer = JSONWriter(tmp_path / "m.json")
    storage.put_scalars(smoothing_hint=False, a=math.inf, b=-math.inf, c=1)
    writer.write()
    writer.close()
    assert "Infinity" not in (tmp_path / "m.json").read_text()
    (line,) = read_lines(tmp_path / "m.json")
    assert math.isnan(line["a"]) and math.isnan(line["b"]) and line["c"] == 1


# ----------------------------------------------------------------------------- tensorboard


def test_tensorboard_writer_makes_its_file_at_the_first_write(storage, tmp_path):
    writer = TensorboardXWriter(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    storage.put_scalar("a", 1)
    storage.put_image("i", torch.zeros(3, 4, 4, dtype=torch.uint8))
    storage.put_histogram("h", torch.arange(10.0))
    writer.write()
    writer.close()
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("events.out.tfevents.")
    assert sorted(tags_of(tmp_path)) == ["a", "h", "i"]


def tags_of(folder) -> list[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()
    assert [(e.step, e.value) for e in events.Scalars("a")] == [(0, 1.0)]
    assert events.Histograms("h")[0].histogram_value.num == 10
    return [*tags["scalars"], *tags["images"], *tags["histograms"]]


# ----------------------------------------------------------------------------- printer


def printed(caplog, max_iter=None) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO, "detectron2.utils.events"):
        CommonMetricPrinter(max_iter).write()
    return [record.message for record in caplog.records]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the line ends with the memory in use")
def test_the_printed_line_has_the_fields_of_upstream_in_order(storage, caplog):
    storage.iter = 4
    storage.put_scalar("data_time", 0.008)
    storage.put_scalar("total_loss", 7.3561)
    storage.put_scalar("loss_cls", 3.403)
    storage.put_scalar("fast_rcnn/cls_accuracy", 0.5)
    storage.put_scalar("time", 0.219, cur_iter=3)
    storage.put_scalar("time", 0.2304)
    storage.put_scalar("lr", 0.0005, smoothing_hint=False)
    assert printed(caplog, max_iter=25) == [
        " eta: 0:00:04  iter: 4  total_loss: 7.356  loss_cls: 3.403    time: 0.2247  "
        "last_time: 0.2304  data_time: 0.0080  last_data_time: 0.0080   lr: 0.0005  "
    ]
    assert storage.latest()["eta_seconds"][0] == pytest.approx(0.2247 * 20)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the line ends with the memory in use")
def test_fields_without_a_value_are_left_out(storage, caplog):
    storage.put_scalar("[metric]scale", 3)
    assert printed(caplog) == [" iter: 0    [metric]scale: 3   lr: N/A  "]


def test_nothing_is_printed_after_the_last_iteration(storage, caplog):
    storage.iter = 7
    assert printed(caplog, max_iter=7) == []


def test_the_printer_has_the_logger_that_it_prints_to():
    assert CommonMetricPrinter().logger.name == "detectron2.utils.events"
