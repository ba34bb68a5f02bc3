"""The Swin detector of FastMIM against its recipe."""

from config_files import build_on_meta, load_stem

from detectron2.config import instantiate


def test_recipe_is_the_released_one():
    cfg = load_stem("mask_rcnn_swin_base_scp_3x")
    assert cfg.dataloader.train.total_batch_size == 32
    assert cfg.train.max_iter == 131_940
    assert cfg.lr_multiplier.scheduler.milestones == [98_955, 120_945]
    assert round(cfg.lr_multiplier.warmup_length * cfg.train.max_iter) == 1000
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == (6e-5, 0.05)
    backbone = cfg.model.backbone.bottom_up
    assert (backbone.model.window_size, backbone.model.drop_path_rate) == (7, 0.2)
    assert backbone.checkpointing


def test_only_norms_and_position_tables_of_the_backbone_are_not_decayed():
    cfg = load_stem("mask_rcnn_swin_base_scp_3x")
    model = build_on_meta(cfg)
    names = {id(p): name for name, p in model.named_parameters()}
    cfg.optimizer.params.model = model
    decayed, spared = instantiate(cfg.optimizer.params)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    expected = {
        name
        for name in names.values()
        if name.startswith("backbone.bottom_up.")
        and ("norm" in name or name.endswith("relative_position_bias_table"))
    }
    assert {names[id(p)] for p in spared["params"]} == expected
    assert len(decayed["params"]) + len(spared["params"]) == len(names)
