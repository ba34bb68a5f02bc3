"""The ViTDet configs against Detectron2's."""

import functools
import pickle

import numpy as np
import pytest
import torch
from config_files import SYSTEMS, build_on_meta, count_parameters, head_of, load_stem, path_of
from golden_models import GOLDEN, fill, load
from torch import nn

import detectron2.data.transforms as T
from detectron2.config import instantiate
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.evaluation import LVISEvaluator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from mimdet.checkpoint.strict import StrictCheckpointer
from mimdet.data.lvis import get_lvis_v1_cls_weights
from mimdet.solver.layer_decay import get_vit_lr_decay_rate
from mimdet.solver.param_groups import get_fpn_model_parameters

MASK_B = "mask_rcnn_vitdet_b_100ep"
# config -> parameters, state-dict entries, box AP, mask AP as published
RELEASED = {
    MASK_B: (110_895_792, 245, 51.6, 45.9),
    "mask_rcnn_vitdet_l_100ep": (330_684_656, 413, 55.5, 49.2),
    "mask_rcnn_vitdet_h_75ep": (661_203_760, 525, 56.7, 50.2),
    "cascade_mask_rcnn_vitdet_b_100ep": (141_160_990, 281, 54.0, 46.7),
    "cascade_mask_rcnn_vitdet_l_100ep": (360_949_854, 449, 57.6, 50.0),
    "cascade_mask_rcnn_vitdet_h_75ep": (691_468_958, 561, 58.7, 51.0),
    # The federated loss adds a buffer of weights to each predictor.
    "lvis_mask_rcnn_vitdet_b_100ep": (116_939_778, 246, 40.2, 38.2),
    "lvis_mask_rcnn_vitdet_l_100ep": (336_728_642, 414, 46.1, 43.6),
    "lvis_mask_rcnn_vitdet_h_100ep": (667_247_746, 526, 49.1, 46.0),
    "lvis_cascade_mask_rcnn_vitdet_b_100ep": (144_902_826, 284, 43.0, 38.9),
    "lvis_cascade_mask_rcnn_vitdet_l_100ep": (364_691_690, 452, 49.2, 44.5),
    "lvis_cascade_mask_rcnn_vitdet_h_100ep": (695_210_794, 564, 51.5, 46.6),
}
GOLDEN_NAMES = (MASK_B, "mask_rcnn_vitdet_l_100ep", "cascade_mask_rcnn_vitdet_b_100ep")
SIZES = {
    # blocks -> width, heads, blocks that see everything, drop path on COCO and LVIS, layer decay
    12: (768, 12, [2, 5, 8, 11], 0.1, 0.1, 0.7),
    24: (1024, 16, [5, 11, 17, 23], 0.4, 0.4, 0.8),
    32: (1280, 16, [7, 15, 23, 31], 0.5, 0.4, 0.9),
}


@functools.cache
def config(stem: str):
    """A config that is only read."""
    return load_stem(stem)


def test_the_list_of_this_file_knows_every_config():
    assert {p.stem for p in SYSTEMS if p.parent.name == "vitdet"} == set(RELEASED)


@pytest.mark.parametrize("stem", RELEASED)
def test_detector_has_the_published_numbers(stem):
    parameters, entries, box, mask = RELEASED[stem]
    model = build_on_meta(config(stem))
    assert count_parameters(model) == (parameters, parameters)
    assert len(model.state_dict()) == entries
    dataset = "LVIS v1 val" if stem.startswith("lvis") else "COCO val2017"
    published = f"Published (not reproduced here): {box} box AP, {mask} mask AP on {dataset}."
    assert published in head_of(path_of(stem))


@pytest.mark.parametrize("stem", GOLDEN_NAMES)
def test_state_dict_has_the_names_order_and_shapes_of_detectron2s(stem):
    model = build_on_meta(config(stem))
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert list(shapes.items()) == list(load(f"vitdet/keys_COCO_{stem}.json.gz").items())
    for part, count in load("vitdet/param_counts.json")[f"COCO_{stem}"]["by_part"].items():
        assert sum(p.numel() for n, p in model.named_parameters() if n.startswith(part)) == count


@pytest.mark.parametrize("stem", RELEASED)
def test_sizes_are_those_of_the_paper(stem):
    cfg = config(stem)
    net = cfg.model.backbone.net
    width, heads, everywhere, coco, lvis, decay = SIZES[net.depth]
    assert (net.embed_dim, net.num_heads) == (width, heads)
    assert [i for i in range(net.depth) if i not in net.window_block_indexes] == everywhere
    assert net.drop_path_rate == (lvis if stem.startswith("lvis") else coco)
    rate = cfg.optimizer.params.lr_factor_func
    assert rate.func is get_vit_lr_decay_rate
    assert rate.keywords == dict(lr_decay_rate=decay, num_layers=net.depth)
    assert instantiate(net.norm_layer)(8).eps == 1e-6


def test_factors_of_the_layer_decay_equal_detectron2s():
    for setting, factors in load("vitdet/lr_decay_function.json").items():
        rate, layers = setting.split("/")
        for name, factor in factors.items():
            if not name.startswith("module."):  # which is refused: its factor would be wrong
                actual = get_vit_lr_decay_rate(name, float(rate), int(layers))
                assert actual == pytest.approx(factor), name


def optimizer_of(stem: str, **params) -> tuple[torch.optim.Optimizer, dict[int, str]]:
    """The optimiser of a config on weights that take no memory, and the names of parameters."""
    cfg = load_stem(stem)
    model = build_on_meta(cfg)
    cfg.optimizer.params.update(params)
    cfg.optimizer.params.model = model
    return instantiate(cfg.optimizer), {id(p): n for n, p in model.named_parameters()}


def test_every_parameter_learns_and_decays_as_in_detectron2():
    golden = load(f"vitdet/param_groups_COCO_{MASK_B}.json.gz")
    optimizer, names = optimizer_of(MASK_B)
    assert len(optimizer.param_groups) == golden["groups"]
    assert list(optimizer.defaults["betas"]) == golden["betas"]
    seen = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            seen[names[id(parameter)]] = group["lr"], group["weight_decay"]
    assert seen.keys() == golden["params"].keys()
    for name, row in golden["params"].items():
        decay = golden["default_wd"] if row["wd"] is None else row["wd"]
        assert seen[name] == pytest.approx((row["lr"], decay)), name


def test_everything_decays_in_the_huge_models():
    for stem in RELEASED:
        if "_vitdet_h_" in stem:
            optimizer, _ = optimizer_of(stem)
            assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1}, stem


def test_vectors_and_positions_can_be_left_out_of_the_decay():
    cfg = load_stem(MASK_B)
    model = build_on_meta(cfg)
    groups = get_fpn_model_parameters(
        model,
        weight_decay=cfg.optimizer.weight_decay,
        base_lr=cfg.optimizer.lr,
        skip_list=("pos_embed", "rel_pos_h", "rel_pos_w"),
        multiplier=1.0,
        lr_factor_func=cfg.optimizer.params.lr_factor_func,
    )
    released, names = optimizer_of(MASK_B)
    speeds = {names[id(p)]: group["lr"] for group in released.param_groups for p in group["params"]}
    names = {id(p): n for n, p in model.named_parameters()}
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            exempt = parameter.ndim == 1 or "_pos" in name or "pos_embed" in name
            assert group["weight_decay"] == (0 if exempt else 0.1), name
            assert group["lr"] == pytest.approx(speeds[name]), name


def test_learning_rates_follow_detectron2s():
    golden = load("vitdet/lr_schedule.json")[f"COCO/{MASK_B}"]
    for stem in RELEASED:
        cfg = config(stem)
        if stem.startswith("lvis") or "75ep" in stem:
            continue
        assert cfg.train.max_iter == golden["max_iter"]
        assert cfg.train.eval_period == golden["eval_period"]
        assert cfg.lr_multiplier.scheduler.milestones == golden["milestones"]
        multiplier = instantiate(cfg.lr_multiplier)
        for iteration, factor in golden["points"]:
            assert multiplier(iteration / golden["max_iter"]) == pytest.approx(factor), stem


@pytest.mark.parametrize(
    "part, iterations, milestones, warmup, eval_period",
    [
        ("75ep", 138281, [122916, 133159], 250 / 184375, 5000),
        ("lvis", 156250, [138889, 150463], 250 / 156250, 30000),
    ],
)
def test_the_other_schedules_are_the_released_ones(
    part, iterations, milestones, warmup, eval_period
):
    for stem in RELEASED:
        if part in stem:
            cfg = config(stem)
            assert cfg.train.max_iter == iterations
            assert cfg.train.eval_period == eval_period
            assert cfg.lr_multiplier.scheduler.milestones == milestones
            assert cfg.lr_multiplier.warmup_length == pytest.approx(warmup)
            assert cfg.lr_multiplier.warmup_factor == 0.001


def test_released_speeds_batch_and_precision():
    for stem in RELEASED:
        cfg = config(stem)
        doubled = stem.startswith("lvis") and "_vitdet_h_" not in stem
        assert cfg.optimizer.lr == (2e-4 if doubled else 1e-4), stem
        assert cfg.optimizer.weight_decay == 0.1
        assert cfg.dataloader.train.total_batch_size == 64
        assert cfg.train.amp.enabled and cfg.train.ddp.fp16_compression
        assert not cfg.train.ddp.find_unused_parameters


def test_images_are_flipped_jittered_and_cropped_in_this_order_and_not_padded():
    train, test = (config(MASK_B).dataloader[key].mapper for key in ("train", "test"))
    flip, resize, crop = instantiate(train.augmentations)
    assert isinstance(flip, T.RandomFlip) and flip.horizontal and flip.prob == 0.5
    assert isinstance(resize, T.ResizeScale) and isinstance(crop, T.FixedSizeCrop)
    assert (resize.min_scale, resize.max_scale) == (0.1, 2.0)
    assert (resize.target_height, resize.target_width) == (1024, 1024)
    assert tuple(crop.crop_size) == (1024, 1024) and not crop.pad
    assert train.recompute_boxes and train.use_instance_mask and train.image_format == "RGB"
    (shorter,) = instantiate(test.augmentations)
    assert isinstance(shorter, T.ResizeShortestEdge)
    assert (tuple(shorter.short_edge_length), shorter.max_size) == ((1024, 1024), 1024)


def cut_down(stem: str, window_size: int = 14) -> nn.Module:
    """The detector of a config with all its names but small."""
    model = load_stem(stem).model
    model.backbone.net.update(embed_dim=32, depth=2, num_heads=2, window_size=window_size)
    model.backbone.net.window_block_indexes = [0]
    model.backbone.out_channels = 8
    heads = model.roi_heads
    for head in heads.get("box_heads") or [heads.box_head]:
        head.update(conv_dims=[8, 8], fc_dims=[8])
    heads.mask_head.conv_dims = [8, 8]
    return instantiate(model)


@pytest.mark.parametrize("stem", [MASK_B, "lvis_cascade_mask_rcnn_vitdet_b_100ep"])
def test_a_pickle_of_arrays_under_the_released_names_loads_whole_and_as_it_is(stem, tmp_path):
    model = fill(cut_down(stem))
    released = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    path = tmp_path / "model_final_61ccd1.pkl"
    path.write_bytes(pickle.dumps({"model": released, "__author__": "Detectron2"}))
    fresh = cut_down(stem)
    StrictCheckpointer(fresh).load(str(path))
    for name, value in fresh.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), released[name], name)

    with pytest.raises(ValueError, match=r"blocks.0.attn.rel_pos_h.*\(27, 16\).*\(13, 16\)"):
        StrictCheckpointer(cut_down(stem, window_size=7)).load(str(path))


LVIS = [stem for stem in RELEASED if stem.startswith("lvis")]


@pytest.mark.parametrize("stem", LVIS)
def test_lvis_configs_take_its_images_metrics_and_loss(stem):
    cfg = config(stem)
    assert cfg.dataloader.train.dataset.names == "lvis_v1_train"
    sampler = cfg.dataloader.train.sampler
    assert sampler._target_ is RepeatFactorTrainingSampler
    assert sampler.repeat_factors.dataset_dicts == cfg.dataloader.train.dataset
    assert sampler.repeat_factors.repeat_thresh == 0.001
    assert cfg.dataloader.test.dataset.names == cfg.dataloader.evaluator.dataset_name
    assert cfg.dataloader.evaluator.dataset_name == "lvis_v1_val"
    assert cfg.dataloader.evaluator._target_ is LVISEvaluator
    assert cfg.dataloader.evaluator.max_dets_per_image == 300
    heads = cfg.model.roi_heads
    assert heads.num_classes == 1203
    predictors = heads.get("box_predictors") or [heads.box_predictor]
    assert len(predictors) == (3 if "cascade" in stem else 1)
    for predictor in map(instantiate, predictors):
        assert (predictor.test_score_thresh, predictor.test_topk_per_image) == (0.02, 300)
        assert predictor.use_sigmoid_ce and predictor.use_fed_loss
        assert predictor.fed_loss_num_classes == 50
        assert torch.equal(predictor.fed_loss_cls_weights, get_lvis_v1_cls_weights())


@pytest.mark.parametrize("federated", [False, True])
def test_classification_loss_is_detectron2s(federated):
    golden = np.load(GOLDEN / "vitdet/fed_loss_a.npz")
    weights = torch.from_numpy(golden["cls_weights"])
    predictor = FastRCNNOutputLayers(
        4,
        box2box_transform=Box2BoxTransform(weights=(10, 10, 5, 5)),
        num_classes=len(weights),
        use_sigmoid_ce=True,
        use_fed_loss=federated,
        get_fed_loss_cls_weights=lambda: weights,
        fed_loss_num_classes=int(golden["fed_num_classes"]),
    )
    logits, classes = (torch.from_numpy(golden[key]) for key in ("logits", "gt_classes"))
    loss = predictor._sigmoid_cross_entropy(logits, classes)
    expected = golden["loss_fed" if federated else "loss_no_fed"]
    assert loss.item() == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.lite
def test_federated_classes_are_drawn_as_in_detectron2():
    from detectron2.modeling.roi_heads.fast_rcnn import federated_classes

    golden = np.load(GOLDEN / "vitdet/fed_loss_a.npz")
    weights = torch.from_numpy(golden["cls_weights"])
    torch.manual_seed(int(golden["sampled_seed"]))
    chosen = federated_classes(
        torch.from_numpy(golden["gt_classes"]), int(golden["sampled_num"]), len(weights), weights
    )
    assert chosen.tolist() == golden["sampled_classes"].tolist()


@pytest.mark.parametrize("kind", ["sqrt", "linear"])
def test_repeat_factors_are_detectron2s(kind):
    golden = load("vitdet/repeat_factor_a.json.gz")
    dicts = [
        {"annotations": [{"category_id": c} for c in categories]}
        for categories in golden["categories_per_image"]
    ]
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        dicts, golden["repeat_thresh"], sqrt=kind == "sqrt"
    )
    assert factors.tolist() == pytest.approx(golden[f"repeat_factors_{kind}"], rel=1e-6)


def test_images_are_repeated_in_detectron2s_order():
    golden = load("vitdet/repeat_factor_a.json.gz")
    factors = torch.tensor(golden["repeat_factors_sqrt"])
    sampler = iter(RepeatFactorTrainingSampler(factors, seed=7))
    assert [next(sampler) for _ in range(200)] == golden["first_200_indices_seed7"]
