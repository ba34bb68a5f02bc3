"""MAE and BEiT files into the plain ViTs of detectors, at tiny size."""

import logging

import pytest
import torch
from golden_models import fill
from torch import nn

from mimdet.checkpoint.convert.beit import fit_beit
from mimdet.checkpoint.start import StartingWeights, load_starting_weights
from mimdet.layers.pos_embed import interpolate_pos_embed
from mimdet.modeling.backbone.benchmarking import BenchmarkingViTDet, own_tables
from mimdet.modeling.backbone.vitae import PlainViTAE
from mimdet.modeling.backbone.vitdet import ViT

_DIM, _DEPTH, _HEADS = 32, 4, 2


# what the configs of these backbones say
OPTIONS = {
    BenchmarkingViTDet: dict(
        allow_missing=["ms_adaptor.*", "*_rel_pos_bias.*", "blocks.*.gamma_[12]"]
    ),
    ViT: dict(allow_missing=["*.attn.rel_pos_[hw]", "*.residual.*"]),
    PlainViTAE: dict(allow_missing=["*.attn.rel_pos_[hw]", "*.PCM.*"]),
}


def start(model: nn.Module, file: dict[str, torch.Tensor], folder, **options) -> None:
    """Start a backbone from a file with these tensors."""
    torch.save({"model": file}, folder / "file.pth")
    if isinstance(model, BenchmarkingViTDet):
        options = dict(grid=model.grid_size) | options
    entry = StartingWeights(str(folder / "file.pth"), to="", **OPTIONS[type(model)] | options)
    load_starting_weights(model, [entry])


def benchmarking(**arguments) -> BenchmarkingViTDet:
    """Four blocks of 32 channels, 4x6 tokens in windows of 2x2."""
    arguments = dict(img_size=(64, 96), embed_dim=_DIM, depth=_DEPTH, num_heads=_HEADS) | arguments
    torch.manual_seed(1)
    return BenchmarkingViTDet(window_size=2, **arguments)


def vit(cls: type[ViT] = ViT, **arguments) -> ViT:
    if cls is ViT:
        arguments = dict(residual_block_indexes=[1]) | arguments
    arguments = dict(use_rel_pos=True, pretrain_img_size=32) | arguments
    torch.manual_seed(1)
    return cls(
        img_size=64,
        embed_dim=_DIM,
        depth=_DEPTH,
        num_heads=_HEADS,
        window_size=2,
        window_block_indexes=[0, 1, 2],
        **arguments,
    )


def vitae() -> PlainViTAE:
    """ViTAE-B as its release has it: a position table for the detector's map, without a slot."""
    options = dict(pretrain_img_size=64, pretrain_use_cls_token=False)
    return vit(PlainViTAE, pcm_groups=8, **options)


def mae_file(**changes) -> dict[str, torch.Tensor]:
    """An encoder-only MAE file for 32x32 pixels."""
    source = fill(vit(use_rel_pos=False, residual_block_indexes=[])).state_dict()
    rest = {"cls_token": torch.ones(1, 1, _DIM), "norm.weight": torch.ones(_DIM)}
    return source | rest | {"norm.bias": torch.zeros(_DIM)} | changes


def beit_file() -> dict[str, torch.Tensor]:
    """A BEiT pretraining file for 32x32 pixels: 2x2 tokens, so 3x3 differences and 3 rows more."""
    state = fill(benchmarking(init_values=0.1, beit_qkv_bias=True)).state_dict()
    file = {n: v for n, v in state.items() if n.startswith(("blocks.", "patch_embed."))}
    table = torch.randn(9 + 3, _HEADS, generator=torch.Generator().manual_seed(2))
    return file | {
        "rel_pos_bias.relative_position_bias_table": table,
        "rel_pos_bias.relative_position_index": torch.zeros(5, 5, dtype=torch.int64),
        "cls_token": torch.ones(1, 1, _DIM),
        "mask_token": torch.ones(1, 1, _DIM),
        "norm.weight": torch.ones(_DIM),
        "norm.bias": torch.zeros(_DIM),
        "lm_head.weight": torch.ones(7, _DIM),
    }


# --- MAE ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make, unused", [(benchmarking, 3), (vit, 3), (vitae, 1)])
def test_blocks_and_patches_come_from_the_file_and_what_is_new_stays(
    tmp_path, make, unused, caplog
):
    file, model = mae_file(), make()
    initial = {name: v.clone() for name, v in model.state_dict().items() if name not in file}
    with caplog.at_level(logging.INFO, logger="mimdet"):
        start(model, file, tmp_path)
    for name, value in model.state_dict().items():
        if name in initial:
            assert torch.equal(value, initial[name]), name
        elif name != "pos_embed":
            assert torch.equal(value, file[name]), name
    assert initial and f"{unused} (cls_token" in caplog.text  # ViTAE has the last norm


def test_the_table_is_resized_to_a_map_that_is_not_square_and_loses_the_class_slot(tmp_path):
    model = benchmarking()
    start(model, mae_file(), tmp_path)
    assert torch.equal(
        model.pos_embed, interpolate_pos_embed(mae_file()["pos_embed"], (4, 6))[:, 1:]
    )
    assert model.pos_embed.requires_grad


@pytest.mark.parametrize("choice", ["sincos_pos_embed", "zero_pos_embed"])
def test_a_table_of_its_own_is_kept(tmp_path, choice):
    model = benchmarking(**{choice: True})
    table = model.pos_embed.detach().clone()
    start(model, mae_file(), tmp_path, leave=own_tables(**{choice: True}))
    assert torch.equal(model.pos_embed, table)
    assert torch.equal(model.blocks[3].mlp.fc1.bias, mae_file()["blocks.3.mlp.fc1.bias"])


def test_vitdet_takes_the_table_with_its_class_slot_as_it_is(tmp_path):
    model = vit()
    start(model, mae_file(), tmp_path)
    assert torch.equal(model.pos_embed, mae_file()["pos_embed"])


def test_vitaes_table_is_resized_to_its_map_and_loses_the_class_slot(tmp_path):
    model = vitae()
    start(model, mae_file(), tmp_path)
    expected = interpolate_pos_embed(mae_file()["pos_embed"], (4, 4))[:, 1:]
    assert torch.equal(model.pos_embed, expected)


def test_a_table_without_a_class_slot_is_resized_too(tmp_path):
    table = torch.randn(1, 9, _DIM, generator=torch.Generator().manual_seed(0))
    model = benchmarking()
    start(model, mae_file(pos_embed=table), tmp_path)
    expected = interpolate_pos_embed(table, (4, 6), num_extra_tokens=0)
    assert torch.equal(model.pos_embed, expected)


@pytest.mark.parametrize("make", [benchmarking, vit, vitae])
def test_a_file_of_another_width_is_refused_with_both_shapes(tmp_path, make):
    file = mae_file() | {"blocks.1.mlp.fc1.weight": torch.zeros(96, 24)}
    message = (
        r"blocks.1.mlp.fc1.weight has shape \(96, 24\) in the file and \(128, 32\) in the model"
    )
    with pytest.raises(ValueError, match=message):
        start(make(), file, tmp_path)


@pytest.mark.parametrize("make", [benchmarking, vit, vitae])
def test_a_file_of_another_patch_size_is_refused_with_both_shapes(tmp_path, make):
    file = mae_file() | {"patch_embed.proj.weight": torch.zeros(_DIM, 3, 14, 14)}
    message = r"proj.weight has shape \(32, 3, 14, 14\) in the file and \(32, 3, 16, 16\)"
    with pytest.raises(ValueError, match=message):
        start(make(), file, tmp_path)


@pytest.mark.parametrize("options", [{}, {"use_abs_pos": False}])
def test_a_deeper_file_is_refused_also_without_a_table(tmp_path, options):
    file = mae_file() | {"blocks.4.norm1.weight": torch.ones(_DIM)}
    with pytest.raises(ValueError, match=r"encoder blocks that the model lacks \(1 \(blocks.4"):
        start(vit(**options), file, tmp_path)


# --- BEiT -----------------------------------------------------------------------------------------


def test_benchmarking_as_beit_takes_all_of_beits_blocks(tmp_path):
    file = beit_file()
    model = benchmarking(init_values=0.5, beit_qkv_bias=True)
    start(model, file, tmp_path)
    for name, value in model.state_dict().items():
        if name.startswith(("blocks.", "patch_embed.")):
            assert torch.equal(value, file[name]), name


def test_beits_table_becomes_that_of_windows_and_that_of_the_map(tmp_path):
    file = beit_file()
    model = benchmarking(init_values=0.5, beit_qkv_bias=True)
    start(model, file, tmp_path)
    table = file["rel_pos_bias.relative_position_bias_table"]
    # windows of 2x2 have the differences of the file's 2x2 tokens
    assert torch.equal(model.windowed_rel_pos_bias.relative_position_bias_table, table[:9])
    resized = model.global_rel_pos_bias.relative_position_bias_table.T.reshape(_HEADS, 7, 11)
    expected = torch.nn.functional.interpolate(
        table[:9].T.reshape(1, _HEADS, 3, 3), size=(7, 11), mode="bicubic"
    )
    assert torch.equal(resized, expected[0])


def test_layer_scale_and_parted_biases_are_folded_in_where_the_model_lacks_them(tmp_path):
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    outputs = []
    for as_beit in (True, False):
        model = benchmarking(
            init_values=0.5 if as_beit else None,
            beit_qkv_bias=as_beit,
            sincos_pos_embed=True,
        )
        start(model, beit_file(), tmp_path)
        outputs.append(model.eval()(x))
    for name in ("s2", "s3"):  # those whose adaptors have no weights
        torch.testing.assert_close(outputs[0][name], outputs[1][name], msg=name)


@pytest.mark.parametrize("make", [vit, vitae])
def test_a_vit_with_positions_of_its_own_takes_beits_blocks(tmp_path, make):
    file, model = beit_file(), make()
    table = model.pos_embed.detach().clone()
    start(model, file, tmp_path)
    assert torch.equal(model.pos_embed, table)
    assert torch.equal(model.blocks[0].attn.qkv.weight, file["blocks.0.attn.qkv.weight"])
    q_bias, k_bias, v_bias = model.blocks[2].attn.qkv.bias.chunk(3)
    assert torch.equal(q_bias, file["blocks.2.attn.q_bias"]) and not k_bias.any()
    assert torch.equal(v_bias, file["blocks.2.attn.v_bias"])
    scaled = file["blocks.1.mlp.fc2.weight"] * file["blocks.1.gamma_2"][:, None]
    assert torch.equal(model.blocks[1].mlp.fc2.weight, scaled)


def test_a_mae_file_for_a_model_as_beit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the file lacks 8 \(blocks.0.attn.q_bias, "):
        start(benchmarking(beit_qkv_bias=True), mae_file(), tmp_path)


def test_a_beit_file_with_a_table_in_each_block_is_refused(tmp_path):
    file = beit_file() | {"blocks.0.attn.relative_position_bias_table": torch.zeros(12, _HEADS)}
    with pytest.raises(ValueError, match="file.pth does not fit .*use the pretraining file"):
        start(benchmarking(), file, tmp_path)


def test_a_beit_table_that_is_not_square_is_refused():
    file = beit_file() | {"rel_pos_bias.relative_position_bias_table": torch.zeros(13, _HEADS)}
    with pytest.raises(ValueError, match="must have a square number of rows .* got 10 and three"):
        fit_beit(file, benchmarking().state_dict(), (4, 6))
