"""Layer decay and weight decay of classifiers against stored factors, and by hand."""

import pytest
import torch
from config_files import build_on_meta, load_stem
from golden_models import load

from detectron2.config import instantiate
from mimdet.checkpoint.convert.fastmim import to_native
from mimdet.solver.layer_decay import classifier_layer, make_classifier_lr_factor

STORED = load("pretraining/layer_decay.json.gz")
CONFIGS = {
    "vit_base_patch16@0.7": "fastmim_vit_base_100e",
    "vit_base_patch16@0.65": "mae_vit_base_100e",
    "swin_base_patch4_window7_224@0.8": "fastmim_swin_base_100e",
}


@pytest.mark.parametrize("record", CONFIGS)
def test_rates_and_decays_of_a_config_equal_the_stored_ones(record):
    cfg = load_stem(CONFIGS[record])
    model = build_on_meta(cfg)
    names = {id(p): name for name, p in model.named_parameters()}
    cfg.optimizer.params.model = model
    lr = instantiate(cfg.optimizer.lr)
    actual = {
        names[id(p)]: (group["lr"] / lr, group.get("weight_decay", cfg.optimizer.weight_decay))
        for group in instantiate(cfg.optimizer.params)
        for p in group["params"]
    }
    # The release's names lead to ours through the converter, with the numbers as tensors.
    theirs = {n: torch.tensor(v, dtype=torch.float64) for n, v in STORED[record].items()}
    expected = to_native(theirs)
    assert actual.keys() == expected.keys()
    for name, (scale, decay) in actual.items():
        assert [scale, decay] == pytest.approx(expected[name].tolist(), rel=1e-12), name


# From the table of the recipe: a name and its layer, None above the last.
PVTV2 = {
    "patch_embed.proj.weight": 0,
    "stages.0.blocks.2.attn.q.weight": 3,
    "stages.0.norm.weight": 3,
    "stages.1.downsample.proj.weight": 3,
    "stages.1.blocks.0.norm1.bias": 4,
    "stages.2.norm.bias": 13,
    "stages.3.downsample.norm.bias": 13,
    "stages.3.blocks.2.mlp.dwconv.weight": 16,
    "stages.3.norm.weight": None,
    "head.weight": None,
}
CMT = {
    "stem_conv1.weight": 0,
    "stem_norm3.bias": 0,
    "patch_embed_a.proj.weight": 1,
    "relative_pos_a": 1,
    "blocks_a.0.proj.weight": 1,
    "patch_embed_c.norm.weight": 7,
    "relative_pos_c": 7,
    "blocks_c.15.attn.sr.0.weight": 22,
    "blocks_d.2.norm2.weight": 25,
    "_fc.weight": None,
    "_bn.bias": None,
    "head.bias": None,
}


@pytest.mark.parametrize("layers, depths", [(PVTV2, [3, 4, 6, 3]), (CMT, [3, 3, 16, 3])])
def test_layers_of_pvtv2_and_cmt_by_hand(layers, depths):
    factor = make_classifier_lr_factor(0.5, depths)
    for name, layer in layers.items():
        assert classifier_layer(f"network.{name}", depths) == layer, name
        above = sum(depths) + 1
        assert factor(f"network.{name}") == 0.5 ** (above - (above if layer is None else layer))


def test_every_layer_of_a_classifier_has_a_parameter():
    for stem, blocks in (("fastmim_pvtv2_b2_100e", 16), ("fastmim_cmt_small_100e", 25)):
        cfg = load_stem(stem)
        depths = cfg.optimizer.params.lr_factor_func.depths
        names = [name for name, _ in build_on_meta(cfg).named_parameters()]
        layers = {classifier_layer(name, depths) for name in names}
        assert layers == {*range(blocks + 1), None}


def test_a_rate_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"lr_decay_rate must be in \(0, 1\], got 1.5"):
        make_classifier_lr_factor(1.5, [12])("network.head.weight")


def test_depths_of_a_smaller_network_are_refused():
    with pytest.raises(ValueError, match="num_layers must count all layers, got 6, but network.bl"):
        make_classifier_lr_factor(0.5, [6])("network.blocks.11.norm1.weight")
