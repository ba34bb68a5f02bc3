"""The MPViT configs against the released detectors."""

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

import detectron2.data.transforms as T
from detectron2.config import instantiate
from mimdet.config import apply_overrides

OPTIM = load("optim/optim_lr_mpvit.json")
NAMES = {"tiny": "mpvit_tiny", "xs": "mpvit_xsmall", "small": "mpvit_small", "base": "mpvit_base"}
DROP_PATH = {"tiny": 0.1, "xs": 0.1, "small": 0.2, "base": 0.4}
# (detector, size) -> AP at 1x and at MS+3x (box, or box and mask), 1e6 parameters, 1e9 operations
PUBLISHED = {
    ("retinanet", "tiny"): ("41.8 box", "44.4 box", 17, 196),
    ("retinanet", "xs"): ("43.8 box", "46.1 box", 20, 211),
    ("retinanet", "small"): ("45.7 box", "47.6 box", 32, 248),
    ("retinanet", "base"): ("47.0 box", "48.3 box", 85, 482),
    ("mask_rcnn", "tiny"): ("42.2 box AP, 39.0 mask", "44.8 box AP, 41.0 mask", 28, 216),
    ("mask_rcnn", "xs"): ("44.2 box AP, 40.4 mask", "46.6 box AP, 42.3 mask", 30, 231),
    ("mask_rcnn", "small"): ("46.4 box AP, 42.4 mask", "48.4 box AP, 43.9 mask", 43, 268),
    ("mask_rcnn", "base"): ("48.2 box AP, 43.5 mask", "49.5 box AP, 44.5 mask", 95, 503),
}
SCHEDULES = ("1x", "ms_3x")
PLAIN = [(*key, schedule) for key in PUBLISHED for schedule in SCHEDULES]
CASCADES = [("cascade_mask_rcnn", size, "ms_3x") for size in ("small", "base")]
ALL = PLAIN + CASCADES


def stem_of(detector: str, size: str, schedule: str) -> str:
    return f"{detector}_mpvit_{size}_{schedule}"


def test_the_lists_of_this_file_know_every_config():
    files = {path.stem for path in SYSTEMS if path.parent.name == "mpvit"}
    assert {stem_of(*case) for case in ALL} == files


# one schedule is enough: the next test holds that models do not depend on it
@pytest.mark.parametrize(
    "detector, size, schedule", [c for c in ALL if c in CASCADES or c[2] == "1x"]
)
def test_state_dict_is_that_of_the_released_detector_without_aliases(detector, size, schedule):
    model = build_on_meta(load_stem(stem_of(detector, size, schedule)))
    golden = load(f"keys/mpvit_{size}_{detector}.json.gz")
    rows = {name: rest for name, *rest in golden["entries"] if not rest[2].startswith("alias of")}
    assert state_dict_rows(model) == rows
    assert count_parameters(model) == (golden["total_params"], golden["trainable_params"])
    assert count_parameters(model.backbone.bottom_up)[0] == golden["backbone_params"]


@pytest.mark.parametrize("detector, size", PUBLISHED)
def test_the_two_schedules_have_one_model(detector, size):
    short, long = (load_stem(stem_of(detector, size, schedule)).model for schedule in SCHEDULES)
    assert short == long


@pytest.mark.parametrize("detector, millions", [("retinanet", 17.412212), ("mask_rcnn", 28.019824)])
def test_the_published_t_has_mlp_ratio_4(detector, millions):
    wide = ["model.backbone.bottom_up.mlp_ratios=[4,4,4,4]"]
    cfg = apply_overrides(load_stem(stem_of(detector, "tiny", "1x")), wide)
    assert count_parameters(build_on_meta(cfg))[0] == round(millions * 1e6)
    assert round(millions) == PUBLISHED[detector, "tiny"][2]


@pytest.mark.parametrize("detector, size, schedule", PLAIN)
def test_published_numbers_in_the_head_are_the_papers(detector, size, schedule):
    head = " ".join(head_of(path_of(stem_of(detector, size, schedule))).split())
    *ap, millions, operations = PUBLISHED[detector, size]
    _, published = head.split("Published (not reproduced here): ")
    assert published.startswith(
        f"{ap[SCHEDULES.index(schedule)]} AP on COCO val2017, {millions}M parameters, "
        f"{operations} GFLOPs."
    )


@pytest.mark.parametrize("detector, size, schedule", ALL)
def test_size_drop_path_and_top_block_fit_the_name(detector, size, schedule):
    model = load_stem(stem_of(detector, size, schedule)).model
    bottom_up = model.backbone.bottom_up
    assert (bottom_up.name, bottom_up.norm) == (NAMES[size], "SyncBN")
    is_large_cascade = (detector, size) == ("cascade_mask_rcnn", "base")
    assert bottom_up.drop_path == (0.5 if is_large_cascade else DROP_PATH[size])
    if detector == "retinanet":
        with torch.device("meta"):
            last = instantiate(bottom_up).output_shape()["stage5"]
        assert model.backbone.top_block.in_channels == last.channels


@pytest.mark.parametrize("detector, size, schedule", ALL)
def test_batch_schedule_and_augmentation_are_the_released_ones(detector, size, schedule):
    cfg = load_stem(stem_of(detector, size, schedule))
    # any record of that schedule: upstream has one for all sizes
    expected = OPTIM["lr"][
        "mpvit_tiny_retinanet_1x" if schedule == "1x" else "mpvit_tiny_mask_rcnn_ms_3x"
    ]
    assert cfg.train.max_iter == expected["max_iter"]
    assert cfg.train.eval_period == cfg.train.checkpointer.period == 10000
    assert cfg.dataloader.train.total_batch_size == expected["ims_per_batch"]
    assert cfg.dataloader.train.num_workers == expected["num_workers"]
    assert cfg.dataloader.train.dataset.filter_empty is expected["filter_empty"]
    assert cfg.dataloader.train.mapper.use_instance_mask == ("mask" in detector)
    assert not cfg.train.amp.enabled
    multiplier = instantiate(cfg.lr_multiplier)
    for iteration, value in expected["multiplier_at"].items():
        progress = int(iteration) / expected["max_iter"]
        assert multiplier(progress) == pytest.approx(value, rel=1e-9), iteration

    augmentations = [instantiate(a) for a in cfg.dataloader.train.mapper.augmentations]
    resize = next(a for a in augmentations if isinstance(a, T.ResizeShortestEdge))
    sizes = resize.short_edge_length
    assert list(np.unique(sizes)) == expected["min_size_train"]
    assert resize.max_size == expected["max_size_train"]
    crops = [a for a in augmentations if isinstance(a, T.RandomApply)]
    assert bool(crops) == expected["detr_aug"]
    if crops:
        _, crop = crops[0].aug.augs
        assert [crop.crop_type, list(crop.crop_size)] == [
            expected["crop"]["type"],
            expected["crop"]["size"],
        ]


def test_half_of_the_images_are_cropped_in_the_long_schedule():
    np.random.seed(0)
    cfg = load_stem(stem_of("mask_rcnn", "tiny", "ms_3x"))
    augmentation = instantiate(cfg.dataloader.train.mapper).augmentations
    cropped = 0
    for _ in range(200):
        transforms = augmentation(T.AugInput(np.zeros((60, 80, 3), dtype=np.uint8)))
        kinds = {type(t).__name__ for t in transforms.transforms}
        cropped += "CropTransform" in kinds
    assert 80 <= cropped <= 120


@pytest.mark.parametrize("case", OPTIM["groups"])
def test_every_parameter_learns_at_one_speed_and_is_decayed(case):
    golden, schedule = OPTIM["groups"][case], OPTIM["lr"][case]
    cfg = load_stem(schedule["config"].removesuffix(".yaml"))
    model = build_on_meta(cfg)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    assert type(optimizer).__name__ in golden["class_bases"]
    defaults = optimizer.defaults
    assert [*defaults["betas"], defaults["eps"]] == [*golden["defaults"]["betas"], 1e-8]
    (group,) = optimizer.param_groups  # upstream has one per parameter, with the same settings
    (wanted,) = golden["by_lr_and_weight_decay"]
    assert (group["lr"], group["weight_decay"]) == (wanted["lr"], wanted["weight_decay"])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert len(group["params"]) == wanted["n_tensors"]
    assert sum(p.numel() for p in group["params"]) == wanted["n_elements"]
    assert names_sha256(names[id(p)] for p in group["params"]) == wanted["sorted_names_sha256"]
    assert cfg.train.clip_grad.max_norm == schedule["clip"]["CLIP_VALUE"]
    assert cfg.model.backbone.bottom_up.drop_path == schedule["drop_path"]


def test_norms_and_biases_can_be_exempted_from_decay():
    cfg = load_stem("retinanet_mpvit_tiny_1x")
    flags = [f"optimizer.params.weight_decay_{kind}=0.0" for kind in ("norm", "bias")]
    cfg = apply_overrides(cfg, flags)
    model = build_on_meta(cfg)
    cfg.optimizer.params.model = model
    groups = {g["weight_decay"]: g["params"] for g in instantiate(cfg.optimizer).param_groups}
    assert set(groups) == {0.0, 0.05}
    assert all(p.ndim == 1 for p in groups[0.0]) and all(p.ndim > 1 for p in groups[0.05])


def test_the_cascade_proposes_2000_boxes_in_training():
    for size in ("small", "base"):
        model = load_stem(f"cascade_mask_rcnn_mpvit_{size}_ms_3x").model
        assert list(model.proposal_generator.post_nms_topk) == [2000, 1000]
        assert len(model.roi_heads.box_heads) == 3
