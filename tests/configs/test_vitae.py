"""The ViTAE configs and the unofficial ViTDet-B against the release."""

from functools import partial

import pytest
import torch
from config_files import (
    SYSTEMS,
    build_on_meta,
    count_parameters,
    head_of,
    load_stem,
    path_of,
    plain,
    state_dict_rows,
)
from golden_models import load
from mmdet_weights import arrays, batch_of, cases, filled, normals
from toy_runs import start_from_files

import detectron2.data.transforms as T
from detectron2.config import instantiate
from mimdet.checkpoint.convert.vitdet_mmdet import to_native
from mimdet.checkpoint.convert_file import convert_file
from mimdet.checkpoint.strict import StrictCheckpointer
from mimdet.config import apply_overrides
from mimdet.layers.pos_embed import interpolate_pos_embed
from mimdet.modeling.normed_heads import NormedRPNHead
from mimdet.solver.layer_decay import get_layer_lr_decay_rate, vitae_layer

VIT_B, VITAE_B, VITAE_S = STEMS = (
    "mask_rcnn_vitdet_b_unofficial_100ep",
    "mask_rcnn_vitae_b_100ep",
    "mask_rcnn_vitae_s_100ep",
)
# config -> name in the goldens, box AP, mask AP as published
RELEASED = {
    VIT_B: ("vit_base", 51.1, 45.5),
    VITAE_B: ("vitae_base", 51.6, 45.8),
    VITAE_S: ("vitae_small", 45.6, 40.1),
}
GROUPS = {
    VIT_B: "ViT-Base/num_layers=12",
    VITAE_B: "ViTAE-Base/num_layers=12",
    VITAE_S: "ViTAE-Small/num_layers=17",
}


def released_on_meta(stem: str) -> dict[str, torch.Tensor]:
    """The names and shapes of the released detector, converted."""
    shapes = load(f"vitdet/keys_unofficial_{RELEASED[stem][0]}.json.gz")
    return to_native({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})


def test_the_list_of_this_file_knows_every_config():
    assert {p.stem for p in SYSTEMS if p.parent.name == "vitae"} == set(STEMS)


@pytest.mark.parametrize("stem", STEMS)
def test_state_dict_is_that_of_the_converted_release(stem):
    rows = state_dict_rows(build_on_meta(load_stem(stem)))
    expected = {name: list(value.shape) for name, value in released_on_meta(stem).items()}
    assert {name: row[0] for name, row in rows.items()} == expected


@pytest.mark.parametrize("stem", STEMS)
def test_parameters_are_those_of_the_release(stem):
    total, trained = count_parameters(build_on_meta(load_stem(stem)))
    golden = load("vitdet/param_counts_unofficial.json")[RELEASED[stem][0]]
    # the release leaves out the key biases of ViTAE-B's four global blocks
    extra = 4 * 768 if stem == VITAE_B else 0
    assert (total - extra, trained - extra) == (golden["params"], golden["trainable"])
    assert (golden["params"], golden["trainable"]) == {
        VIT_B: (118_563_824, 118_563_824),
        VITAE_B: (121_334_768, 121_334_768),
        VITAE_S: (47_722_768, 47_699_728),
    }[stem]


@pytest.mark.parametrize("stem", STEMS)
def test_published_numbers_in_the_head_are_the_releases_own(stem):
    head = " ".join(head_of(path_of(stem)).split())
    _, box, mask = RELEASED[stem]
    published = head.split("Published (not reproduced here): ")[1]
    assert published.startswith(f"{box} box AP, {mask} mask AP on COCO val2017, batch 64")


def groups_of(stem: str, **overrides) -> dict[str, tuple[float, float]]:
    """name -> (learning-rate factor, weight decay) of every parameter that is trained."""
    cfg = load_stem(stem)
    cfg.optimizer.params.update(overrides)
    cfg.optimizer.params.model = model = build_on_meta(cfg)
    names = {parameter: name for name, parameter in model.named_parameters()}
    optimizer = instantiate(cfg.optimizer)
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    return {
        names[parameter]: (group["lr"] / cfg.optimizer.lr, group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("stem", STEMS)
def test_parameter_groups_are_those_of_the_release(stem):
    golden = load("vitdet/param_groups_unofficial.json.gz")[GROUPS[stem]]
    expected = {}
    for name, group in golden.items():
        if name.endswith(".v_bias"):
            assert group == golden[name.replace(".v_bias", ".q_bias")]  # one parameter here
        name = name.replace(".v_bias", ".q_bias")
        # the converter asks for the whole attention where biases are apart
        pair = [name, name.replace(".q_bias", ".v_bias")] if ".q_bias" in name else [name]
        (native,) = to_native({n: torch.empty(3, 1, device="meta") for n in pair})
        expected[native] = (group["factor"], group["wd"])
    actual = groups_of(stem)
    assert actual.keys() == expected.keys()
    for name, (factor, decay) in expected.items():
        assert actual[name] == (pytest.approx(factor, rel=1e-9), decay), name


def test_no_part_of_vitae_s_learns_faster_than_its_heads():
    factors = {factor for factor, _ in groups_of(VITAE_S).values()}
    assert len(factors) == 18 and max(factors) == 1  # 17 layers and what is above
    assert sorted(factors)[-2:] == pytest.approx([0.7**2, 1])


def test_the_12_layers_of_the_released_vitae_s_config_are_refused():
    golden = load("vitdet/param_groups_unofficial.json.gz")["ViTAE-Small/num_layers=12"]
    assert max(group["factor"] for group in golden.values()) == pytest.approx(0.7**-3)
    twelve = partial(
        get_layer_lr_decay_rate, layer_of=vitae_layer, lr_decay_rate=0.7, num_layers=12
    )
    message = r"num_layers must count all layers, got 12, but backbone.net.layers.2.NC.10"
    with pytest.raises(ValueError, match=message):
        groups_of(VITAE_S, lr_factor_func=twelve)


@pytest.mark.parametrize("stem", STEMS)
def test_released_schedule_and_batch_size(stem):
    cfg = load_stem(stem)
    assert cfg.dataloader.train.total_batch_size == 64
    assert (cfg.train.max_iter, cfg.train.eval_period) == (183250, 7330)
    assert not cfg.train.amp.enabled and cfg.optimizer.lr == 1e-4
    schedule = instantiate(cfg.lr_multiplier)
    points = {0: 0.067, 125: 0.5335, 250: 1, 161259: 1, 161260: 0.1, 175919: 0.1, 175920: 0.01}
    for iteration, multiplier in points.items():
        assert schedule(iteration / 183250) == pytest.approx(multiplier, abs=1e-9), iteration


@pytest.mark.parametrize("stem", STEMS)
def test_images_are_jittered_in_scale_and_padded_by_the_model(stem):
    cfg = load_stem(stem)
    augmentations = plain(cfg.dataloader.train.mapper.augmentations)
    # the release flips last: the same distribution, as the crop is anywhere with equal chance
    kinds = [T.RandomFlip, T.ResizeScale, T.FixedSizeCrop]
    assert [augmentation["_target_"] for augmentation in augmentations] == kinds
    assert augmentations[2]["pad"] is False
    model = build_on_meta(cfg)
    assert model.backbone.padding_constraints["square_size"] == 1024


def test_batch_norms_of_vitae_are_synchronised():
    for stem, count in ((VITAE_B, 12), (VITAE_S, 2 + 14 * 2)):
        model = build_on_meta(load_stem(stem))
        assert sum(isinstance(m, torch.nn.SyncBatchNorm) for m in model.modules()) == count
        assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())


def tiny_detector() -> torch.nn.Module:
    """The stored tiny detector, as it is initialised."""
    case = cases()["unofficial_detector_tiny"]
    overrides = [
        f"model.backbone.square_pad={case['side']}",
        f"model.backbone.net.embed_dim={case['dim']}",
        f"model.backbone.net.depth={case['depth']}",
        f"model.backbone.net.num_heads={case['heads']}",
        "model.backbone.net.window_block_indexes=[0,1]",
        f"model.backbone.out_channels={case['channels']}",
        f"model.roi_heads.num_classes={case['num_classes']}",
        f"model.roi_heads.box_head.conv_dims={[case['channels']] * 4}",
        "model.roi_heads.box_head.fc_dims=[40]",
        f"model.roi_heads.mask_head.conv_dims={[case['channels']] * 5}",
    ]
    return instantiate(apply_overrides(load_stem(VIT_B), overrides).model).eval()


def test_detector_computes_what_the_released_one_does_with_its_weights(tmp_path):
    case, expected = cases()["unofficial_detector_tiny"], arrays("unofficial_detector_tiny")
    model, channels = tiny_detector(), case["channels"]
    heads = model.roi_heads
    torch.save({"meta": {}, "state_dict": filled(case["keys"])}, tmp_path / "theirs.pth")
    StrictCheckpointer(model).load(str(tmp_path / "theirs.pth"))
    assert isinstance(model.proposal_generator.rpn_head, NormedRPNHead)
    with torch.no_grad():
        outputs = model.backbone(batch_of(case))
        logits, deltas = model.proposal_generator.rpn_head(list(outputs.values()))
        for k, level in enumerate(list(outputs)):
            outputs[f"rpn_cls_{level}"], outputs[f"rpn_reg_{level}"] = logits[k], deltas[k]
        boxes = normals("unofficial_detector_tiny_roi7", (3, channels, 7, 7))
        masks = normals("unofficial_detector_tiny_roi14", (3, channels, 14, 14))
        outputs["fc_cls"], outputs["fc_reg"] = heads.box_predictor(heads.box_head(boxes))
        outputs["mask_logits"] = heads.mask_head.layers(masks)
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        # 1e-4: the goldens' own tolerance
        torch.testing.assert_close(outputs[name], value, atol=1e-4, rtol=0, msg=name)


def test_mae_weights_start_the_blocks_and_leave_what_is_new(tmp_path, caplog):
    overrides = ["model.backbone.net.pretrain_img_size=64", f"mae_checkpoint.path={tmp_path}/m.pth"]
    cfg = apply_overrides(load_stem("vitae_b_mask_rcnn_toy"), overrides)
    model = instantiate(cfg.model)
    own = model.backbone.net.state_dict()
    new = {name for name in own if "PCM" in name or "rel_pos" in name}
    shapes = {name: list(own[name].shape) for name in own.keys() - new}
    shapes |= {"pos_embed": [1, 1 + 14 * 14, 96], "cls_token": [1, 1, 96], "mask_token": [1, 1, 64]}
    file = filled(shapes)
    torch.save({"model": file}, tmp_path / "m.pth")
    before = {name: own[name].clone() for name in new}
    with caplog.at_level("INFO", logger="mimdet"):
        start_from_files(cfg, model)
    after = model.backbone.net.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    for name in shapes.keys() & own.keys() - {"pos_embed"}:
        assert torch.equal(after[name], file[name]), name
    resized = interpolate_pos_embed(file["pos_embed"], (4, 4))[:, 1:]
    torch.testing.assert_close(after["pos_embed"], resized)
    assert f"{len(shapes) - 2} tensors loaded (pos_embed resized); {len(new)} (" in caplog.text
    assert "2 (cls_token, mask_token) of the file not used" in caplog.text


def test_weights_of_a_classifier_start_the_backbone_alone(tmp_path):
    model = instantiate(load_stem("vitae_s_mask_rcnn_toy").model)
    own = model.backbone.net.state_dict()
    shapes = {name: list(own[name].shape) for name in own if "rel_pos" not in name}
    file = filled(shapes | {"head.weight": [10, 96], "head.bias": [10]})
    torch.save({"state_dict": file}, tmp_path / "classifier.pth")
    paths = str(tmp_path / "classifier.pth"), str(tmp_path / "ours.pth")
    below_backbone = dict(renames=[("^", "backbone.")], drop=["backbone.head.*"])
    convert_file(*paths, source="vitdet_mmdet", **below_backbone)
    new = ["backbone.simfp_*", "proposal_generator.*", "roi_heads.*"]
    with pytest.raises(ValueError, match=r"rel_pos_h"):
        StrictCheckpointer(model, allow_missing=new).load(paths[1])
    StrictCheckpointer(model, allow_missing=[*new, "*.rel_pos_?"]).load(paths[1])
    after = model.backbone.net.state_dict()
    assert all(torch.equal(after[name], file[name]) for name in shapes)
