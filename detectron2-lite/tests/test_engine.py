import argparse
import inspect
import json
import logging
import math
import os
from pathlib import Path

import golden_data
import numpy as np
import pytest
import torch
from fvcore.common.param_scheduler import (
    LinearParamScheduler,
    MultiStepParamScheduler,
)
from omegaconf import OmegaConf
from torch import nn

from detectron2.checkpoint import Checkpointer, DetectionCheckpointer
from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.engine import (
    AMPTrainer,
    BestCheckpointer,
    EvalHook,
    HookBase,
    IterationTimer,
    LRScheduler,
    PeriodicCheckpointer,
    PeriodicWriter,
    SimpleTrainer,
    TrainerBase,
    create_ddp_model,
    default_argument_parser,
    default_setup,
    default_writers,
    hooks,
)
from detectron2.engine.defaults import create_ddp_model as create_ddp_model_of_defaults
from detectron2.layers import ShapeSpec
from detectron2.solver import WarmupParamScheduler
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

GOLDEN = golden_data.load("engine")[1]
ARGUMENTS = argparse.Namespace(config_file="", resume=False, eval_only=False)


@pytest.fixture(autouse=True)
def restored_logging_and_numerics():
    """`default_setup` changes loggers and numerics of the process; undo that after each test."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore")]
    before = [(lg, lg.handlers[:], lg.level, lg.propagate) for lg in loggers]
    precision = torch.get_float32_matmul_precision()
    benchmark = torch.backends.cudnn.benchmark
    yield
    for lg, handlers, level, propagate in before:
        for handler in lg.handlers:
            if handler not in handlers:
                handler.close()
        lg.handlers[:], lg.propagate = handlers, propagate
        lg.setLevel(level)
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.benchmark = benchmark


class TwoLosses(nn.Module):
    """The model of the reference run (README, engine.json)."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.bn = nn.BatchNorm1d(3)

    def forward(self, x):
        if not self.training:
            return x
        y = self.fc(self.bn(x))
        get_event_storage().put_scalar("my/number", float(len(x)))
        return {"loss_a": (y**2).mean(), "loss_b": (y - 1).abs().mean()}


def batches():
    index = 0
    while True:
        yield golden_data.feature(index, (4, 3))
        index += 1


class Batches:
    """Endless data; every iterator starts anew, as a loader does."""

    def __iter__(self):
        return batches()


def make_trainer(cls=SimpleTrainer, model=None, lr=0.01, **kwargs):
    model = golden_data.fill(model or TwoLosses())
    return cls(model, Batches(), torch.optim.AdamW(model.parameters(), lr=lr), **kwargs)


class OneLoss(nn.Module):
    """Returns the data as the loss, times a weight that starts at 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.weight * x


def loss_trainer(losses, cls=SimpleTrainer, **kwargs):
    """A trainer whose n-th iteration has the n-th loss (times the weight)."""
    model = OneLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    return cls(model, [torch.tensor(float(x)) for x in losses], optimizer, **kwargs)


class Recorder(HookBase):
    """Writes down the phases in which it is called."""

    def __init__(self, name="", log=None, state=None):
        self.log = [] if log is None else log
        self.name = name
        self.state = state or {}

    def _note(self, phase):
        self.log.append(f"{self.name}{phase}")

    def before_train(self):
        self._note("before_train")

    def before_step(self):
        self._note("before_step")

    def after_backward(self):
        self._note("after_backward")

    def after_step(self):
        self._note("after_step")

    def after_train(self):
        self._note("after_train")

    def state_dict(self):
        return self.state

    def load_state_dict(self, state_dict):
        self.state = state_dict


class AfterTrain(HookBase):
    """Calls a function after training."""

    def __init__(self, function):
        self.after_train = function


class Evaluation(HookBase):
    """Stores the given values as scalar "bbox/AP", one in each iteration."""

    def __init__(self, values):
        self.values = values

    def after_step(self):
        value = self.values[self.trainer.iter]
        self.trainer.storage.put_scalar("bbox/AP", value, smoothing_hint=False)


def raising(error):
    def function():
        raise error

    return function


def messages(caplog, level=logging.WARNING):
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


# ------------------------------------------------------------------ the reference run


def reference_schedule():
    parameters = GOLDEN["parameters"]
    steps = MultiStepParamScheduler([1.0, 0.1], milestones=[5], num_updates=parameters["max_iter"])
    return WarmupParamScheduler(steps, 0.1, 2 / 7)


def reference_run(folder, trainer):
    parameters = GOLDEN["parameters"]
    checkpointer = DetectionCheckpointer(trainer.model, str(folder), trainer=trainer)
    evaluations = iter(range(1, 10))

    def evaluate():
        value = float(next(evaluations))
        return {"bbox": {"AP": value, "AP50": 2 * value}}

    trainer.register_hooks(
        [
            IterationTimer(),
            LRScheduler(scheduler=reference_schedule()),
            PeriodicCheckpointer(
                checkpointer, parameters["checkpoint_period"], max_to_keep=parameters["max_to_keep"]
            ),
            EvalHook(parameters["eval_period"], evaluate),
            PeriodicWriter(
                default_writers(str(folder), parameters["max_iter"]),
                period=parameters["writer_period"],
            ),
        ]
    )
    return checkpointer


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    trainer = make_trainer()
    reference_run(folder, trainer)
    trainer.train(0, GOLDEN["parameters"]["max_iter"])
    return folder, trainer


def tree(value):
    """A checkpoint as engine.json describes it."""
    if isinstance(value, torch.Tensor):
        return f"Tensor[{','.join(map(str, value.shape))}] {str(value.dtype).split('.')[1]}"
    if isinstance(value, dict):
        return {str(k): tree(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(tree, value)]
    return value


def assert_tree(actual, expected):
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key in expected:
            assert_tree(actual[key], expected[key])
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for a, b in zip(actual, expected, strict=True):
            assert_tree(a, b)
    else:
        assert actual == (pytest.approx(expected) if isinstance(expected, float) else expected)


def metrics_of(folder):
    return [json.loads(line) for line in (Path(folder) / "metrics.json").read_text().splitlines()]


def test_run_leaves_the_files_of_the_reference(reference):
    names = {name.split("tfevents")[0] for name in os.listdir(reference[0])}
    assert names == {name.split("tfevents")[0] for name in GOLDEN["files"]}
    assert (reference[0] / "last_checkpoint").read_text() == GOLDEN["last_checkpoint"]


def test_metrics_file_has_the_lines_of_the_reference(reference):
    expected = GOLDEN["metrics_json"]
    lines = metrics_of(reference[0])
    assert [line["iteration"] for line in lines] == expected["iterations"]
    assert [list(line) for line in lines] == expected["keys_per_line"]
    for name in ("lr", "total_loss"):
        for line, value in zip(lines, expected[name], strict=True):
            assert line.get(name) == (value if value is None else pytest.approx(value, rel=1e-4))


def test_final_weights_are_those_of_the_reference(reference):
    saved = torch.load(reference[0] / "model_final.pth", weights_only=True)["model"]
    assert list(saved) == list(GOLDEN["final_weights"])
    for name, value in GOLDEN["final_weights"].items():
        np.testing.assert_allclose(saved[name].numpy(), value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_checkpoint_has_the_tree_of_the_reference(reference):
    saved = torch.load(reference[0] / "model_final.pth", weights_only=True)
    assert list(saved) == GOLDEN["checkpoint_SimpleTrainer_top_level_order"]
    actual = tree(saved)
    expected = dict(GOLDEN["checkpoint_SimpleTrainer"])
    # A newer or older torch may have other options in the parameter groups.
    group = actual["trainer"]["optimizer"]["param_groups"][1]
    expected_group = expected["trainer"]["optimizer"]["param_groups"][1]
    for name in ("lr", "betas", "weight_decay", "initial_lr", "params"):
        assert_tree(group[name], expected_group[name])
    for state in (actual, expected):
        del state["trainer"]["optimizer"]["param_groups"]
    assert_tree(actual, expected)


def test_periodic_checkpoint_has_the_entries_of_the_reference(reference):
    saved = torch.load(reference[0] / "model_0000002.pth", weights_only=True)
    actual = {k: v if isinstance(v, int) else type(v).__name__ for k, v in saved.items()}
    assert actual == GOLDEN["checkpoint_periodic_top_level"]


def test_resuming_restores_iteration_optimizer_and_schedule(reference, tmp_path):
    expected = GOLDEN["resume"]
    trainer = make_trainer()
    checkpointer = DetectionCheckpointer(trainer.model, str(reference[0]), trainer=trainer)
    trainer.register_hooks([LRScheduler(scheduler=reference_schedule())])
    assert checkpointer.has_checkpoint() == expected["has_checkpoint"]
    assert os.path.basename(checkpointer.get_checkpoint_file()) == expected["checkpoint_file"]
    assert list(checkpointer.resume_or_load("", resume=True)) == expected["returned_keys"]
    assert trainer.iter == expected["trainer_iter_after_load"]
    lr = trainer.optimizer.param_groups[0]["lr"]
    assert lr == pytest.approx(expected["lr_after_load"])


def test_resumed_run_ends_with_the_weights_of_the_uninterrupted_run(tmp_path):
    whole = make_trainer()
    whole.register_hooks([LRScheduler(scheduler=reference_schedule())])
    whole.train(0, 7)

    first = make_trainer()
    first.register_hooks([LRScheduler(scheduler=reference_schedule())])
    checkpointer = DetectionCheckpointer(first.model, str(tmp_path), trainer=first)
    stopped = raising(RuntimeError("stopped"))
    first.register_hooks([PeriodicCheckpointer(checkpointer, 4), hook_at(4, stopped)])
    with pytest.raises(RuntimeError, match="stopped"):
        first.train(0, 7)

    second = make_trainer()
    second.data_loader = [golden_data.feature(i, (4, 3)) for i in range(4, 7)]
    second.register_hooks([LRScheduler(scheduler=reference_schedule())])
    DetectionCheckpointer(second.model, str(tmp_path), trainer=second).resume_or_load("")
    second.train(second.iter + 1, 7)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], value)


def hook_at(iteration, function):
    def before_step(trainer):
        if trainer.iter == iteration:
            function()

    return hooks.CallbackHook(before_step=before_step)


# ------------------------------------------------------------------ the loop and its hooks


def test_hooks_run_in_order_of_registration_in_every_phase():
    trainer = make_trainer()
    log = []
    trainer.register_hooks([Recorder("a.", log), None, Recorder("b.", log)])
    trainer.train(0, 2)
    step = ["before_step", "after_backward", "after_step"]
    phases = ["before_train", *step, *step, "after_train"]
    assert log == [f"{name}.{phase}" for phase in phases for name in "ab"]


def test_hook_may_define_only_some_phases_and_knows_its_trainer():
    trainer = make_trainer()
    hook = HookBase()
    trainer.register_hooks([hook])
    trainer.train(0, 1)
    assert hook.trainer.iter == 1
    assert hook.state_dict() == {}


def test_trainer_without_run_step_says_so():
    with pytest.raises(NotImplementedError):
        TrainerBase().train(0, 1)


def test_registering_something_else_is_refused():
    with pytest.raises(AssertionError):
        make_trainer().register_hooks([print])


@pytest.mark.lite
def test_registering_something_else_says_what_it_is():
    with pytest.raises(AssertionError, match="must be a HookBase, got builtin_function"):
        make_trainer().register_hooks([print])


def test_iteration_is_in_the_storage_and_ends_at_max_iter():
    trainer = make_trainer()
    seen = []
    trainer.register_hooks(
        [
            hooks.CallbackHook(
                before_step=lambda t: seen.append(t.storage.iter),
                after_train=lambda t: seen.append(t.storage.iter),
            )
        ]
    )
    trainer.train(3, 5)
    assert seen == [3, 4, 5]
    assert (trainer.start_iter, trainer.iter, trainer.max_iter) == (3, 5, 5)


def test_callback_hook_calls_each_function_in_its_phase():
    trainer = make_trainer()
    log = []
    phases = ["before_train", "before_step", "after_step", "after_train"]
    trainer.register_hooks(
        [hooks.CallbackHook(**{p: lambda t, p=p: log.append((p, t.iter)) for p in phases})]
    )
    trainer.train(0, 1)
    assert log == [("before_train", 0), ("before_step", 0), ("after_step", 0), ("after_train", 1)]


def test_after_train_runs_after_a_failure_with_the_iteration_that_failed():
    trainer = make_trainer()
    seen = []
    trainer.register_hooks(
        [
            hooks.CallbackHook(after_train=lambda t: seen.append((t.iter, t.storage.iter))),
            hook_at(2, raising(RuntimeError("broken"))),
        ]
    )
    with pytest.raises(RuntimeError, match="broken"):
        trainer.train(0, 5)
    assert seen == [(2, 2)]


def test_failure_is_logged_with_its_traceback(caplog):
    trainer = make_trainer()
    trainer.register_hooks([hook_at(0, raising(RuntimeError("broken")))])
    with pytest.raises(RuntimeError):
        trainer.train(0, 1)
    record = next(r for r in caplog.records if "Exception during training:" in r.getMessage())
    assert record.exc_info[0] is RuntimeError


@pytest.mark.lite
def test_all_hooks_run_after_training_and_the_first_failure_is_raised():
    trainer = make_trainer()
    log = []
    trainer.register_hooks(
        [
            AfterTrain(raising(ValueError("first"))),
            AfterTrain(raising(RuntimeError("second"))),
            Recorder(log=log),
        ]
    )
    with pytest.raises(ValueError, match="first"):
        trainer.train(0, 1)
    assert log[-1] == "after_train"


@pytest.mark.lite
def test_failing_after_train_is_logged_once(caplog):
    trainer = make_trainer()
    trainer.register_hooks([AfterTrain(raising(ValueError("after")))])
    with pytest.raises(ValueError, match="after"):
        trainer.train(0, 1)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]


@pytest.mark.lite
def test_timer_that_was_never_started_ends_quietly(caplog):
    trainer = make_trainer()
    failing = hooks.CallbackHook(before_train=lambda trainer: 1 / 0)
    trainer.register_hooks([failing, IterationTimer()])
    with pytest.raises(ZeroDivisionError):
        trainer.train(0, 1)
    assert messages(caplog) == ["Exception during training:"]


@pytest.mark.lite
def test_failing_after_train_does_not_hide_what_ended_training():
    trainer = make_trainer()
    log = []
    trainer.register_hooks(
        [
            hook_at(0, raising(KeyError("training"))),
            AfterTrain(raising(ValueError("after"))),
            Recorder(log=log),
        ]
    )
    with pytest.raises(KeyError, match="training"):
        trainer.train(0, 1)
    assert log[-1] == "after_train"


def test_finished_run_does_no_step_but_evaluates_again():
    trainer = make_trainer()
    calls = []
    trainer.register_hooks(
        [
            LRScheduler(scheduler=LinearParamScheduler(1.0, 1.0)),
            EvalHook(0, lambda: calls.append(1)),
            hook_at(25, raising(RuntimeError("a step"))),
        ]
    )
    trainer.optimizer.param_groups[0]["initial_lr"] = 0.01
    trainer.train(25, 25)
    assert calls == [1]


@pytest.mark.lite
def test_run_resumed_beyond_a_shortened_schedule_still_evaluates():
    trainer = make_trainer()
    calls = []
    trainer.register_hooks(
        [
            LRScheduler(scheduler=LinearParamScheduler(1.0, 0.0)),
            EvalHook(0, lambda: calls.append(1)),
        ]
    )
    trainer.optimizer.param_groups[0]["initial_lr"] = 0.01
    trainer.train(26, 10)
    assert calls == [1]
    assert trainer.iter == 10


def test_state_holds_iteration_and_hooks_that_have_a_state():
    trainer = make_trainer()
    trainer.register_hooks([HookBase(), Recorder(state={"a": 1}), Recorder(state={"b": 2})])
    state = trainer.state_dict()
    assert list(state) == ["iteration", "hooks", "optimizer"]
    assert state["hooks"] == {"Recorder": {"a": 1}}


def test_loading_hands_states_to_hooks_by_class_name_and_warns_of_unknown_ones(caplog):
    trainer = make_trainer()
    hook = Recorder()
    trainer.register_hooks([hook])
    state = {**trainer.state_dict(), "iteration": 4, "hooks": {"Recorder": {"a": 1}, "Other": {}}}
    with caplog.at_level(logging.WARNING):
        trainer.load_state_dict(state)
    assert trainer.iter == 4
    assert hook.state == {"a": 1}
    assert any("Other" in message for message in messages(caplog))


# ------------------------------------------------------------------ SimpleTrainer


def test_single_loss_is_stored_as_total_loss():
    trainer = loss_trainer([2.0, 3.0])
    trainer.train(0, 2)
    values = [value for value, _ in trainer.storage.history("total_loss").values()]
    assert values == [2.0, 3.0]
    assert trainer.storage.latest()["data_time"][0] >= 0
    assert "rank_data_time" in trainer.storage.latest()


def test_losses_are_stored_by_name_with_their_sum():
    trainer = make_trainer()
    trainer.train(0, 1)
    latest = {name: value for name, (value, _) in trainer.storage.latest().items()}
    assert latest["total_loss"] == pytest.approx(latest["loss_a"] + latest["loss_b"])


def test_metrics_are_gathered_every_period():
    trainer = make_trainer(gather_metric_period=2)
    trainer.train(0, 5)
    assert [it for _, it in trainer.storage.history("loss_a").values()] == [1, 3]


@pytest.mark.lite
def test_period_of_metrics_must_be_positive():
    with pytest.raises(ValueError, match="gather_metric_period must be a positive number, got 0"):
        make_trainer(gather_metric_period=0)


@pytest.mark.parametrize("before", [False, True])
def test_gradients_do_not_add_up_over_iterations(before):
    trainer = loss_trainer([2.0, 3.0], zero_grad_before_forward=before)
    trainer.train(0, 2)
    assert trainer.model.weight.grad.item() == 3.0


def test_gradients_are_cleared_before_the_forward_pass_if_asked():
    trainer = loss_trainer([2.0, 3.0], zero_grad_before_forward=True)
    seen = []
    trainer.model.register_forward_pre_hook(
        lambda module, args: seen.append(module.weight.grad is None)
    )
    trainer.train(0, 2)
    assert seen == [True, True]


def test_model_is_put_into_training_mode_and_must_stay_there():
    model = OneLoss().eval()
    trainer = SimpleTrainer(model, [1.0, 1.0], torch.optim.SGD(model.parameters(), lr=0.1))
    assert model.training
    trainer.register_hooks([hook_at(1, model.eval)])
    with pytest.raises(AssertionError, match="eval"):
        trainer.train(0, 2)


def test_data_that_end_are_an_error():
    with pytest.raises(StopIteration):
        loss_trainer([1.0, 1.0]).train(0, 3)


@pytest.mark.lite
def test_error_for_data_that_end_says_where():
    with pytest.raises(StopIteration, match="ended before iteration 2 of 3"):
        loss_trainer([1.0, 1.0]).train(0, 3)


@pytest.mark.lite
@pytest.mark.parametrize("output", [{}, [torch.tensor(1.0)]])
def test_model_must_return_losses(output):
    class Detector(OneLoss):
        def forward(self, x):
            return output

    model = Detector()
    trainer = SimpleTrainer(model, [1.0], torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(TypeError, match="must return a loss tensor or a dict.* Detector returned"):
        trainer.train(0, 1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite_stops_before_the_update(value):
    trainer = loss_trainer([1.0, value])
    trainer.optimizer.param_groups[0]["lr"] = 0.5
    with pytest.raises(FloatingPointError, match=r"iteration=1!\sloss_dict = ") as error:
        trainer.train(0, 2)
    assert f"'total_loss': {value}" in str(error.value)
    assert trainer.model.weight.item() == 0.5  # 1 - 0.5 * 1: only the first update
    assert type(error.value).__name__ == GOLDEN["non_finite_loss"]


class LossOfBatch(OneLoss):
    """The loss is `x` of the first sample; what is infinite, the model itself finds."""

    def forward(self, batch):
        if math.isinf(batch[0]["x"]):
            raise FloatingPointError("boxes are infinite")
        return self.weight * batch[0]["x"]


def batch_trainer(*values):
    """A trainer on dataset dicts of two images, the first with the loss."""
    model = LossOfBatch()
    data = [
        [{"x": x, "image_id": 10 + i, "file_name": f"{i}.jpg"}, {"file_name": "second.jpg"}]
        for i, x in enumerate(values)
    ]
    return SimpleTrainer(model, data, torch.optim.SGD(model.parameters(), lr=0.0))


@pytest.mark.lite
def test_error_of_a_loss_that_is_not_finite_names_the_images():
    with pytest.raises(FloatingPointError) as error:
        batch_trainer(1.0, math.nan).train(0, 2)
    assert str(error.value) == (
        "Loss became infinite or NaN at iteration=1! loss_dict = {'total_loss': nan}; on rank 0, "
        "images ['11 1.jpg', 'second.jpg']"
    )


@pytest.mark.lite
def test_model_that_finds_its_numbers_not_finite_has_iteration_and_images_in_its_error():
    with pytest.raises(FloatingPointError) as error:
        batch_trainer(1.0, math.inf).train(0, 2)
    assert str(error.value) == (
        "boxes are infinite (iteration=1; on rank 0, images ['11 1.jpg', 'second.jpg'])"
    )


@pytest.mark.lite
def test_losses_of_a_step_reach_the_host_in_one_transfer(monkeypatch):
    transfers = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "item", raising(AssertionError("one transfer per loss")))
    monkeypatch.setattr(torch.Tensor, "tolist", lambda t: transfers.append(t.shape) or tolist(t))
    loss_trainer([1.0, 2.0]).train(0, 2)
    assert len(transfers) == 2


def test_losses_written_late_are_complete_after_training():
    trainer = make_trainer(async_write_metrics=True)
    trainer.train(0, 3)
    late = trainer.storage.history("total_loss").values()
    trainer = make_trainer()
    trainer.train(0, 3)
    assert late == trainer.storage.history("total_loss").values()


@pytest.mark.lite
@pytest.mark.parametrize("cls", [SimpleTrainer, AMPTrainer])
def test_losses_written_late_are_checked_one_iteration_later(cls):
    precision = {} if cls is SimpleTrainer else {"precision": torch.bfloat16}
    trainer = loss_trainer([1.0, math.nan, 1.0, 1.0], cls, async_write_metrics=True, **precision)
    with pytest.raises(FloatingPointError, match="iteration=1!"):
        trainer.train(0, 4)
    assert trainer.iter == 2


# ------------------------------------------------------------------ AMPTrainer


def test_state_of_amp_trainer_has_the_tree_of_the_reference():
    expected = dict(GOLDEN["state_AMPTrainer"])
    with torch.random.fork_rng():
        trainer = make_trainer(AMPTrainer)
    trainer.iter = 4
    actual = tree(trainer.state_dict())
    group = actual["optimizer"].pop("param_groups")[1]
    expected = {**expected, "optimizer": dict(expected["optimizer"])}
    expected_group = expected["optimizer"].pop("param_groups")[1]
    for name in ("lr", "betas", "weight_decay", "params"):
        assert_tree(group[name], expected_group[name])
    assert_tree(actual, expected)


@pytest.mark.lite
def test_amp_trainer_on_cpu_trains_in_float32_with_a_warning(caplog):
    amp, plain = make_trainer(AMPTrainer), make_trainer()
    assert any("training runs in float32" in message for message in messages(caplog))
    amp.train(0, 3)
    plain.train(0, 3)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(amp.model.state_dict()[name], value)


@pytest.mark.lite
def test_amp_trainer_on_cpu_runs_bfloat16_without_scaling(caplog):
    trainer = make_trainer(AMPTrainer, precision=torch.bfloat16)
    dtypes = []
    trainer.model.fc.register_forward_hook(lambda m, args, y: dtypes.append(y.dtype))
    trainer.train(0, 2)
    assert dtypes == [torch.bfloat16] * 2
    assert not trainer.grad_scaler.is_enabled()
    assert not messages(caplog)
    plain = make_trainer()
    plain.train(0, 2)
    for name, value in plain.model.state_dict().items():
        # bfloat16 has 8 bits: two AdamW steps of 0.01 may differ in the size of a step
        torch.testing.assert_close(trainer.model.state_dict()[name], value, atol=0.02, rtol=0.02)


@pytest.mark.lite
def test_given_scaler_is_used_logged_and_stored():
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    trainer = loss_trainer(
        [2.0, 2.0],
        AMPTrainer,
        precision=torch.bfloat16,
        grad_scaler=scaler,
        log_grad_scaler=True,
    )
    trainer.train(0, 2)
    assert trainer.storage.latest()["[metric]grad_scaler"][0] == 8.0
    assert trainer.model.weight.grad.item() == 2.0  # unscaled again before the update
    state = trainer.state_dict()
    assert state["grad_scaler"]["scale"] == 8.0
    other = loss_trainer([], AMPTrainer, precision=torch.bfloat16, grad_scaler=torch.amp.GradScaler("cpu"))  # fmt: skip  # noqa: E501
    other.load_state_dict(state)
    assert other.grad_scaler.get_scale() == 8.0


@pytest.mark.lite
@pytest.mark.parametrize("saved_by", ["SimpleTrainer", "unscaled AMPTrainer"])
def test_amp_trainer_resumes_from_a_checkpoint_without_scale(saved_by, caplog):
    cls = SimpleTrainer if saved_by == "SimpleTrainer" else AMPTrainer
    state = loss_trainer([], cls).state_dict()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    trainer = loss_trainer([], AMPTrainer, grad_scaler=scaler)
    trainer.load_state_dict({**state, "iteration": 3})
    assert trainer.iter == 3
    assert any("starts from 8.0" in message for message in messages(caplog))


def test_amp_trainer_refuses_several_devices_in_one_process():
    model = nn.DataParallel(OneLoss())
    with pytest.raises(AssertionError):
        AMPTrainer(model, [], torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.mark.lite
def test_refusal_of_several_devices_names_the_wrapper():
    model = nn.DataParallel(OneLoss())
    with pytest.raises(AssertionError, match="one device per process, got DataParallel"):
        AMPTrainer(model, [], torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.lite
def test_amp_trainer_stops_at_a_loss_that_is_not_finite(value):
    with pytest.raises(FloatingPointError, match="iteration=0!"):
        loss_trainer([value], AMPTrainer, precision=torch.bfloat16).train(0, 1)


# ------------------------------------------------------------------ hooks


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
def test_checkpoints_of_the_run_before_the_resume_are_deleted_in_time(tmp_path):
    run_with_checkpoints(tmp_path, 0, 4, period=2)
    run_with_checkpoints(tmp_path, 4, 8, period=2, max_to_keep=2)
    assert checkpoints(tmp_path) == ["model_0000005.pth", "model_0000007.pth", "model_final.pth"]


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


def run_with_best(folder, values, checkpointer_of=DetectionCheckpointer, start=0, state=None, **kw):
    trainer = loss_trainer([1.0] * len(values))
    checkpointer = checkpointer_of(trainer.model, str(folder), trainer=trainer)
    checkpointer.tag_last_checkpoint("model_0000000.pth")
    trainer.register_hooks(
        [
            Evaluation({start + i: value for i, value in enumerate(values)}),
            BestCheckpointer(1, checkpointer, "bbox/AP", **kw),
        ]
    )
    if state:
        trainer.load_state_dict(state)
    trainer.train(start, start + len(values))
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


@pytest.mark.lite
@pytest.mark.parametrize("checkpointer_of", [DetectionCheckpointer, Checkpointer])
def test_best_checkpoint_is_not_the_one_to_resume_from(tmp_path, checkpointer_of):
    run_with_best(tmp_path, [1.0], checkpointer_of, file_prefix="top")
    assert best_iteration(tmp_path, "top.pth") == 0
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000000.pth"


@pytest.mark.lite
def test_best_value_survives_a_resume(tmp_path):
    first = run_with_best(tmp_path, [5.0])
    run_with_best(tmp_path, [4.0], start=1, state=first.state_dict())
    assert best_iteration(tmp_path) == 0
    run_with_best(tmp_path, [6.0], start=1, state=first.state_dict())
    assert best_iteration(tmp_path) == 1


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


# ------------------------------------------------------------------ defaults


def test_argument_parser_gives_the_values_of_the_reference():
    expected = dict(GOLDEN["default_argument_parser"])
    line = "--config-file c.py --resume --num-gpus 2 train.max_iter=3 x.y=1"
    actual = vars(default_argument_parser().parse_args(line.split()))
    port = int(actual.pop("dist_url").removeprefix("tcp://127.0.0.1:"))
    assert port == 49152 + hash(os.getuid()) % 16384
    del expected["dist_url"]
    assert actual == expected


def test_argument_parser_has_defaults_for_everything():
    actual = vars(default_argument_parser().parse_args([]))
    assert (actual["config_file"], actual["num_gpus"], actual["opts"]) == ("", 1, [])
    assert (actual["num_machines"], actual["machine_rank"]) == (1, 0)
    assert not actual["resume"] and not actual["eval_only"]


def test_argument_parser_shows_the_epilog_in_its_help():
    assert "as you like it" in default_argument_parser("as you like it").format_help()
    assert "--num-gpus 8" in default_argument_parser().format_help()


@pytest.mark.lite
def test_flag_behind_an_override_is_refused(capsys):
    with pytest.raises(SystemExit) as exit_:
        default_argument_parser().parse_args(["--config-file", "c.py", "a.b=1", "--resume"])
    assert exit_.value.code == 2
    assert "--resume comes after the override 'a.b=1'; put all flags before" in (
        capsys.readouterr().err
    )


def golden_config(output_dir, seed=-1):
    return OmegaConf.create(
        {
            "train": {
                "output_dir": str(output_dir),
                "max_iter": 10,
                "seed": seed,
                "amp": {"enabled": False},
                "checkpointer": {"period": 5, "max_to_keep": 3},
            },
            "model": LazyCall(nn.Linear)(in_features=3, out_features="${..dim}", bias=True),
            "dim": 4,
            "optimizer": LazyCall(torch.optim.AdamW)(params=None, lr=1e-4, betas=(0.9, 0.999)),
            "shape": LazyCall(ShapeSpec)(channels=3),
            "names": ["a", "b", [1, 2.5, None, True]],
        },
        flags={"allow_objects": True},
    )


def test_setup_writes_the_config_of_the_reference(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    default_setup(golden_config("out_dir", seed=7), ARGUMENTS)
    assert sorted(os.listdir("out_dir")) == GOLDEN["default_setup_files"]
    expected = GOLDEN["config_yaml"].replace("seed: -1", "seed: 7")
    assert Path("out_dir/config.yaml").read_text() == expected
    expected_model = GOLDEN["config_yaml_reload"]
    loaded = LazyConfig.load("out_dir/config.yaml")
    assert type(loaded).__name__ == expected_model["type"]
    assert loaded.model._target_ == expected_model["target"]
    assert type(instantiate(loaded.optimizer._target_)) is str
    loaded.model.out_features = 4
    assert type(instantiate(loaded.model)).__name__ == expected_model["instantiated"]


def test_config_is_saved_as_the_text_of_the_reference(tmp_path):
    LazyConfig.save(golden_config("out_dir"), str(tmp_path / "config.yaml"))
    assert (tmp_path / "config.yaml").read_text() == GOLDEN["config_yaml"]


def test_config_with_a_lambda_is_saved_in_the_files_of_the_reference(tmp_path):
    cfg = OmegaConf.create({"f": LazyCall(lambda x: x)(x=1)}, flags={"allow_objects": True})
    LazyConfig.save(cfg, str(tmp_path / "lam.yaml"))
    assert sorted(os.listdir(tmp_path)) == GOLDEN["config_with_lambda_files"]


def test_setup_logs_rank_environment_arguments_and_config_file(tmp_path):
    config_file = tmp_path / "my_config.py"
    config_file.write_text("train = dict(seed=1)\n")
    arguments = argparse.Namespace(config_file=str(config_file), eval_only=False, opts=["a.b=1"])
    default_setup(golden_config(tmp_path / "out", seed=1), arguments)
    text = (tmp_path / "out" / "log.txt").read_text()
    parts = [
        "Rank of current process: 0. World size: 1",
        "Environment info:",
        "Command line arguments: ",
        f"Contents of args.config_file={config_file}:",
        "train = dict(seed=1)",
        "Full config saved to ",
    ]
    assert [text.find(part) >= 0 for part in parts] == [True] * len(parts)
    assert sorted(parts, key=text.find) == parts
    assert "a.b=1" in text


def test_setup_seeds_the_generators_with_the_configured_seed(tmp_path):
    draws = []
    for _ in range(2):
        default_setup(golden_config(tmp_path, seed=3), ARGUMENTS)
        draws.append((np.random.rand(), torch.rand(()).item()))
    assert draws[0] == draws[1]


@pytest.mark.lite
@pytest.mark.parametrize("configured", [-1, None, "absent"])
def test_generated_seed_is_logged_and_stored_and_repeats_the_run(tmp_path, configured):
    cfg = golden_config(tmp_path / "first", seed=configured)
    if configured == "absent":
        del cfg.train["seed"]
    OmegaConf.set_readonly(cfg, True)
    before = OmegaConf.to_yaml(cfg)
    default_setup(cfg, ARGUMENTS)
    draw = torch.rand(()).item()
    assert OmegaConf.to_yaml(cfg) == before
    seed = LazyConfig.load(str(tmp_path / "first" / "config.yaml")).train.seed
    log = (tmp_path / "first" / "log.txt").read_text()
    assert f"Using a generated random seed {seed}" in log
    default_setup(golden_config(tmp_path / "second", seed=seed), ARGUMENTS)
    assert torch.rand(()).item() == draw


@pytest.mark.lite
@pytest.mark.parametrize("configured", [-1, 5])
def test_setup_leaves_an_interpolated_seed_as_it_is_written(tmp_path, configured):
    cfg = golden_config(tmp_path, seed="${number}")
    cfg.number = configured
    before = OmegaConf.to_yaml(cfg)
    default_setup(cfg, ARGUMENTS)
    assert OmegaConf.to_yaml(cfg) == before
    saved = OmegaConf.to_container(LazyConfig.load(str(tmp_path / "config.yaml")))["train"]["seed"]
    assert saved == "${number}" if configured == 5 else saved >= 0


@pytest.mark.lite
def test_two_generated_seeds_differ(tmp_path):
    for name in ("a", "b"):
        np.random.seed(0)
        default_setup(golden_config(tmp_path / name), ARGUMENTS)
    seeds = [LazyConfig.load(str(tmp_path / n / "config.yaml")).train.seed for n in ("a", "b")]
    assert seeds[0] != seeds[1]


@pytest.mark.parametrize("eval_only, expected", [(False, True), (True, False)])
def test_setup_sets_the_cudnn_benchmark_for_training_only(tmp_path, eval_only, expected):
    torch.backends.cudnn.benchmark = False
    cfg = golden_config(tmp_path, seed=1)
    cfg.train.cudnn_benchmark = True
    default_setup(cfg, argparse.Namespace(config_file="", eval_only=eval_only))
    assert torch.backends.cudnn.benchmark == expected


def test_setup_sets_the_precision_of_float32(tmp_path):
    cfg = golden_config(tmp_path, seed=1)
    cfg.train.float32_precision = "medium"
    default_setup(cfg, ARGUMENTS)
    assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.lite
@pytest.mark.parametrize("output_dir", ["", None])
def test_empty_output_dir_is_refused(output_dir):
    cfg = OmegaConf.create({"train": {"output_dir": output_dir, "seed": 1}})
    with pytest.raises(ValueError, match="train.output_dir is empty"):
        default_setup(cfg, ARGUMENTS)


def test_config_without_output_dir_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    default_setup(OmegaConf.create({"train": {"seed": 1}}), ARGUMENTS)
    assert os.listdir(tmp_path) == []


@pytest.mark.lite
def test_output_dir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="train.output_dir='.*file/out' cannot be written"):
        default_setup(golden_config(tmp_path / "file" / "out"), ARGUMENTS)


@pytest.mark.lite
def test_resume_keeps_the_previous_config_if_it_differs(tmp_path):
    resume = argparse.Namespace(config_file="", resume=True, eval_only=False)
    cfg = golden_config(tmp_path, seed=1)
    default_setup(cfg, ARGUMENTS)
    default_setup(cfg, resume)
    assert sorted(os.listdir(tmp_path)) == ["config.yaml", "log.txt"]
    for seed in (2, 3):
        cfg.train.seed = seed
        default_setup(cfg, resume)
    seeds = {
        name: OmegaConf.create((tmp_path / name).read_text()).train.seed
        for name in os.listdir(tmp_path)
        if name.startswith("config.yaml")
    }
    assert seeds == {"config.yaml": 3, "config.yaml.1": 1, "config.yaml.2": 2}


@pytest.mark.lite
def test_new_run_replaces_the_config_of_an_old_one(tmp_path):
    for seed in (1, 2):
        default_setup(golden_config(tmp_path, seed=seed), ARGUMENTS)
    assert sorted(os.listdir(tmp_path)) == ["config.yaml", "log.txt"]


def test_default_writers_make_the_folder_and_the_metrics_file(tmp_path):
    writers = default_writers(str(tmp_path / "new"), max_iter=3)
    names = [type(writer).__name__ for writer in writers]
    assert names == ["CommonMetricPrinter", "JSONWriter", "TensorboardXWriter"]
    assert os.listdir(tmp_path / "new") == ["metrics.json"]
    with EventStorage():
        for writer in writers:
            writer.close()


@pytest.mark.lite
def test_default_writers_leave_out_tensorboard_where_it_is_not_installed(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    writers = default_writers(str(tmp_path))
    assert len(writers) == 2
    assert [m for m in messages(caplog) if "tensorboard is not installed" in m]
    for writer in writers:
        writer.close()


@pytest.mark.lite
def test_default_writers_need_a_folder():
    with pytest.raises(ValueError, match="set train.output_dir"):
        default_writers("")


def test_model_stays_as_it_is_in_a_single_process():
    model = OneLoss()
    assert create_ddp_model(model, fp16_compression=True, find_unused_parameters=True) is model
    assert create_ddp_model_of_defaults is create_ddp_model


@pytest.mark.lite
@pytest.mark.parametrize("name", ["DefaultTrainer", "DefaultPredictor", "PreciseBN"])
def test_names_that_are_left_out_are_explained(name):
    import detectron2.engine

    with pytest.raises(ImportError, match=f"{name} is not part of detectron2-lite"):
        getattr(detectron2.engine, name)


def test_names_are_importable_from_the_package():
    import detectron2.engine as engine

    assert inspect.ismodule(engine.hooks)
    assert engine.EvalHook is engine.hooks.EvalHook
    assert engine.HookBase is engine.train_loop.HookBase
