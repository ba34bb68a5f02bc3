"""The segmentor of FastMIM against its recipe."""

import torch
from config_files import build_on_meta, load_stem
from segmentation_models import build, load, published_name

from detectron2.config import instantiate
from detectron2.evaluation import SemSegEvaluator
from mimdet.config import apply_overrides

STEM = "upernet_vit_base_ade20k_160k"


def test_recipe_is_the_released_one():
    cfg = load_stem(STEM)
    assert cfg.dataloader.train.total_batch_size == 16
    assert (cfg.train.max_iter, cfg.train.eval_period) == (160_000, 16_000)
    assert cfg.train.checkpointer.period == 16_000 and cfg.train.checkpointer.max_to_keep >= 10
    assert not cfg.train.amp.enabled and cfg.train.clip_grad.max_norm is None
    assert cfg.model.backbone.drop_path_rate == 0.1
    assert (cfg.model.crop_size, cfg.model.crop_stride) == (512, 341)
    head = cfg.model.sem_seg_head
    assert (head.mean_over, head.auxiliary_weight) == ("all", 0.4)
    assert cfg.train.best_metric == "sem_seg/mIoU"
    target = instantiate(cfg.dataloader.evaluator._target_)
    assert issubclass(target, SemSegEvaluator)


def test_model_has_the_names_of_the_released_one():
    with torch.device("meta"):
        assert build_on_meta(load_stem(STEM)).state_dict().keys() == build({}).state_dict().keys()


def optimizer_of(*overrides: str):
    cfg = load_stem(STEM)
    apply_overrides(cfg, list(overrides))
    model = build_on_meta(cfg)
    cfg.optimizer.params.model = model
    names = {id(p): published_name(name) for name, p in model.named_parameters()}
    return names, instantiate(cfg.optimizer)


def test_groups_are_the_released_ones_in_their_order():
    expected = load("optim_groups_vit_base.json.gz")
    names, optimizer = optimizer_of()
    assert type(optimizer).__name__ == expected["optimizer"]["type"]
    assert list(optimizer.defaults["betas"]) == expected["optimizer"]["betas"]
    assert optimizer.defaults["eps"] == 1e-8
    found = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            found[names[id(parameter)]] = (group["lr"], group["weight_decay"])
    assert found.keys() == {name for name, *_ in expected["parameters"]} and len(found) == 235
    for name, _, lr, decay in expected["parameters"]:
        assert abs(found[name][0] - lr) <= 1e-9 * lr and found[name][1] == decay, name
    assert len(optimizer.param_groups) == 28
    groups = [
        (g["weight_decay"], len(g["params"]), sum(p.numel() for p in g["params"]))
        for g in optimizer.param_groups
    ]
    assert groups == [(decay, *sizes) for _, _, _, decay, *sizes in expected["groups"]]


def test_tables_and_the_class_token_can_be_spared_as_the_release_meant_to():
    tables = ("pos_embed", "cls_token", "relative_position_bias_table")
    names, optimizer = optimizer_of(
        *(f"optimizer.params.overrides.{name}.weight_decay=0.0" for name in tables)
    )
    spared = sum(len(g["params"]) for g in optimizer.param_groups if not g["weight_decay"])
    assert (spared, len(names)) == (154 + 14, 235)
