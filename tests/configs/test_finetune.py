"""Fine-tuning recipes: counts, numbers and schedules of the released ones."""

import re

import pytest
from config_files import SYSTEMS, build_on_meta, head_of, load_stem, path_of
from golden_models import load
from omegaconf import OmegaConf

from detectron2.config import instantiate
from mimdet.checkpoint.convert.fastmim import from_native
from mimdet.config import apply_overrides

FASTMIM = load("pretraining/keys_fastmim.json.gz")
MAE = load("pretraining/keys_mae.json.gz")
SCHEDULES = load("pretraining/lr_schedule.json")
COMPUTED = (".relative_position_index", ".attn_mask")

# config -> record, top-1 published, epochs, lr, layer decay, drop path
RECIPES = {
    "fastmim_vit_base_100e": (FASTMIM["finetune/vit_base_patch16"], 83.8, 100, 2.4e-3, 0.70, 0.1),
    "fastmim_swin_base_100e": (
        FASTMIM["finetune/swin_base_patch4_window7_224"],
        *(84.1, 100, 4e-3, 0.80, 0.1),
    ),
    "fastmim_pvtv2_b2_100e": (FASTMIM["finetune/pvtv2_b2"], 82.5, 100, 4e-3, 0.80, 0.1),
    "fastmim_cmt_small_100e": (FASTMIM["finetune/cmt_small"], 83.9, 100, 4e-3, 0.80, 0.1),
    "mae_vit_base_100e": (
        MAE["finetune/vit_base_patch16/global_pool"],
        *(83.664, 100, 2e-3, 0.65, 0.1),
    ),
    "mae_vit_large_50e": (
        MAE["finetune/vit_large_patch16/global_pool"],
        *(85.952, 50, 4e-3, 0.75, 0.2),
    ),
    "mae_vit_huge_50e": (
        MAE["finetune/vit_huge_patch14/global_pool"],
        *(86.928, 50, 4e-3, 0.75, 0.3),
    ),
}


def test_the_list_of_this_file_knows_every_recipe():
    assert {p.stem for p in SYSTEMS if p.parent.name == "finetune"} == RECIPES.keys()


@pytest.mark.parametrize("stem", RECIPES)
def test_counts_names_and_settings_are_those_of_the_release(stem):
    record, top1, epochs, lr, layer_decay, drop_path = RECIPES[stem]
    cfg = load_stem(stem)
    model = build_on_meta(cfg)
    assert sum(p.numel() for p in model.parameters()) == record["params_total"]
    if "state_dict" in record:
        theirs = {n: list(v.shape) for n, v in from_native(model.state_dict()).items()}
        stored = {n: s for n, s in record["state_dict"].items() if not n.endswith(COMPUTED)}
        assert theirs == stored
    head = " ".join(head_of(path_of(stem)).split())
    assert f"Published (not reproduced here): {top1} top-1." in head
    assert cfg.train.max_iter == epochs * (1281167 // 1024)
    assert cfg.lr_multiplier.warmup_length == pytest.approx(5 / epochs)
    assert instantiate(cfg.optimizer.lr) == pytest.approx(lr)
    assert cfg.lr_multiplier.scheduler.end_value * lr == pytest.approx(1e-6)
    assert cfg.optimizer.params.lr_factor_func.lr_decay_rate == layer_decay
    assert (cfg.optimizer.weight_decay, cfg.optimizer.betas) == (0.05, (0.9, 0.999))
    assert cfg.model.network.drop_path_rate == drop_path


@pytest.mark.parametrize(
    "stem, record",
    [
        ("fastmim_vit_base_100e", "finetune_vit_base_100e"),
        ("fastmim_swin_base_100e", "finetune_swin_base_100e"),
    ],
)
def test_learning_rate_is_the_stored_one_at_every_epoch(stem, record):
    cfg, stored = load_stem(stem), SCHEDULES[record]
    multiplier, lr = instantiate(cfg.lr_multiplier), instantiate(cfg.optimizer.lr)
    for epoch, expected, of_half in stored["rows"]:
        where = min(epoch / stored["epochs"], 1 - 1e-12)  # the schedule ends before 1
        assert multiplier(where) * lr == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert multiplier(where) * lr * 0.5 == pytest.approx(of_half, rel=1e-9, abs=1e-12)


def test_learning_rate_follows_the_batch_and_classes_follow_the_network():
    overrides = ["dataloader.train.total_batch_size=512", "model.network.num_classes=10"]
    cfg = apply_overrides(load_stem("fastmim_vit_base_100e"), overrides)
    assert instantiate(cfg.optimizer.lr) == pytest.approx(1.2e-3)
    assert cfg.dataloader.train.collate_fn.num_classes == 10


def test_every_key_of_the_table_of_flags_exists():
    table = (path_of("fastmim_vit_base_100e").parent / "README.md").read_text().split("## From")[1]
    keys = re.findall(
        r"`((?:model|optimizer|train|lr_multiplier|imagenet|mae_c)\w*[.][\w.]+)", table
    )
    cfg = load_stem("fastmim_cmt_small_100e")
    cfg.merge_with(load_stem("fastmim_vit_base_100e"))
    missing = [key for key in keys if OmegaConf.select(cfg, key, default=KeyError) is KeyError]
    assert len(keys) > 20 and missing == []


def test_augmentation_is_that_of_the_release():
    cfg = load_stem("fastmim_vit_base_100e").dataloader
    text = repr(instantiate(cfg.train.mapper.transform))
    for part in (
        "RandomResizedCropAndInterpolation(size=(224, 224), scale=(0.08, 1.0), ratio=(0.75, 1.3333)"
        ", interpolation=bicubic)",
        "RandomHorizontalFlip(p=0.5)",
        "RandAugment(n=2",
        "RandomErasing(p=0.25, mode=pixel, count=(1, 1))",
    ):
        assert part in text
    test = repr(instantiate(cfg.test.mapper.transform))
    assert "Resize(size=256, interpolation=bicubic" in test
    assert "CenterCrop(size=(224, 224))" in test
