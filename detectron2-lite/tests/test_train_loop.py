import json
import logging
import math
import os
from pathlib import Path

import golden_data
import numpy as np
import pytest
import torch
from fvcore.common.param_scheduler import LinearParamScheduler, MultiStepParamScheduler
from torch import nn
from toy_trainers import (
    AfterTrain,
    OneLoss,
    Recorder,
    assert_tree,
    hook_at,
    loss_trainer,
    make_trainer,
    messages,
    raising,
    tree,
)

import detectron2
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import (
    AMPTrainer,
    EvalHook,
    HookBase,
    IterationTimer,
    LRScheduler,
    PeriodicCheckpointer,
    PeriodicWriter,
    SimpleTrainer,
    TrainerBase,
    default_writers,
    hooks,
)
from detectron2.solver import WarmupParamScheduler
from detectron2.utils.events import EventStorage

GOLDEN = golden_data.load("engine")[1]


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


@pytest.mark.lite
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


def test_a_data_loader_is_replaced_in_the_middle_of_a_training():
    trainer = loss_trainer([1.0] * 5)
    built = []

    def build():
        built.append(trainer.iter)
        return [torch.tensor(7.0)] * 3

    trainer.register_hooks([hook_at(2, lambda: trainer.reset_data_loader(build))])
    trainer.train(0, 5)
    assert built == [2]
    values = [value for value, _ in trainer.storage.history("total_loss").values()]
    assert values == [1.0, 1.0, 7.0, 7.0, 7.0]


def test_the_iterator_over_the_data_is_that_of_the_steps():
    trainer = loss_trainer([1.0, 2.0, 3.0])
    assert next(trainer._data_loader_iter) == 1.0
    trainer.train(0, 2)
    values = [value for value, _ in trainer.storage.history("total_loss").values()]
    assert values == [2.0, 3.0]


def test_losses_can_be_written_without_a_trainer():
    with EventStorage(5) as storage:
        SimpleTrainer.write_metrics({"loss": torch.tensor(2.0)}, 0.5, 4, prefix="val_")
        with pytest.raises(FloatingPointError, match="iteration=4!"):
            SimpleTrainer.write_metrics({"loss": torch.tensor(math.inf)}, 0.5, 4)
    assert storage.latest()["val_total_loss"] == (2.0, 4)
    assert storage.latest()["data_time"] == (0.5, 4)


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
    # The reference ran without CUDA, where upstream switches its scaler off, whose state is {}.
    if "lite" in detectron2.__version__:
        expected["grad_scaler"] = torch.amp.GradScaler("cpu").state_dict()
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
        [2.0, 2.0], AMPTrainer, precision=torch.bfloat16, grad_scaler=scaler, log_grad_scaler=True
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
@pytest.mark.parametrize("scaler_state", [{}, {"grad_scaler": {}}])  # of SimpleTrainer, +lite.1
def test_amp_trainer_resumes_from_a_checkpoint_without_scale(scaler_state, caplog):
    state = loss_trainer([]).state_dict() | scaler_state
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
