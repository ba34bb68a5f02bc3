"""Learning-rate schedules and parameter groups against stored numbers and by hand."""

import golden_data
import pytest
import torch
from fvcore.common.param_scheduler import (
    ConstantParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
)
from torch import nn

from detectron2.layers import FrozenBatchNorm2d
from detectron2.layers.batch_norm import LayerNorm
from detectron2.solver import (
    LRMultiplier,
    LRScheduler,
    WarmupParamScheduler,
    get_default_optimizer_params,
)

_, GOLDEN = golden_data.load("solver")


def _scheduler(case: dict):
    if "scheduler" in case:
        arguments = case["scheduler"].removeprefix("CosineParamScheduler(").removesuffix(")")
        return CosineParamScheduler(*map(float, arguments.split(",")))
    return MultiStepParamScheduler(
        case["values"], milestones=case["milestones"], num_updates=case["num_updates"]
    )


def _num_iters(case: dict) -> int:
    return case.get("num_iters") or case["num_updates"] or case["milestones"][-1]


@pytest.mark.parametrize("case", GOLDEN["schedulers"], ids=lambda case: case["name"])
def test_schedules_equal_stored_values(case):
    scheduler = WarmupParamScheduler(
        _scheduler(case),
        case["warmup_factor"],
        case["warmup_length"],
        case.get("warmup_method", "linear"),
        case.get("rescale_interval", False),
    )
    num_iters = _num_iters(case)
    actual = [scheduler(iteration / num_iters) for iteration, _ in case["iter_value"]]
    expected = [value for _, value in case["iter_value"]]
    assert actual == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_cosine_schedule_of_a_long_training_equals_the_published_numbers():
    scheduler = WarmupParamScheduler(CosineParamScheduler(1, 0), 0.001, 0.25 / 100)
    expected = {
        0: 0.001,
        1: 0.003167288578,
        100: 0.2177288578,
        460: 0.9979527458,
        461: 0.9999845746,
        1000: 0.9999274186,
        92187: 0.5000042598,
        184374: 7.258e-11,
    }
    actual = {iteration: scheduler(iteration / 184375) for iteration in expected}
    assert actual == pytest.approx(expected, rel=1e-6, abs=1e-13)


def test_1x_schedule_warms_up_for_1000_iterations_and_drops_at_60000_and_80000():
    steps = MultiStepParamScheduler([1, 0.1, 0.01], milestones=[60000, 80000], num_updates=90000)
    scheduler = WarmupParamScheduler(steps, 0.001, 1000 / 90000)
    expected = {0: 0.001, 1: 0.001999, 999: 0.999001, 1000: 1, 60000: 0.1, 80000: 0.01}
    assert {i: scheduler(i / 90000) for i in expected} == pytest.approx(expected)


def test_rescaled_warmup_ends_at_the_start_of_the_schedule():
    scheduler = WarmupParamScheduler(LinearParamScheduler(1, 0), 0.0, 0.5, rescale_interval=True)
    assert [scheduler(where) for where in (0, 0.25, 0.75)] == pytest.approx([0, 0.5, 0.5])


def test_no_warmup_leaves_the_schedule_alone():
    scheduler = WarmupParamScheduler(LinearParamScheduler(1, 0), 0.1, 0.0)
    assert [scheduler(where) for where in (0, 0.5)] == pytest.approx([1, 0.5])


def test_unknown_warmup_method_is_refused():
    with pytest.raises(ValueError, match="burnin"):
        WarmupParamScheduler(ConstantParamScheduler(1), 0.1, 0.1, "burnin")


@pytest.mark.lite
@pytest.mark.parametrize("length", [250, -0.1])
def test_warmup_length_in_iterations_is_refused(length):
    with pytest.raises(ValueError, match=r"warmup_length is a share .* \[0, 1\], got"):
        WarmupParamScheduler(CosineParamScheduler(1, 0), 0.1, length)


def _train(optimizer, scheduler, num_steps: int) -> list[list[float]]:
    """Learning rate of each group in each iteration."""
    used = []
    for _ in range(num_steps):
        used.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return used


def _sgd(*learning_rates: float) -> torch.optim.SGD:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in learning_rates]
    return torch.optim.SGD(groups, lr=1.0)


@pytest.mark.parametrize("case", GOLDEN["lr_multiplier"])
def test_lr_multiplier_equals_stored_learning_rates(case):
    optimizer = _sgd(*case["base_lrs"])
    steps = MultiStepParamScheduler(
        case["values"], milestones=case["milestones"], num_updates=case["num_updates"]
    )
    multiplier = WarmupParamScheduler(steps, case["warmup_factor"], case["warmup_length"])
    scheduler = LRMultiplier(optimizer, multiplier, case["max_iter"])
    assert isinstance(scheduler, LRScheduler)
    used = _train(optimizer, scheduler, case["max_iter"])
    for actual, expected in zip(used, case["lr_used_at_iteration"], strict=True):
        assert actual == pytest.approx(expected, rel=1e-4)
    assert scheduler.state_dict() == case["state_dict_after"]
    assert set(optimizer.param_groups[0]) == set(case["param_group_keys"])


def test_lr_multiplier_multiplies_the_initial_learning_rate():
    optimizer = _sgd(2.0)
    scheduler = LRMultiplier(optimizer, LinearParamScheduler(1, 0), max_iter=10)
    assert _train(optimizer, scheduler, 4) == [pytest.approx([lr]) for lr in (2.0, 1.8, 1.6, 1.4)]
    assert scheduler.last_epoch == 4


def test_lr_multiplier_continues_after_the_last_iteration_that_is_done():
    optimizer = _sgd(2.0)
    optimizer.param_groups[0]["initial_lr"] = 2.0
    scheduler = LRMultiplier(optimizer, LinearParamScheduler(1, 0), max_iter=10, last_iter=3)
    assert _train(optimizer, scheduler, 2) == [pytest.approx([lr]) for lr in (1.2, 1.0)]


def test_lr_multiplier_state_survives_loading():
    optimizer = _sgd(2.0)
    first = LRMultiplier(optimizer, LinearParamScheduler(1, 0), max_iter=10)
    _train(optimizer, first, 3)
    second = LRMultiplier(optimizer, LinearParamScheduler(1, 0), max_iter=10)
    second.load_state_dict(first.state_dict())
    assert second.last_epoch == 3
    assert second.get_lr() == pytest.approx([1.4])


def test_lr_multiplier_refuses_a_plain_function():
    with pytest.raises(ValueError, match="ParamScheduler"):
        LRMultiplier(_sgd(1.0), lambda where: 1.0, max_iter=10)


@pytest.mark.lite
def test_lr_multiplier_refuses_a_training_without_iterations():
    with pytest.raises(ValueError, match="max_iter must be positive, got 0"):
        LRMultiplier(_sgd(1.0), ConstantParamScheduler(1), max_iter=0)


class _Net(nn.Module):
    """The small net of the stored groups: root parameters, norms, a tied and a frozen layer."""

    def __init__(self):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 8))
        self.gamma = nn.Parameter(torch.zeros(8))
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.frozen = FrozenBatchNorm2d(8)
        self.cln = LayerNorm(8)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"norm": nn.LayerNorm(8), "fc": nn.Linear(8, 8)}) for _ in range(2)
        )
        self.gn = nn.GroupNorm(2, 8)
        self.head = nn.Linear(8, 2)
        self.tied = self.head
        self.fixed = nn.Linear(2, 2).requires_grad_(False)


def _layer_decay(rate: float, names: list[str]):
    def factor(name: str) -> float:
        names.append(name)
        powers = {"blocks.0": 2, "blocks.1": 1, "conv": 3, ".pos": 3}
        return rate ** next((p for start, p in powers.items() if name.startswith(start)), 0)

    return factor


def test_the_net_of_these_tests_is_that_of_the_stored_groups():
    net = _Net()
    described = [
        [name, list(p.shape), p.requires_grad]
        for name, p in net.named_parameters(remove_duplicate=False)
    ]
    assert described == GOLDEN["net"]["named_parameters"]
    for name, type_name in GOLDEN["net"]["module_types"].items():
        assert type(net.get_submodule(name)).__name__ == type_name


@pytest.mark.parametrize("case", GOLDEN["param_groups"], ids=lambda case: case["name"])
def test_parameter_groups_equal_stored_groups(case):
    net, kwargs, names = _Net(), dict(case["kwargs"]), []
    if "lr_factor_func" in case:
        kwargs["lr_factor_func"] = _layer_decay(case["rate"], names)
    groups = get_default_optimizer_params(net, **kwargs)
    name_of = {p: name for name, p in net.named_parameters()}
    assert len(groups) == len(case["groups"])
    for actual, expected in zip(groups, case["groups"], strict=True):
        assert [name_of[p] for p in actual["params"]] == expected["params"]
        settings = {key: value for key, value in actual.items() if key != "params"}
        assert settings == pytest.approx({k: v for k, v in expected.items() if k != "params"})
    assert names == (GOLDEN["names_passed_to_lr_factor_func"] if names else [])


def test_a_parameter_that_two_modules_own_is_optimised_once_with_the_settings_of_the_first():
    first, second, norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4)
    second.weight = first.weight
    norm.bias = second.bias  # a bias with a norm as its second owner
    net = nn.Sequential(first, second, norm)
    groups = get_default_optimizer_params(net, base_lr=1.0, weight_decay=0.1, weight_decay_norm=0.0)
    names = {id(p): name for name, p in net.named_parameters()}
    found = [(names[id(p)], g["weight_decay"]) for g in groups for p in g["params"]]
    expected = {"0.weight": 0.1, "0.bias": 0.1, "1.bias": 0.1, "2.weight": 0.0}
    assert len(found) == len(expected) and dict(found) == expected


def test_the_groups_fit_an_optimizer():
    torch.optim.AdamW(get_default_optimizer_params(_Net(), weight_decay_norm=0.0), lr=0.1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"bias_lr_factor": 2.0}, "base_lr"),
        ({"lr_factor_func": lambda name: 1.0}, "base_lr"),
        (
            {"weight_decay_bias": 0.0, "overrides": {"bias": {"lr": 1.0}}},
            "Conflicting overrides for 'bias'",
        ),
    ],
)
def test_contradictory_settings_are_refused(kwargs, message):
    assert set(GOLDEN["errors"].values()) == {"ValueError"}
    if message == "base_lr" and "lr_factor_func" in kwargs:
        message = r"base_lr|lr_factor_func"
    with pytest.raises(ValueError, match=message):
        get_default_optimizer_params(_Net(), **kwargs)


@pytest.mark.lite
def test_overrides_of_the_caller_are_not_changed():
    overrides = {"pos_embed": {"weight_decay": 0.0}}
    get_default_optimizer_params(_Net(), weight_decay_bias=0.0, overrides=overrides)
    assert overrides == {"pos_embed": {"weight_decay": 0.0}}


@pytest.mark.lite
def test_overrides_may_hold_lists():
    overrides = {"gamma": {"betas": [0.5, 0.9]}, "pos_embed": {"betas": [0.5, 0.9]}}
    groups = get_default_optimizer_params(_Net(), overrides=overrides)
    assert [group.get("betas") for group in groups] == [[0.5, 0.9], None]
    assert len(groups[0]["params"]) == 2


@pytest.mark.lite
def test_a_name_that_is_left_out_explains_itself():
    with pytest.raises(ImportError, match="build_optimizer is not part of detectron2-lite"):
        from detectron2.solver import build_optimizer  # noqa: F401
