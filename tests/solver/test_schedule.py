"""The schedule of segmentation against the points of the released system."""

import pytest
from config_files import load_stem
from fvcore.common.param_scheduler import LinearParamScheduler
from segmentation_models import load

from detectron2.config import instantiate
from mimdet.solver.schedule import PolynomialDecay, WarmupFactor

POINTS = load("lr_schedule.json")


@pytest.mark.parametrize("group", [0, 1])
@pytest.mark.parametrize("name", ["fastmim_160k", "toy_power_min_lr"])
def test_rates_are_those_of_the_released_system(name, group):
    case = POINTS[name]
    lr = case["base_lr"] * case["scales"][group]  # of the group
    iterations = case["max_iters"]
    schedule = WarmupFactor(
        PolynomialDecay(case["power"], end_value=case["min_lr"] / lr),
        warmup_factor=case["warmup_ratio"],
        warmup_length=case["warmup_iters"] / iterations,
    )
    assert len(case["points"]) >= 10
    for iteration, *rates in case["points"]:
        assert lr * schedule(iteration / iterations) == pytest.approx(rates[group], rel=1e-9)


def test_the_config_has_the_released_schedule():
    cfg, case = load_stem("upernet_vit_base_ade20k_160k"), POINTS["fastmim_160k"]
    assert (cfg.train.max_iter, cfg.optimizer.lr) == (160_000, 3e-4)
    multiplier = instantiate(cfg.lr_multiplier)
    for iteration, rate, _ in case["points"]:
        value = cfg.optimizer.lr * multiplier(iteration / cfg.train.max_iter)
        assert value == pytest.approx(rate, rel=1e-9)


def test_detectron2s_warmup_is_another_one():
    case = POINTS["fastmim_160k"]
    lower = dict(case["detectron2_warmup_on_polynomial_multiplier"])[749]
    schedule = WarmupFactor(PolynomialDecay(), 1e-6, 1500 / 160_000)
    assert 0.003 < schedule(749 / 160_000) / lower - 1 < 0.0094


def test_any_schedule_can_be_warmed_up_and_none_is_without_a_warmup():
    falling = LinearParamScheduler(1.0, 0.0)
    schedule = WarmupFactor(falling, warmup_factor=0.5, warmup_length=0.5)
    assert [schedule(x) for x in (0, 0.25, 0.5, 0.75)] == [0.5, 0.75 * 0.75, 0.5, 0.25]
    assert WarmupFactor(falling, 0.5, 0.0)(0.0) == 1


@pytest.mark.parametrize("length", [-0.1, 1500])
def test_a_warmup_in_iterations_is_refused(length):
    with pytest.raises(ValueError, match=r"\[0, 1\].*lr_multiplier\.warmup_length"):
        WarmupFactor(PolynomialDecay(), 0.0, length)
