"""The Benchmarking-ViT configs against the released detector."""

import numpy as np
import pytest
import torch
from config_files import (
    SYSTEMS,
    build_on_meta,
    count_parameters,
    head_of,
    load_stem,
    path_of,
    state_dict_rows,
)
from golden_models import load, names_sha256
from toy_runs import start_from_files

import detectron2.data.transforms as T
from detectron2.config import instantiate
from detectron2.solver import LRMultiplier
from mimdet.checkpoint.strict import StrictCheckpointer
from mimdet.config import apply_overrides

# epochs -> box AP, mask AP
PUBLISHED = {25: (48.0, 43.0), 50: (50.2, 44.9), 100: (50.4, 44.9)}
GOLDEN = load("optim/optim_lr_mimdet_v12_and_benchmarking.json")


def stem(epochs: int) -> str:
    return f"benchmarking_mask_rcnn_base_FPN_{epochs}ep_LSJ_mae"


def test_the_list_of_this_file_knows_every_config():
    assert {p.stem for p in SYSTEMS if p.parent.name == "benchmarking"} == {*map(stem, PUBLISHED)}


@pytest.mark.parametrize("epochs", PUBLISHED)
def test_state_dict_is_that_of_the_released_detector(epochs):
    model = build_on_meta(load_stem(stem(epochs)))
    golden = load("keys/benchmarking_vit_base.json.gz")
    assert golden["columns"] == ["name", "shape", "dtype", "kind", "requires_grad"]
    assert state_dict_rows(model) == {key: rest for key, *rest in golden["entries"]}
    assert count_parameters(model) == (golden["total_params"], golden["trainable_params"])


@pytest.mark.parametrize("epochs", PUBLISHED)
def test_published_numbers_in_the_head_are_the_releases_own(epochs):
    head = " ".join(head_of(path_of(stem(epochs))).split())
    box, mask = PUBLISHED[epochs]
    published = head.split("Published (not reproduced here): ")[1]
    assert published.startswith(f"{box} box AP, {mask} mask AP on COCO val2017, 118.67M parameters")


def test_groups_are_the_published_ones_in_their_order():
    expected = GOLDEN["groups"]["benchmarking_100ep"]
    cfg = load_stem(stem(100))
    cfg.optimizer.params.model = model = build_on_meta(cfg)
    optimizer = instantiate(cfg.optimizer)
    assert type(optimizer).__name__ == expected["optimizer"]
    for key in ("lr", "betas", "eps", "weight_decay", "amsgrad"):
        value = optimizer.defaults[key]
        assert (list(value) if key == "betas" else value) == expected["defaults"][key], key
    names = {id(parameter): n for n, parameter in model.named_parameters()}
    assert len(optimizer.param_groups) == expected["n_param_groups"]
    for group, wanted in zip(optimizer.param_groups, expected["groups_in_order"], strict=True):
        assert (group["lr"], group["weight_decay"]) == (wanted["lr"], wanted["weight_decay"])
        assert len(group["params"]) == wanted["n_tensors"]
        assert sum(p.numel() for p in group["params"]) == wanted["n_elements"]
        members = sorted(names[id(p)] for p in group["params"])
        assert names_sha256(members) == wanted["sorted_names_sha256"]
        assert members[:2] == wanted["first"] and members[-1:] == wanted["last"]


@pytest.mark.parametrize("epochs", PUBLISHED)
def test_schedule_is_the_published_one(epochs):
    expected, cfg = GOLDEN["lr"][f"benchmarking_{epochs}ep"], load_stem(stem(epochs))
    assert cfg.train.max_iter == expected["max_iter"]
    assert cfg.train.eval_period == expected["eval_period"]
    assert cfg.train.checkpointer.period == expected["checkpoint_period"]
    assert cfg.dataloader.train.total_batch_size == expected["total_batch_size"]
    assert cfg.optimizer.lr == expected["optimizer_lr"]
    assert cfg.lr_multiplier.warmup_factor == expected["warmup_factor"]
    warmup = cfg.lr_multiplier.warmup_length
    assert warmup == pytest.approx(expected["warmup_length"], rel=1e-12)
    assert warmup * cfg.train.max_iter == pytest.approx(expected["warmup_iterations"], rel=1e-12)
    assert cfg.train.output_dir == expected["output_dir"]
    scheduler = instantiate(cfg.lr_multiplier)
    for iteration, multiplier in expected["multiplier_at"].items():
        actual = scheduler(int(iteration) / expected["max_iter"])
        # 1e-15: near its end a cosine is a difference of two numbers near one
        assert actual == pytest.approx(multiplier, rel=1e-9, abs=1e-15), iteration


@pytest.mark.parametrize("epochs", PUBLISHED)
def test_the_rates_of_the_first_iterations_are_the_published_ones(epochs):
    cfg = load_stem(stem(epochs))
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=cfg.optimizer.lr)
    scheduler = LRMultiplier(optimizer, instantiate(cfg.lr_multiplier), cfg.train.max_iter)
    expected = GOLDEN["lr"][f"benchmarking_{epochs}ep"]["distinct_group_lr_first_3_iterations"]
    for wanted in expected:
        # stored with 12 decimals
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(wanted, abs=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("height, width", [(480, 640), (640, 427), (1500, 900)])
def test_every_image_becomes_a_square_with_its_content_at_the_top_left(height, width):
    dataloader = load_stem(stem(100)).dataloader
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for split in (dataloader.train, dataloader.test):
        augmentation = T.AugmentationList(
            [instantiate(a) for a in split.mapper.augmentations if "RandomFlip" not in str(a)]
        )
        np.random.seed(0)
        data = T.AugInput(image)
        augmentation(data)
        assert data.image.shape == (1024, 1024, 3)
        assert set(np.unique(data.image)) <= {0, 128} and not data.image[0, 0].any()
    scale = 1024 / max(height, width)
    content = (data.image == 0).all(axis=2)
    assert content.any(axis=1).sum() == round(height * scale)
    assert content.any(axis=0).sum() == round(width * scale)
    assert dataloader.train.mapper.recompute_boxes


def test_results_are_led_back_by_one_factor_and_the_backbone_is_fixed_to_the_square():
    model = load_stem(stem(100)).model
    assert model.lsj_postprocess
    assert model.backbone.bottom_up.img_size == 1024


def test_the_mae_file_comes_from_mae_checkpoint_path_and_is_none_by_default():
    cfg = load_stem(stem(100))
    assert cfg.train.starting_weights[0].path is None
    cfg.mae_checkpoint.path = "some.pth"
    assert cfg.train.starting_weights[0].path == "some.pth"


@pytest.mark.parametrize("table", ["sincos_pos_embed", "zero_pos_embed", None])
def test_the_files_position_table_is_taken_where_the_model_has_none_of_its_own(table):
    own_tables = ("sincos_pos_embed", "zero_pos_embed")
    chosen = [f"model.backbone.bottom_up.{name}={name == table}" for name in own_tables]
    cfg = apply_overrides(load_stem(stem(100)), chosen)
    expected = ["pos_embed"] if table else []
    assert instantiate(cfg.train.starting_weights[0]).leave == expected


def test_a_finished_model_loads_and_a_new_one_is_refused_where_the_mae_file_is_gone(tmp_path):
    cfg = load_stem("benchmarking_mask_rcnn_toy")
    cfg.mae_checkpoint.path = str(tmp_path / "gone.pth")
    model = instantiate(cfg.model)
    StrictCheckpointer(model, str(tmp_path)).save("model")
    StrictCheckpointer(instantiate(cfg.model)).load(str(tmp_path / "model.pth"))
    with pytest.raises(FileNotFoundError, match="gone.pth"):
        start_from_files(cfg, model)


def test_a_checkpoint_of_another_image_size_is_refused_with_both_shapes(tmp_path):
    cfg = load_stem("benchmarking_mask_rcnn_toy")
    StrictCheckpointer(instantiate(cfg.model), str(tmp_path)).save("model")
    cfg.model.backbone.bottom_up.img_size = 64
    message = r"pos_embed: \(1, 64, 128\) in the checkpoint, \(1, 16, 128\) in the model"
    with pytest.raises(ValueError, match=message):
        StrictCheckpointer(instantiate(cfg.model)).load(str(tmp_path / "model.pth"))
