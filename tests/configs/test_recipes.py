"""Every config trains with the values of its release, but for a list of stated differences.

`recipe_values` makes a config flat, `recipe_relatives` completes what the golden file has.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import pytest
from config_files import load_stem
from golden_models import load
from omegaconf import DictConfig, OmegaConf
from recipe_relatives import FURTHER, RELATIVES, whole_recipe
from recipe_values import recipe_of
from torch import nn

from mimdet.solver.layer_decay import get_vit_lr_decay_rate

RECIPES = load("recipes.json.gz")
ABSENT = "(no such argument)"


class Difference(NamedTuple):
    """A value that is not the release's: of which systems and keys, what it is, and why."""

    systems: tuple[str, ...]
    keys: tuple[str, ...]
    ours: Any
    reason: str


_BENCHMARKING = tuple(f"benchmarking_base_{epochs}ep" for epochs in (25, 50, 100))
_MIMDET_B = ("mimdet_v1_base_sr0p25", "mimdet_v1_base_sr0p25_bs16", "mimdet_v1_base_sr0p5")
_R50 = ("r50_cascade_1x", "r50_mask_1x", "r50_retinanet_1x")
_BOTTOM_UP = "model.backbone.bottom_up."

DIFFERENCES = [
    Difference(
        _BENCHMARKING,
        (f"{_BOTTOM_UP}attn_drop_rate", f"{_BOTTOM_UP}drop_rate"),
        ABSENT,
        "0 in every release, which is what a model without dropout does",
    ),
    Difference(
        _MIMDET_B,
        (f"{_BOTTOM_UP}encoder.img_size", f"{_BOTTOM_UP}decoder.img_size"),
        800,
        "224 in the released files, but the released models have tables of 50x50 tokens",
    ),
    Difference(_MIMDET_B, ("model.parameters",), 127_561_552, "tables of 50x50 tokens, see above"),
    Difference(
        _R50,
        ("data.train.mapper.image_format", "data.test.mapper.image_format"),
        "RGB",
        "starts from torchvision's ImageNet weights, which see RGB, instead of MSRA's",
    ),
    Difference(
        ("r50_cascade_1x",),
        ("model.proposal_generator.post_nms_topk",),
        [1000, 1000],
        "as Detectron2's own LazyConfig of this model has it; 2000 is in its yaml file",
    ),
    Difference(
        ("vitae_s",),
        ("optim.layer_decay.num_layers",),
        17,
        "12 in the released file, but the log of the released run shows 17",
    ),
]


def known_differences(system: str) -> dict[str, Any]:
    """Key -> our value, of the list above."""
    return {key: d.ours for d in DIFFERENCES if system in d.systems for key in d.keys}


def found_differences(system: str, cfg: DictConfig) -> dict[str, Any]:
    """Key -> our value, of every value of `cfg` that is not the release's."""
    released = whole_recipe(system, RECIPES)
    ours = recipe_of(cfg, released)
    found = {key: ours.get(key, ABSENT) for key in released}
    return {key: value for key, value in found.items() if not equal(key, value, released[key])}


def equal(key: str, ours: Any, released: Any) -> bool:
    """Equality of recipe values: numbers within 1e-6, points of a schedule within 1e-5."""
    if isinstance(ours, list) and isinstance(released, list):
        return len(ours) == len(released) and all(map(partial(equal, key), ours, released))
    if type(ours) in (int, float) and type(released) in (int, float):
        tolerance = 1e-5 if key == "schedule.multiplier_at" else 1e-6
        return math.isclose(ours, released, rel_tol=tolerance, abs_tol=1e-12)
    return ours == released and isinstance(ours, bool) == isinstance(released, bool)


def test_the_recipes_are_of_56_systems_each_with_a_config_of_its_own():
    assert len(RECIPES) == len({entry["config"] for entry in RECIPES.values()}) == 56


def test_a_stated_difference_is_of_a_known_system_and_key():
    for difference in DIFFERENCES:
        assert difference.reason
        for system in difference.systems:
            assert set(difference.keys) <= set(whole_recipe(system, RECIPES))


def test_a_relative_is_of_a_known_system():
    assert RELATIVES.keys() | FURTHER.keys() <= RECIPES.keys()
    assert {relative for relative, _ in RELATIVES.values()} <= RECIPES.keys()


@pytest.mark.parametrize("system", RECIPES)
def test_a_config_has_the_released_values_but_for_the_stated_differences(system):
    cfg = load_stem(RECIPES[system]["config"])
    assert found_differences(system, cfg) == known_differences(system)


# (system, key of its config, another value): each must be noticed
_DATA, _STEPS = "dataloader.train.", "dataloader.train.mapper.augmentations."
_ENCODER = "model.backbone.bottom_up.encoder."
MUTATIONS = [
    ("benchmarking_base_25ep", f"{_STEPS}0.min_scale", 0.2),
    ("benchmarking_base_25ep", f"{_DATA}total_batch_size", 16),
    ("benchmarking_base_50ep", "model.backbone.bottom_up.drop_path_rate", 0.2),
    ("benchmarking_base_100ep", "optimizer.params.overrides.pos_embed.weight_decay", 0.1),
    ("fastmim_finetune_swin_b", f"{_DATA}collate_fn.mixup_alpha", 0.2),
    ("fastmim_finetune_vit_b", "model.network.drop_path_rate", 0.2),
    ("fastmim_pretrain_swin_b", "lr_multiplier.warmup_length", 0.05),
    ("fastmim_pretrain_swin_b", f"{_DATA}mapper.transform.hflip", 0.0),
    ("fastmim_pretrain_vit_b", "model.block_size", 32),
    ("fastmim_swin_b_mask_rcnn_scp", "model.roi_heads.mask_head.conv_norm", "BN"),
    ("fastmim_swin_b_mask_rcnn_scp", f"{_DATA}mapper.mapper.augmentations.3.pad_value", 128.0),
    ("mae_finetune_b", f"{_DATA}mapper.transform.re_prob", 0.0),
    ("mae_finetune_b", "optimizer.params.lr_factor_func.lr_decay_rate", 0.75),
    ("mae_finetune_l", "lr_multiplier.scheduler.end_value", 0.0),
    ("mae_pretrain_b", "optimizer.betas", (0.9, 0.999)),
    ("mae_pretrain_l", f"{_DATA}mapper.transform.scale", (0.08, 1.0)),
    ("mimdet_main_base_sr0p5", "optimizer.lr", 1e-4),
    ("mimdet_main_large_sr0p5", "optimizer.params.multiplier", 2.0),
    ("mimdet_v1_base_sr0p25", f"{_ENCODER}norm_layer", partial(nn.LayerNorm, eps=1e-6)),
    ("mimdet_v1_base_sr0p25_bs16", f"{_DATA}total_batch_size", 64),
    ("mimdet_v1_base_sr0p5", "train.ddp.fp16_compression", False),
    ("mimdet_v1_large_sr0p5", f"{_STEPS}1.prob", 1.0),
    ("mpvit_base_cascade_mask_rcnn_ms_3x", "model.backbone.bottom_up.drop_path", 0.4),
    ("mpvit_small_cascade_mask_rcnn_ms_3x", "model.proposal_generator.post_nms_topk.0", 1000),
    ("mpvit_small_mask_rcnn_1x", f"{_DATA}dataset.filter_empty", True),
    ("mpvit_small_retinanet_1x", "model.focal_loss_alpha", 0.5),
    ("mpvit_tiny_mask_rcnn_1x", "train.clip_grad.max_norm", None),
    ("mpvit_tiny_retinanet_1x", "optimizer.params.weight_decay_norm", 0.0),
    ("r50_cascade_1x", "model.roi_heads.proposal_matchers.1.thresholds.0", 0.5),
    ("r50_mask_1x", "optimizer.weight_decay", 5e-4),
    ("r50_retinanet_1x", "lr_multiplier.scheduler.milestones.0", 70000),
    ("unofficial_vitdet_b", f"{_STEPS}0.prob", 0.0),
    ("vitae_b", "model.backbone.norm_eps", 1e-6),
    ("vitae_s", "model.backbone.net.drop_path_rate", 0.2),
    ("vitae_s", "train.amp.enabled", True),
    ("vitdet_cascade_b", f"{_STEPS}2.crop_size", (896, 896)),
    ("vitdet_cascade_l", "lr_multiplier.warmup_factor", 0.0),
    (
        "vitdet_lvis_cascade_l",
        "optimizer.params.lr_factor_func",
        partial(get_vit_lr_decay_rate, lr_decay_rate=0.7, num_layers=24),
    ),
    ("vitdet_lvis_mask_l", "model.roi_heads.positive_fraction", 0.5),
    ("vitdet_lvis_cascade_b", "model.roi_heads.box_predictors.2.test_score_thresh", 0.05),
    ("vitdet_lvis_mask_b", "model.backbone.net.pretrain_use_cls_token", False),
    ("vitdet_mask_h", "optimizer.lr", 2e-4),
    ("vitdet_mask_l", f"{_DATA}mapper.instance_mask_format", "bitmask"),
]


@pytest.mark.parametrize("system, key, value", MUTATIONS)
def test_a_changed_value_is_noticed(system, key, value):
    cfg = load_stem(RECIPES[system]["config"])
    before = OmegaConf.select(cfg, key)
    assert before != value
    OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    assert found_differences(system, cfg) != known_differences(system)
