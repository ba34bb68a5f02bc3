"""Parameter groups and learning-rate schedules of MIMDet against the published configurations."""

import pytest
import torch
from golden_models import CONFIGS, load, names_sha256
from omegaconf import DictConfig
from torch import nn

from detectron2.config import LazyConfig, instantiate
from detectron2.solver import LRMultiplier
from mimdet.solver.param_groups import get_fpn_model_parameters

GOLDEN = {
    "v10": load("optim/optim_lr_mimdet_v10.json"),
    "v12": load("optim/optim_lr_mimdet_v12_and_benchmarking.json"),
}
SCHEDULES = [
    (variant, name)
    for variant, golden in GOLDEN.items()
    for name in golden["lr"]
    if name.startswith("mimdet")
]
GROUPS = [(variant, name) for variant, name in SCHEDULES if name in GOLDEN[variant]["groups"]]


def config(variant: str, name: str) -> DictConfig:
    stem = GOLDEN[variant]["lr"][name]["config"].removesuffix(".py")
    stem += "_convfill" if variant == "v12" else ""
    return LazyConfig.load(str(CONFIGS / "mimdet" / f"{stem}.py"))


def model_and_optimizer(cfg: DictConfig) -> tuple[nn.Module, torch.optim.Optimizer]:
    with torch.device("meta"):
        model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    return model, instantiate(cfg.optimizer)


@pytest.mark.parametrize("variant, name", GROUPS)
def test_groups_are_the_published_ones_in_their_order(variant, name):
    expected, schedule = GOLDEN[variant]["groups"][name], GOLDEN[variant]["lr"][name]
    cfg = config(variant, name)
    # v1.0's files evaluate to four times the rate that was meant; its groups are right
    cfg.optimizer.lr = schedule["optimizer_lr"]
    model, optimizer = model_and_optimizer(cfg)
    assert type(optimizer).__name__ == expected["optimizer"]
    for key in ("lr", "betas", "eps", "weight_decay", "amsgrad"):
        value = optimizer.defaults[key]
        assert (list(value) if key == "betas" else value) == expected["defaults"][key], key
    names = {id(parameter): n for n, parameter in model.named_parameters()}
    assert len(optimizer.param_groups) == expected["n_param_groups"]
    for group, wanted in zip(optimizer.param_groups, expected["groups_in_order"], strict=True):
        assert group["lr"] == pytest.approx(wanted["lr"], rel=1e-12)
        assert group["weight_decay"] == wanted["weight_decay"]
        assert len(group["params"]) == wanted["n_tensors"]
        assert sum(p.numel() for p in group["params"]) == wanted["n_elements"]
        members = [names[id(p)] for p in group["params"]]
        assert names_sha256(members) == wanted["sorted_names_sha256"]
        assert sorted(members)[:2] == wanted["first"] and sorted(members)[-1:] == wanted["last"]


@pytest.mark.parametrize("variant, name", SCHEDULES)
def test_schedule_is_the_published_one(variant, name):
    expected, cfg = GOLDEN[variant]["lr"][name], config(variant, name)
    assert cfg.train.max_iter == expected["max_iter"]
    assert cfg.train.eval_period == expected["eval_period"]
    assert cfg.train.checkpointer.period == expected["checkpoint_period"]
    assert cfg.dataloader.train.total_batch_size == expected["total_batch_size"]
    assert cfg.model.backbone.bottom_up.sample_ratio == expected["sample_ratio"]
    assert cfg.lr_multiplier.warmup_length == pytest.approx(expected["warmup_length"], rel=1e-12)
    assert cfg.lr_multiplier.warmup_factor == expected["warmup_factor"]
    warmup = cfg.lr_multiplier.warmup_length * cfg.train.max_iter
    assert warmup == pytest.approx(expected["warmup_iterations"], rel=1e-12)
    assert list(cfg.lr_multiplier.scheduler.milestones) == expected["milestones"]
    scheduler = instantiate(cfg.lr_multiplier)
    for iteration, multiplier in expected["multiplier_at"].items():
        actual = scheduler(int(iteration) / expected["max_iter"])
        assert actual == pytest.approx(multiplier, rel=1e-9, abs=1e-12), iteration


@pytest.mark.parametrize("variant, name", SCHEDULES)
def test_the_rates_of_the_first_iterations_are_the_published_ones(variant, name):
    expected, cfg = GOLDEN[variant]["lr"][name], config(variant, name)
    cfg.optimizer.lr = expected["optimizer_lr"]
    _, optimizer = model_and_optimizer(cfg)
    scheduler = LRMultiplier(optimizer, instantiate(cfg.lr_multiplier), cfg.train.max_iter)
    for wanted in expected["distinct_group_lr_first_3_iterations"]:
        distinct = sorted({group["lr"] for group in optimizer.param_groups})
        # stored with 12 decimals
        assert distinct == pytest.approx(wanted, abs=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("variant, name", SCHEDULES)
def test_base_rate_is_8e_5_and_half_of_that_at_batch_16(variant, name):
    cfg = config(variant, name)
    assert cfg.optimizer.lr == (4e-5 if name.endswith("bs16") else 8e-5)
    assert cfg.optimizer.params.base_lr == cfg.optimizer.lr
    assert cfg.optimizer.params.weight_decay == cfg.optimizer.weight_decay == 0.1
    assert cfg.optimizer.params.multiplier == (3.5 if variant == "v12" and "large" in name else 2)


# --- by hand --------------------------------------------------------------------------------------


class Part(nn.Module):
    """One weight, one bias, one norm and one position table."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 2))


def small_detector() -> nn.Module:
    model, bottom_up, encoder = nn.Module(), nn.Module(), nn.Module()
    encoder.patch_embed, encoder.block = Part(), Part()
    bottom_up.encoder, bottom_up.decoder = encoder, Part()
    model.backbone = nn.Module()
    model.backbone.bottom_up = bottom_up
    return model


def groups_by_name(model: nn.Module, **arguments) -> dict[str, tuple[float, float]]:
    """{parameter name: (lr, weight decay)}."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = get_fpn_model_parameters(model, **arguments)
    return {
        names[id(parameter)].removeprefix("backbone.bottom_up."): (g["lr"], g["weight_decay"])
        for g in groups
        for parameter in g["params"]
    }


def test_stem_encoder_and_rest_learn_at_three_speeds():
    rates = groups_by_name(small_detector(), base_lr=1.0, multiplier=4.0, weight_decay=0.1)
    assert rates["encoder.patch_embed.fc.weight"] == (1.0, 0.1)
    assert rates["encoder.block.fc.weight"] == (0.25, 0.1)
    assert rates["decoder.fc.weight"] == (4.0, 0.1)


def test_biases_and_one_dimensional_tensors_are_not_decayed():
    rates = groups_by_name(small_detector(), weight_decay=0.1)
    decayed = {name for name, (_, decay) in rates.items() if decay}
    assert decayed == {name for name in rates if name.endswith((".fc.weight", ".pos_embed"))}


def test_names_of_the_skip_list_are_matched_by_their_last_component():
    rates = groups_by_name(small_detector(), weight_decay=0.1, skip_list=["pos_embed"])
    assert rates["decoder.pos_embed"][1] == rates["encoder.block.pos_embed"][1] == 0
    assert rates["decoder.fc.weight"][1] == 0.1


def test_norm_weights_of_two_dimensions_have_their_own_decay():
    model = small_detector()
    model.norm = nn.Linear(2, 2)
    rates = groups_by_name(model, weight_decay=0.1, weight_decay_norm=0.3)
    assert rates["norm.weight"][1] == 0.3
    assert rates["norm.bias"][1] == 0


def test_frozen_parameters_are_left_out_and_others_appear_once():
    model = small_detector()
    model.backbone.bottom_up.decoder.pos_embed.requires_grad_(False)
    grouped = [p for g in get_fpn_model_parameters(model) for p in g["params"]]
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert sorted(map(id, grouped)) == sorted(map(id, trainable))


def test_equal_speeds_share_their_groups():
    groups = get_fpn_model_parameters(small_detector(), multiplier=1.0, weight_decay=0.1)
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
