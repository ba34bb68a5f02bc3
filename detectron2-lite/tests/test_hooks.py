import logging
import math
import os
from pathlib import Path

import pytest
import torch
from fvcore.common.param_scheduler import LinearParamScheduler
from torch import nn
from toy_trainers import Evaluation, OneLoss, hook_at, loss_trainer, make_trainer, messages, raising

from detectron2.checkpoint import Checkpointer, DetectionCheckpointer
from detectron2.engine import (
    BestCheckpointer,
    EvalHook,
    IterationTimer,
    LRScheduler,
    PeriodicCheckpointer,
    PeriodicWriter,
)
from detectron2.utils.events import EventWriter, get_event_storage


def test_time_is_stored_from_the_third_iteration_on(caplog):
    trainer = make_trainer()
    trainer.register_hooks([IterationTimer()])
    with caplog.at_level(logging.INFO):
        trainer.train(10, 15)
    assert [it for _, it in trainer.storage.history("time").values()] == [12, 13, 14]
    text = "\n".join(messages(caplog, logging.INFO))
    assert "Overall training speed: 3 iterations in 0:00:00 (0.0" in text
    assert "Total training time: 0:00:00 (0:00:00 on hooks)" in text


def test_timer_survives_a_run_that_is_shorter_than_its_warm_up(caplog):
    trainer = make_trainer()
    trainer.register_hooks([IterationTimer()])
    with caplog.at_level(logging.INFO):
        trainer.train(0, 1)
    assert "time" not in trainer.storage.histories()
    assert any("Total training time" in m for m in messages(caplog, logging.INFO))


def lr_of_run(optimizer_groups):
    parameters = [
        {"params": [nn.Parameter(torch.zeros(1)) for _ in range(count)], "lr": lr}
        for count, lr in optimizer_groups
    ]
    trainer = loss_trainer([1.0])
    optimizer = torch.optim.SGD([{"params": [trainer.model.weight], "lr": 9.0}, *parameters], lr=1)
    trainer.optimizer = optimizer
    trainer.register_hooks([LRScheduler(scheduler=LinearParamScheduler(1.0, 1.0))])
    trainer.train(0, 1)
    return trainer.storage.latest()["lr"][0]


def test_lr_is_that_of_the_largest_group():
    assert lr_of_run([(3, 0.5), (2, 0.25), (2, 0.25)]) == 0.5


def test_lr_is_the_most_common_one_if_groups_have_one_parameter_each():
    assert lr_of_run([(1, 0.5), (1, 0.25), (1, 0.25)]) == 0.25


def test_schedule_is_stretched_over_the_training():
    trainer = loss_trainer([1.0] * 10)
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=2.0)
    trainer.register_hooks([LRScheduler(scheduler=LinearParamScheduler(1.0, 0.0))])
    trainer.train(0, 10)
    values = [value for value, _ in trainer.storage.history("lr").values()]
    assert values == pytest.approx([2.0, 1.8, 1.6, 1.4, 1.2, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_torch_scheduler_steps_and_is_restored():
    def trainer_with(count):
        trainer = loss_trainer([1.0] * count)
        trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=1.0)
        scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 2, gamma=0.5)
        trainer.register_hooks([LRScheduler(scheduler=scheduler)])
        return trainer

    first = trainer_with(3)
    first.train(0, 3)
    assert first.optimizer.param_groups[0]["lr"] == 0.5
    state = first.state_dict()
    assert state["hooks"]["LRScheduler"]["last_epoch"] == 3
    second = trainer_with(1)
    second.load_state_dict(state)
    second.train(3, 4)
    assert second.optimizer.param_groups[0]["lr"] == 0.25


def test_scheduler_may_come_from_the_trainer():
    trainer = loss_trainer([1.0])
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=1.0)
    trainer.scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 1, gamma=0.5)
    trainer.register_hooks([LRScheduler()])
    trainer.train(0, 1)
    assert trainer.optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.lite
@pytest.mark.parametrize("configured", [0.01, 0.02])
def test_resumed_run_tells_its_base_lr_and_warns_if_the_config_asks_for_another(caplog, configured):
    def trainer_with(lr):
        trainer = make_trainer(lr=lr)
        trainer.register_hooks([LRScheduler(scheduler=LinearParamScheduler(1.0, 1.0))])
        return trainer

    first = trainer_with(0.01)
    first.train(0, 2)
    second = trainer_with(configured)
    second.load_state_dict(first.state_dict())
    with caplog.at_level(logging.INFO):
        second.train(2, 4)
    text = "\n".join(messages(caplog, logging.INFO))
    assert "Resuming with base learning rates [0.01]" in text
    assert ("The configured base learning rates [0.02] have no effect" in text) == (
        configured != 0.01
    )


def checkpoints(folder):
    return sorted(name for name in os.listdir(folder) if name.endswith(".pth"))


def run_with_checkpoints(folder, start, end, **kwargs):
    trainer = loss_trainer([1.0] * (end - start))
    checkpointer = Checkpointer(trainer.model, str(folder), trainer=trainer)
    trainer.register_hooks([PeriodicCheckpointer(checkpointer, **kwargs)])
    trainer.train(start, end)


def test_checkpoints_are_named_by_iteration(tmp_path):
    run_with_checkpoints(tmp_path, 0, 5, period=2)
    assert checkpoints(tmp_path) == ["model_0000001.pth", "model_0000003.pth", "model_final.pth"]


def test_period_and_end_in_one_iteration_save_twice(tmp_path):
    run_with_checkpoints(tmp_path, 0, 2, period=2, file_prefix="net")
    assert checkpoints(tmp_path) == ["net_0000001.pth", "net_final.pth"]


@pytest.mark.lite
@pytest.mark.parametrize(
    "kwargs",
    [
        {"gather_metric_period": 10},  # the losses would be looked at later
        {"async_write_metrics": True},
    ],
)
def test_weights_that_are_not_finite_leave_the_last_good_checkpoint(tmp_path, kwargs):
    trainer = loss_trainer([1.0, 1.0, 1.0, math.nan], **kwargs)
    trainer.optimizer.param_groups[0]["lr"] = 0.5
    checkpointer = Checkpointer(trainer.model, str(tmp_path), trainer=trainer)
    trainer.register_hooks([PeriodicCheckpointer(checkpointer, 2, max_to_keep=1)])
    with pytest.raises(
        FloatingPointError, match="1 of 1 weights .* NaN after iteration=3, weight for instance: no"
    ):
        trainer.train(0, 4)
    assert checkpoints(tmp_path) == ["model_0000001.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"
    saved = torch.load(tmp_path / "model_0000001.pth", weights_only=True)["model"]["weight"]
    assert saved.isfinite()


def run_with_best(folder, values, **kw):
    trainer = loss_trainer([1.0] * len(values))
    checkpointer = DetectionCheckpointer(trainer.model, str(folder), trainer=trainer)
    trainer.register_hooks(
        [
            Evaluation(dict(enumerate(values))),
            BestCheckpointer(1, checkpointer, "bbox/AP", **kw),
        ]
    )
    trainer.train(0, len(values))
    return trainer


def best_iteration(folder, name="model_best.pth"):
    return torch.load(Path(folder) / name, weights_only=True)["iteration"]


@pytest.mark.parametrize(
    "values, mode, iteration",
    [
        ([1.0, 3.0, 2.0], "max", 1),
        ([2.0, 1.0, 3.0], "min", 1),
        ([math.nan, 3.0, 2.0], "max", 1),
        ([3.0, math.nan, 3.0], "max", 0),
        ([1.0, 2.0, 3.0], "max", 2),
    ],
)
def test_best_checkpoint_is_that_of_the_best_value(tmp_path, values, mode, iteration):
    run_with_best(tmp_path, values, mode=mode)
    assert best_iteration(tmp_path) == iteration


def test_best_checkpointer_logs_what_it_decides(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run_with_best(tmp_path, [2.0, 3.0, 1.0])
    text = "\n".join(messages(caplog, logging.INFO))
    assert "Saved first model at 2.0" in text
    assert "Saved best model as latest eval score for bbox/AP is 3.0" in text
    assert "Not saving as latest eval score for bbox/AP is 1.0" in text


def test_best_checkpointer_warns_if_the_metric_is_never_stored(tmp_path, caplog):
    trainer = loss_trainer([1.0])
    checkpointer = DetectionCheckpointer(trainer.model, str(tmp_path))
    trainer.register_hooks([BestCheckpointer(1, checkpointer, "bbox/AP51")])
    with caplog.at_level(logging.WARNING):
        trainer.train(0, 1)
    assert any("bbox/AP51" in message for message in messages(caplog))
    assert checkpoints(tmp_path) == []


def test_best_checkpointer_refuses_an_unknown_mode(tmp_path):
    with pytest.raises(AssertionError, match="best"):
        BestCheckpointer(1, Checkpointer(OneLoss(), str(tmp_path)), "bbox/AP", mode="best")


def test_best_checkpointer_calls_a_save_that_was_replaced(tmp_path):
    trainer = loss_trainer([1.0])
    checkpointer = DetectionCheckpointer(trainer.model, str(tmp_path))
    trainer.register_hooks([Evaluation([5.0]), BestCheckpointer(1, checkpointer, "bbox/AP")])
    saved = []
    checkpointer.save = lambda name, **extra: saved.append((name, extra))
    trainer.train(0, 1)
    assert saved == [("model_best", {"iteration": 0})]


@pytest.mark.parametrize(
    "period, after_train, expected",
    [(2, True, [1, 3, 5]), (2, False, [1, 3]), (0, True, [5]), (5, True, [5])],
)
def test_evaluation_runs_periodically_and_once_after_training(period, after_train, expected):
    trainer = loss_trainer([1.0] * 5)
    seen = []
    hook = EvalHook(period, lambda: seen.append(trainer.iter), eval_after_train=after_train)
    trainer.register_hooks([hook])
    trainer.train(0, 5)
    assert seen == expected


def test_evaluation_does_not_run_after_a_failure_in_the_middle():
    trainer = loss_trainer([1.0] * 5)
    trainer.register_hooks(
        [
            EvalHook(0, raising(RuntimeError("evaluated"))),
            hook_at(2, raising(ValueError("training"))),
        ]
    )
    with pytest.raises(ValueError, match="training"):
        trainer.train(0, 5)


@pytest.mark.lite
def test_evaluation_does_not_run_after_a_failure_in_the_last_iteration():
    trainer = loss_trainer([1.0] * 3)
    seen = []
    failing = hook_at(2, raising(ValueError("training")))
    trainer.register_hooks([EvalHook(0, lambda: seen.append(trainer.iter)), failing])
    with pytest.raises(ValueError, match="training"):
        trainer.train(0, 3)
    assert seen == []


def test_nested_results_are_stored_flat_without_smoothing():
    trainer = loss_trainer([1.0])
    results = {"bbox": {"AP": torch.tensor(38.5), "small": {"AR": "7.5"}}, "n": 3}
    trainer.register_hooks([EvalHook(0, lambda: results)])
    trainer.train(0, 1)
    latest = trainer.storage.latest()
    assert latest["bbox/AP"] == (38.5, 1)
    assert latest["bbox/small/AR"] == (7.5, 1)
    assert latest["n"] == (3.0, 1)


def test_results_that_are_not_numbers_are_refused():
    trainer = loss_trainer([1.0])
    trainer.register_hooks([EvalHook(0, lambda: {"bbox": {"AP": "high"}})])
    with pytest.raises(ValueError, match="nested dict of .*bbox/AP"):
        trainer.train(0, 1)


def test_results_that_are_not_a_dict_are_refused():
    trainer = loss_trainer([1.0])
    trainer.register_hooks([EvalHook(0, lambda: [1.0])])
    with pytest.raises(AssertionError, match="must return a dict"):
        trainer.train(0, 1)


class Writer(EventWriter):
    def __init__(self):
        self.log = []

    def write(self):
        self.log.append(get_event_storage().iter)

    def close(self):
        self.log.append("closed")


def test_writers_write_periodically_at_the_last_iteration_and_after_training():
    trainer = loss_trainer([1.0] * 5)
    writer = Writer()
    trainer.register_hooks([PeriodicWriter([writer], period=2)])
    trainer.train(0, 5)
    assert writer.log == [1, 3, 4, 5, "closed"]


def test_periodic_writer_refuses_what_is_not_a_writer():
    with pytest.raises(AssertionError):
        PeriodicWriter([print])


@pytest.mark.lite
def test_periodic_writer_refuses_an_impossible_period():
    with pytest.raises(ValueError, match="period of writers must be positive, got 0"):
        PeriodicWriter([], period=0)


@pytest.mark.lite
def test_all_writers_are_closed_although_one_cannot_write():
    full, sound = Writer(), Writer()
    full.write = raising(OSError("disk full"))
    trainer = loss_trainer([1.0])
    trainer.register_hooks([PeriodicWriter([full, sound], period=5)])
    with pytest.raises(OSError, match="disk full"):
        trainer.train(0, 1)
    assert full.log == ["closed"]
    assert sound.log[-1] == "closed"
