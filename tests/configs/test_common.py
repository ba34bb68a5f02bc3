"""The parts that all configs share."""

import numpy as np
import pytest
from golden_models import CONFIGS
from omegaconf.errors import MissingMandatoryValue
from PIL import Image

from detectron2.config import LazyConfig, instantiate
from mimdet.engine.resume import build_train_loader

COMMON = CONFIGS / "common"


def multistep(*args, **kwargs):
    (make,) = LazyConfig.load(str(COMMON / "schedules.py"), keys=["multistep"])
    return make(*args, **kwargs)


@pytest.mark.parametrize(
    "name", ["mask_rcnn_fpn", "mask_rcnn_vit_fpn", "cascade_mask_rcnn_fpn", "retinanet_fpn"]
)
def test_detector_without_a_backbone_is_refused_by_the_key_that_is_missing(name):
    model = LazyConfig.load(str(COMMON / f"models/{name}.py")).model
    with pytest.raises(MissingMandatoryValue, match="bottom_up"):
        instantiate(model)


def test_vit_detector_differs_from_the_plain_one_only_where_it_says():
    model = LazyConfig.load(str(COMMON / "models/mask_rcnn_vit_fpn.py")).model
    assert model._target_.__name__ == "GeneralizedRCNNImageListForward"
    assert model.backbone.norm == "SyncBN"
    assert model.roi_heads.box_head.conv_norm == model.roi_heads.mask_head.conv_norm
    assert model.proposal_generator.head.conv_dims == [-1, -1]
    assert "lsj_postprocess" not in LazyConfig.load(str(COMMON / "models/mask_rcnn_fpn.py")).model


def test_cascade_asks_for_more_overlap_from_stage_to_stage():
    heads = LazyConfig.load(str(COMMON / "models/cascade_mask_rcnn_fpn.py")).model.roi_heads
    assert [m.thresholds[0] for m in heads.proposal_matchers] == [0.5, 0.6, 0.7]
    assert [p.box2box_transform.weights[0] for p in heads.box_predictors] == [10, 20, 30]
    assert all(p.cls_agnostic_bbox_reg for p in heads.box_predictors)
    assert not {"box_head", "box_predictor", "proposal_matcher"} & set(heads)


@pytest.mark.parametrize(
    "iteration, value",
    [
        (0, 0.0),  # warm-up starts from nothing
        (234.375, 0.5),
        (468.75, 1.0),
        (50624, 1.0),
        (50625, 0.1),
        (61874, 0.1),
        (61875, 0.01),
        (67499, 0.01),
    ],
)
def test_multistep_warms_up_and_drops_at_its_milestones(iteration, value):
    schedule = instantiate(multistep(67500, milestones=[50625, 61875], warmup_iters=468.75))
    assert schedule(iteration / 67500) == pytest.approx(value, abs=1e-12)


def test_multistep_warm_up_starts_from_the_given_factor():
    schedule = instantiate(multistep(100, [50], warmup_iters=10, warmup_factor=0.2))
    assert schedule(0.0) == pytest.approx(0.2)
    assert schedule(0.05) == pytest.approx(0.6)  # half-way from 0.2 to 1
    assert schedule(0.5) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "rescale_interval, values",
    [
        (True, {0: 0.0, 5: 0.5, 10: 1.0, 55: 0.55, 100: 0.1}),  # the whole cosine after 10 steps
        (False, {0: 0.0, 5: 0.4890, 10: 0.9780, 50: 0.55, 100: 0.1}),  # 0.1 + 0.9 * 0.9755 at 10
    ],
)
def test_cosine_warms_up_and_falls_to_its_end(rescale_interval, values):
    (make,) = LazyConfig.load(str(COMMON / "schedules.py"), keys=["cosine"])
    options = dict(end_value=0.1, rescale_interval=rescale_interval)
    schedule = instantiate(make(100, warmup_iters=10, **options))
    for iteration, value in values.items():
        done = min(iteration / 100, 1 - 1e-9)  # progress stays below 1
        assert schedule(done) == pytest.approx(value, abs=1e-4), iteration


def test_adamw_decays_at_its_own_rate_and_not_the_norms():
    optimizer = LazyConfig.load(str(COMMON / "optim.py")).AdamW
    optimizer.lr = 0.5
    assert optimizer.params.base_lr == 0.5
    assert optimizer.params.weight_decay_norm == 0.0


def test_sgd_decays_weights_and_not_the_norms():
    optimizer = LazyConfig.load(str(COMMON / "optim.py")).SGD
    assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 1e-4)
    assert optimizer.params.base_lr == optimizer.lr == 0.02
    assert optimizer.params.weight_decay_norm == 0.0


def test_evaluator_and_test_mapper_follow_their_loaders():
    dataloader = LazyConfig.load(str(COMMON / "data/coco.py")).dataloader
    dataloader.test.dataset.names = "other"
    dataloader.train.mapper.image_format = "BGR"
    assert dataloader.evaluator.dataset_name == "other"
    assert dataloader.test.mapper.image_format == "BGR"


def test_ade20k_crops_are_square_or_as_small_as_their_image(tmp_path):
    dataloader = LazyConfig.load(str(COMMON / "data/ade20k.py")).dataloader
    image, labels = str(tmp_path / "a.jpg"), str(tmp_path / "a.png")
    Image.new("RGB", (90, 60), (200, 100, 50)).save(image)
    Image.fromarray(np.resize(np.arange(150, dtype=np.uint8), (60, 90))).save(labels)
    record = {"file_name": image, "sem_seg_file_name": labels}
    mapper = instantiate(dataloader.train.mapper)
    for seed in range(8):
        np.random.seed(seed)
        mapped = mapper(record)
        assert mapped["sem_seg"].shape == mapped["image"].shape[1:]
        assert min(mapped["sem_seg"].shape) >= 256 and max(mapped["sem_seg"].shape) <= 512
        assert set(mapped["sem_seg"].unique().tolist()) <= set(range(150))
    tested = instantiate(dataloader.test.mapper)(record)
    assert tested["image"].shape == (3, 512, 768) and tested["height"] == 60


def test_toy_label_maps_come_in_batches_of_small_crops(toy_root):
    cfg = LazyConfig.load(str(COMMON / "data/toy_sem_seg.py"))
    cfg.toy.root = str(toy_root)
    cfg.dataloader.train.dataset.name = "test_toy_sem_seg"  # a name keeps its first folder
    batch = next(iter(build_train_loader(cfg.dataloader.train)))
    assert [tuple(entry["sem_seg"].shape) for entry in batch] == [(64, 64)] * 8
    found = {label for entry in batch for label in entry["sem_seg"].unique().tolist()}
    assert {0, 1} < found <= {0, 1, 2, 255}
