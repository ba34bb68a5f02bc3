"""A value that its key cannot have is told before data are read; one that it can have is not."""

import pytest
from omegaconf import OmegaConf
from toy_runs import REPOSITORY

from mimdet.config import load_config
from mimdet.engine.check_values import check_values
from mimdet.engine.preflight import preflight

MASK = "configs/toy/mimdet_mask_rcnn_fpn_sr_0p5_toy.py"
RATIO = "model.backbone.bottom_up.sample_ratio"
DEVICE = 'a device that torch knows, such as "cuda" or "cpu"'

CONFIGS = REPOSITORY / "configs"
RUNS = sorted(p for p in CONFIGS.rglob("*_*.py") if "common" not in p.parts)

SHARE_OR_RANGE = "a number above 0, up to 1, or [lowest, highest] of two such numbers"

REFUSED = [
    ("train.max_iter", None, "a whole number from 1"),
    ("train.device", "foo", DEVICE),
    ("train.ema.decay", 2, "a number between 0 and 1"),
    ("train.log_period", 0, "a whole number from 1"),
    ("train.log_period", True, "a whole number from 1"),
    ("train.eval_period", -1, "a whole number from 0"),
    ("train.checkpointer.period", 0, "a whole number from 1"),
    ("train.max_iter", 0, "a whole number from 1"),
    (RATIO, 7, SHARE_OR_RANGE),
    (RATIO, [0.5, 0.25], SHARE_OR_RANGE),
    (RATIO, [0.5], SHARE_OR_RANGE),
    ("train.eval_sample_ratio", 0, "a number above 0, up to 1"),
    ("train.clip_grad.max_norm", -1, "a number above 0"),
    ("train.clip_grad.max_norm", float("nan"), "a number above 0"),
    ("train.accumulation_steps", 0, "a whole number from 1"),
    ("dataloader.train.num_workers", -1, "a whole number from 0"),
    ("dataloader.test.num_workers", -1, "a whole number from 0"),
    ("optimizer.lr", -1, "a finite number from 0"),
    ("optimizer.lr", float("inf"), "a finite number from 0"),
]


@pytest.mark.parametrize(("key", "value", "must"), REFUSED)
def test_preflight_refuses_it_first_and_alone(key, value, must):
    cfg = load_config(str(REPOSITORY / MASK), [])
    OmegaConf.update(cfg, key, value, force_add=True)
    # data that do not exist: an error of theirs would show that they were looked for
    for split in ("train", "test"):
        cfg.dataloader[split].dataset.json_file = "no/such.json"
    assert preflight(cfg).errors == [f"{key} must be {must}, got {value!r}"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.device", "cuda:1"),
        ("train.ema.decay", None),
        ("train.eval_period", 0),
        ("train.clip_grad.max_norm", float("inf")),
        (RATIO, 1),
        ("optimizer.lr", 0),
    ],
)
def test_a_limit_that_works_is_accepted(key, value):
    cfg = load_config(str(REPOSITORY / MASK), [])
    OmegaConf.update(cfg, key, value, force_add=True)
    assert check_values(cfg, eval_only=False) == []


def test_an_evaluation_is_asked_for_what_it_uses_alone():
    cfg = load_config(str(REPOSITORY / MASK), ["train.max_iter=0", "train.device=foo"])
    assert check_values(cfg, eval_only=True) == [f"train.device must be {DEVICE}, got 'foo'"]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_no_config_of_ours_is_refused(path):
    assert check_values(load_config(str(path), []), eval_only=False) == []
