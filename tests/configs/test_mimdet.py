"""The MIMDet configs against the released detectors."""

import pytest
from config_files import (
    FILES,
    SYSTEMS,
    alias_target,
    build_on_meta,
    count_parameters,
    head_of,
    load_stem,
    path_of,
    state_dict_rows,
)
from golden_models import load

from detectron2.config import LazyConfig
from mimdet.config import apply_overrides

_ENCODER = "model.backbone.bottom_up.encoder"
_MASK_FILL_B = ("mimdet_vit_base_v10", [f"{_ENCODER}.img_size=224"])
# config -> released state dict and what differs between its config and ours
RELEASED = {
    "mimdet_vit_base_mask_rcnn_fpn_sr_0p25_800_1333_4xdec_coco_3x": _MASK_FILL_B,
    "mimdet_vit_base_mask_rcnn_fpn_sr_0p25_800_1333_4xdec_coco_3x_bs16": _MASK_FILL_B,
    "mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x": _MASK_FILL_B,
    "mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x_convfill": (
        "mimdet_vit_base_v12",
        [],
    ),
    "mimdet_vit_large_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x": ("mimdet_vit_large_v10", []),
    "mimdet_vit_large_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x_convfill": (
        "mimdet_vit_large_v12",
        [],
    ),
}

# config -> box AP, mask AP, millions of parameters as the releases print them
PUBLISHED = {
    "mimdet_vit_base_mask_rcnn_fpn_sr_0p25_800_1333_4xdec_coco_3x": (49.9, 44.7, 127.56),
    "mimdet_vit_base_mask_rcnn_fpn_sr_0p25_800_1333_4xdec_coco_3x_bs16": (49.9, 44.6, 127.56),
    "mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x": (51.5, 46.0, 127.56),
    "mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x_convfill": (51.7, 46.2, 127.96),
    "mimdet_vit_large_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x": (53.3, 47.5, 345.27),
    "mimdet_vit_large_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x_convfill": (54.3, 48.2, 349.33),
}

DETECTORS = [p for p in SYSTEMS if p.parent.name == "mimdet"]


def test_the_lists_of_this_file_know_every_released_detector():
    assert {p.stem for p in DETECTORS} == set(RELEASED) == set(PUBLISHED)


@pytest.mark.parametrize("stem", RELEASED)
def test_state_dict_is_that_of_the_released_detector(stem):
    name, overrides = RELEASED[stem]
    model = build_on_meta(apply_overrides(load_stem(stem), overrides))
    golden = load(f"keys/{name}.json.gz")
    assert golden["columns"] == ["name", "shape", "dtype", "kind", "requires_grad"]
    assert state_dict_rows(model) == {key: rest for key, *rest in golden["entries"]}
    assert count_parameters(model) == (golden["total_params"], golden["trainable_params"])


@pytest.mark.parametrize("stem", PUBLISHED)
def test_published_numbers_in_the_head_are_the_releases_own(stem):
    head = " ".join(head_of(path_of(stem)).split())
    box, mask, millions = PUBLISHED[stem]
    published, counted = head.split("Published (not reproduced here): ")[1].split("Counted here: ")
    assert published.startswith(f"{box} box AP, {mask} mask AP on COCO val2017 at ratio 1.0")
    assert f"{millions}M parameters." in published
    # 0.01M: the releases round up where we would round to the nearest
    assert int(counted.split()[0].replace(",", "")) == pytest.approx(millions * 1e6, abs=1e4)


def test_released_batch_sizes_schedules_and_speeds():
    large = {"3x": 2.0, "convfill": 3.5}
    for path in DETECTORS:
        cfg = LazyConfig.load(str(path))
        batch = 16 if path.stem.endswith("bs16") else 64
        epoch = 120000 // batch
        assert cfg.dataloader.train.total_batch_size == batch, path
        assert cfg.optimizer.lr == (4e-5 if batch == 16 else 8e-5), path
        assert cfg.train.max_iter == 36 * epoch
        assert cfg.train.eval_period == cfg.train.checkpointer.period == epoch
        assert cfg.lr_multiplier.scheduler.milestones == [27 * epoch, 33 * epoch]
        assert cfg.lr_multiplier.warmup_length == pytest.approx(0.25 / 36)
        multiplier = large[path.stem.split("_")[-1]] if "_large_" in path.stem else 2.0
        assert cfg.optimizer.params.multiplier == multiplier, path
        ratio = 0.25 if "_sr_0p25_" in path.stem else 0.5
        assert cfg.model.backbone.bottom_up.sample_ratio == ratio, path


def test_the_first_release_names_are_aliases():
    first = {p.stem.replace("_mr_", "_sr_"): p for p in FILES if "_mr_" in p.stem}
    assert first.keys() == {p.stem for p in DETECTORS if "_base_" in p.stem} - {
        "mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x_convfill"
    }
    assert all(alias_target(path).stem == stem for stem, path in first.items())
