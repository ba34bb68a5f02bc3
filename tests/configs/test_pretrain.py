"""Pretraining recipes: names, counts, decay and learning rates of the released ones."""

import pytest
from config_files import build_on_meta, load_stem
from golden_models import load
from omegaconf import OmegaConf
from pretraining_models import pvtv2_name, swin_name, vit_name

from detectron2.config import LazyConfig, instantiate
from mimdet.config import apply_overrides

MAE = load("pretraining/keys_mae.json.gz")
FASTMIM = load("pretraining/keys_fastmim.json.gz")
SCHEDULES = load("pretraining/lr_schedule.json")

# config -> golden record, and our names -> those of the release
RELEASED = {
    "mae_vit_base": (MAE["mae_vit_base_patch16"], str),
    "mae_vit_large": (MAE["mae_vit_large_patch16"], str),
    "mae_vit_huge": (MAE["mae_vit_huge_patch14"], str),
    "fastmim_vit_base": (FASTMIM["pretrain/mim_vit_base"], vit_name),
    "fastmim_swin_base": (FASTMIM["pretrain/mim_swin_base"], swin_name),
    "fastmim_pvtv2_b2": (FASTMIM["pretrain/mim_pvtv2_b2"], pvtv2_name),
    "fastmim_cmt_small": (FASTMIM["pretrain/mim_cmt_small"], str),
}
_COMPUTED = ("relative_position_index", "attn_mask")  # buffers that timm does not store


@pytest.fixture(scope="module", params=RELEASED)
def released(request):
    """A config, its model without memory, its golden record and the release's names."""
    cfg = load_stem(request.param)
    return cfg, build_on_meta(cfg), *RELEASED[request.param]


def test_names_shapes_and_counts_are_those_of_the_release(released):
    _, model, expected, name_of = released
    shapes = {name_of(n): list(v.shape) for n, v in model.state_dict().items()}
    stored = {n: s for n, s in expected["state_dict"].items() if not n.endswith(_COMPUTED)}
    assert shapes == stored
    trained = {name_of(n): p.numel() for n, p in model.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in model.parameters()) == expected["params_total"]
    assert sum(trained.values()) == expected["params_trainable"]
    if "params_decoder_and_mask_token" in expected:
        light = {n: v for n, v in trained.items() if n.startswith(("decoder_", "mask_token"))}
        assert sum(light.values()) == expected["params_decoder_and_mask_token"]


def test_the_same_parameters_are_decayed_in_the_same_order(released):
    cfg, model, expected, name_of = released
    names = {id(p): name_of(n) for n, p in model.named_parameters()}
    cfg.optimizer.params.model = model
    no_decay, decay = instantiate(cfg.optimizer.params)
    assert (no_decay["weight_decay"], decay["weight_decay"]) == (0, 0.05)
    assert sorted(names[id(p)] for p in no_decay["params"]) == sorted(expected["no_decay"])
    assert sorted(names[id(p)] for p in decay["params"]) == sorted(expected["decay"])
    assert cfg.optimizer.betas == (0.9, 0.95)


@pytest.mark.parametrize(
    "stem, recipe",
    [
        ("mae_vit_base", "mae_vit_base_800e"),
        ("mae_vit_large", "mae_vit_base_800e"),
        ("fastmim_vit_base", "fastmim_vit_base_800e"),
        ("fastmim_swin_base", "fastmim_swin_base_400e"),
    ],
)
def test_learning_rates_are_those_of_the_release(stem, recipe):
    cfg, expected = load_stem(stem), SCHEDULES[recipe]
    schedule, lr = instantiate(cfg.lr_multiplier), instantiate(cfg.optimizer.lr)
    assert lr == pytest.approx(expected["lr"])
    assert len(expected["rows"]) > 10
    for epoch, stored, of_half_a_group in expected["rows"]:
        done = epoch / expected["epochs"]
        if done < 1:  # the release also asks for one behind the last iteration
            assert lr * schedule(done) == pytest.approx(stored, rel=1e-9, abs=1e-15), epoch
            assert lr / 2 * schedule(done) == pytest.approx(of_half_a_group, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(
    "stem, epochs, batch, epochs_between_files",
    [
        ("mae_vit_base", 800, 4096, 20),
        ("fastmim_vit_base", 800, 4096, 100),
        ("fastmim_swin_base", 400, 2048, 50),
        ("fastmim_pvtv2_b2", 400, 2048, 50),
        ("fastmim_cmt_small", 400, 2048, 50),
    ],
)
def test_a_run_has_the_epochs_of_the_release(stem, epochs, batch, epochs_between_files):
    cfg = load_stem(stem)
    assert cfg.dataloader.train.total_batch_size == batch
    assert cfg.train.max_iter == epochs * (1281167 // batch)
    assert cfg.train.checkpointer.period == epochs_between_files * (1281167 // batch)


def test_the_learning_rate_follows_an_override_of_the_batch_size():
    cfg = load_stem("mae_vit_base")
    apply_overrides(cfg, ["dataloader.train.total_batch_size=512"])
    assert instantiate(cfg.optimizer.lr) == pytest.approx(3e-4)
    apply_overrides(cfg, ["optimizer.lr.base_lr=1e-3"])
    assert instantiate(cfg.optimizer.lr) == pytest.approx(2e-3)
    apply_overrides(cfg, ["optimizer.lr=7e-4"])
    assert cfg.optimizer.lr == 7e-4


@pytest.mark.parametrize(
    "stem, size", [("mae_vit_base", 224), ("fastmim_vit_base", 128), ("fastmim_cmt_small", 128)]
)
def test_crops_have_the_size_that_the_model_takes(stem, size, tmp_path):
    cfg = load_stem(stem)
    assert cfg.dataloader.train.mapper.transform.input_size == cfg.model.img_size == size
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    cfg = LazyConfig.load(str(tmp_path / "config.yaml"))
    apply_overrides(cfg, ["model.img_size=64"])
    assert cfg.dataloader.train.mapper.transform.input_size == 64


def test_recipes_name_imagenet_below_the_folder_of_the_data_sets(monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", "somewhere")
    source = OmegaConf.select(load_stem("mae_vit_base"), "dataloader.train.dataset.source")
    assert source == "somewhere/imagenet"
    monkeypatch.delenv("DETECTRON2_DATASETS")
    assert load_stem("mae_vit_base").dataloader.train.dataset.source == "datasets/imagenet"


def test_the_toy_vit_has_the_sizes_of_the_toy_detector():
    mae = load_stem("mae_vit_toy").model
    backbone = load_stem("mimdet_mask_rcnn_fpn_sr_0p5_toy").model.backbone.bottom_up
    for key in ("img_size", "patch_size", "embed_dim", "depth", "num_heads"):
        assert mae[key] == backbone.encoder[key], key
    assert mae.decoder_embed_dim == backbone.decoder.decoder_embed_dim
    assert mae.decoder_depth == backbone.decoder.depth
    assert mae.decoder_num_heads == backbone.decoder.num_heads
