"""Layer-wise learning-rate decay against upstream Detectron2's factors, and what is refused."""

import math
from functools import partial

import golden_data
import pytest
import torch
from config_files import build_on_meta, load_stem
from golden_models import load

from detectron2.config import instantiate
from detectron2.solver import get_default_optimizer_params
from mimdet.solver.layer_decay import get_layer_lr_decay_rate, get_vit_lr_decay_rate, mimdet_layer
from mimdet.solver.param_groups import get_fpn_model_parameters


def test_factors_equal_those_of_the_reference():
    case = golden_data.load("solver")[1]["vit_lr_decay"]
    for name, factor in case["per_name"].items():
        actual = get_vit_lr_decay_rate(name, case["lr_decay_rate"], case["num_layers"])
        assert actual == pytest.approx(factor, rel=1e-12), name


@pytest.mark.parametrize("case", load("vitdet/lr_decay_function.json").items(), ids=lambda c: c[0])
def test_factors_equal_those_of_the_released_vitdets(case):
    setting, factors = case
    rate, layers = setting.split("/")
    assert len(factors) > 10
    for name, factor in factors.items():
        if name.startswith("module."):  # upstream: 1 for everything, without a word
            with pytest.raises(ValueError, match="before the model is wrapped"):
                get_vit_lr_decay_rate(name, float(rate), int(layers))
        else:
            actual = get_vit_lr_decay_rate(name, float(rate), int(layers))
            assert actual == pytest.approx(factor, rel=1e-12), name


def test_convolutions_between_windows_learn_at_full_speed():
    assert get_vit_lr_decay_rate("backbone.net.blocks.3.residual.conv1.weight", 0.5, 4) == 1.0


def test_without_decay_every_factor_is_one():
    assert get_vit_lr_decay_rate("backbone.net.pos_embed") == 1.0


def test_benchmarking_vit_decays_its_blocks_and_not_what_is_new():
    factor = partial(get_vit_lr_decay_rate, lr_decay_rate=0.5, num_layers=12)
    bottom_up = "backbone.bottom_up."
    assert factor(f"{bottom_up}pos_embed") == factor(f"{bottom_up}patch_embed.proj.bias") == 2**-13
    assert factor(f"{bottom_up}blocks.0.norm1.weight") == 2**-12
    assert factor(f"{bottom_up}blocks.11.attn.qkv.weight") == 0.5
    for new in ("ms_adaptor.0.0.weight", "global_rel_pos_bias.relative_position_bias_table"):
        assert factor(bottom_up + new) == 1.0


def test_mimdet_decays_its_encoder_and_neither_stem_nor_decoder():
    factor = partial(
        get_layer_lr_decay_rate, layer_of=mimdet_layer, lr_decay_rate=0.5, num_layers=12
    )
    bottom_up = "backbone.bottom_up."
    assert factor(f"{bottom_up}encoder.blocks.0.norm1.weight") == 2**-12
    assert factor(f"{bottom_up}encoder.blocks.11.mlp.fc1.bias") == 0.5
    assert factor(f"{bottom_up}encoder.pos_embed") == 2**-13
    for new in (
        "encoder.norm.weight",
        "encoder.patch_embed.proj.0.0.weight",
        "decoder.decoder_blocks.0.norm1.weight",
    ):
        assert factor(bottom_up + new) == 1.0


def test_mimdets_three_speeds_are_multiplied_by_the_decay():
    cfg = load_stem("mimdet_mask_rcnn_fpn_sr_0p5_toy")  # four blocks
    model = build_on_meta(cfg)
    names = {id(p): n for n, p in model.named_parameters()}
    decay = partial(get_layer_lr_decay_rate, layer_of=mimdet_layer, lr_decay_rate=0.5, num_layers=4)
    groups = get_fpn_model_parameters(model, base_lr=1.0, multiplier=2.0, lr_factor_func=decay)
    rates = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert rates["backbone.bottom_up.encoder.blocks.0.norm1.weight"] == 2**-4 / 2
    assert rates["backbone.bottom_up.encoder.blocks.3.norm1.weight"] == 0.5 / 2
    assert rates["backbone.bottom_up.encoder.norm.weight"] == 1 / 2
    assert rates["backbone.bottom_up.encoder.patch_embed.proj.0.0.weight"] == 1
    assert rates["backbone.bottom_up.decoder.decoder_norm.weight"] == 2
    assert len({(g["lr"], g["weight_decay"]) for g in groups}) == len(groups)


def test_a_group_for_each_layer_of_benchmarking_vit_by_detectron2s_function():
    cfg = load_stem("benchmarking_mask_rcnn_toy")  # eight blocks
    cfg.optimizer.params.model = build_on_meta(cfg)
    cfg.optimizer.params.lr_factor_func = partial(
        get_vit_lr_decay_rate, lr_decay_rate=0.5, num_layers=8
    )
    rates = {group["lr"] / cfg.optimizer.lr for group in instantiate(cfg.optimizer.params)}
    assert sorted(rates) == pytest.approx([0.5**k for k in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0)])


# --- refusals -------------------------------------------------------------------------------------


def test_too_few_layers_are_refused_instead_of_a_factor_above_one():
    message = r"num_layers must count all layers, got 12, but backbone.net.blocks.12.* in layer 13"
    with pytest.raises(ValueError, match=message):
        get_vit_lr_decay_rate("backbone.net.blocks.12.norm1.weight", 0.7, 12)


def test_names_of_a_wrapped_model_are_refused():
    model = torch.nn.Module()
    model.module = torch.nn.Linear(1, 1)  # as DistributedDataParallel holds it
    factor = partial(get_vit_lr_decay_rate, lr_decay_rate=0.7)
    with pytest.raises(ValueError, match="in the bare model, got module.weight; make the param"):
        get_default_optimizer_params(model, base_lr=1.0, lr_factor_func=factor)


@pytest.mark.parametrize("rate", [0.0, -0.5, 1.1, math.nan])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match=r"lr_decay_rate must be in \(0, 1\], got"):
        get_vit_lr_decay_rate("backbone.net.pos_embed", rate)
