"""ViTDet's backbone and detectors against Detectron2's outputs, and their own invariants."""

from functools import partial

import numpy as np
import pytest
import torch
from config_files import load_stem
from golden_data import state_dict_shapes
from golden_models import GOLDEN, fill, image, load
from torch import nn

from detectron2.config import instantiate
from detectron2.layers.batch_norm import LayerNorm
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.structures import ImageList
from mimdet.modeling.backbone.vitdet import SimpleFeaturePyramid, ViT
from mimdet.modeling.postprocessing import image_masks

CASES = load("vitdet/backbone_cases.json.gz")
MEAN = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
STD = torch.tensor([58.395, 57.12, 57.375])[:, None, None]
TINY = dict(
    img_size=64, embed_dim=24, depth=4, num_heads=2, use_rel_pos=True, window_size=3
) | dict(window_block_indexes=(0, 2), pretrain_img_size=64)


def backbone_of(case: dict, **changes) -> SimpleFeaturePyramid:
    """The backbone of a golden record, filled by the rule."""
    pyramid = dict(case["sfp"])
    top_block = LastLevelMaxPool() if pyramid.pop("top") else None
    with torch.device("meta"):  # no time for weights that are replaced
        net = ViT(**case["vit"], norm_layer=partial(nn.LayerNorm, eps=1e-6), **changes)
        backbone = SimpleFeaturePyramid(net, **pyramid, top_block=top_block)
    return fill(backbone.to_empty(device="cpu"))


def batch_of(case: dict) -> torch.Tensor:
    first, count = case["first_image"], case["batch"]
    images = [image(first + i, *case["image_hw"]) for i in range(count)]
    return torch.stack([(x.float() - MEAN) / STD for x in images])


def tiny(**changes) -> ViT:
    torch.manual_seed(0)
    return ViT(**(TINY | changes))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# Of the real size only the form that a CPU takes: each run of it makes 91 million weights.
RUNS = [(name, form) for name in CASES for form in ("chunks", "folded")][:-1]


@pytest.mark.parametrize("name, form", RUNS)
def test_names_and_features_equal_detectron2s(name, form):
    case = CASES[name]
    backbone = backbone_of(case, attn_impl=form).eval()
    assert state_dict_shapes(backbone) == [[n, shape] for n, shape in case["keys"].items()]
    assert sum(p.numel() for p in backbone.parameters()) == case["params"]
    strides = {n: shape.stride for n, shape in backbone.output_shape().items()}
    assert strides == case["out_strides"]
    with torch.no_grad():
        inner = backbone.net(batch_of(case))
        backbone.net.forward = lambda _: inner  # the pyramid on what the net gave
        features = {**backbone(None), **inner}
    expected = np.load(GOLDEN / f"vitdet/backbone_{name}.npz")
    for key, stored in expected.items():
        if key.startswith("mean_"):
            actual = features[key.removeprefix("mean_")].mean(dim=(2, 3))
        elif key.startswith("absmean_"):
            actual = features[key.removeprefix("absmean_")].abs().mean(dim=(2, 3))
        else:
            assert key == "last_feat" or list(features[key].shape) == case["shapes"][key]
            actual = features[key][:, : stored.shape[1]]
        np.testing.assert_allclose(actual, stored, atol=1e-4, rtol=0, err_msg=key)


def tiny_detector(case: dict) -> nn.Module:
    """The config of a golden record, cut down as its README says."""
    cfg = load_stem(case["based_on"].split("/")[1])
    tiny_args, model = case["tiny_args"], cfg.model
    model.backbone.net.update(
        embed_dim=tiny_args["dim"],
        depth=tiny_args["depth"],
        num_heads=tiny_args["heads"],
        window_size=tiny_args["win"],
        window_block_indexes=list(range(0, tiny_args["depth"], 2)),
    )
    model.backbone.update(out_channels=tiny_args["out"], square_pad=tiny_args["side"])
    rpn, heads = model.proposal_generator, model.roi_heads
    rpn.anchor_generator.sizes = [[8], [16], [32], [64], [96]]
    rpn.update(pre_nms_topk=tiny_args["topk"], post_nms_topk=[60, 40])
    heads.num_classes = tiny_args["ncls"]
    for head in heads.get("box_heads") or [heads.box_head]:
        head.update(conv_dims=[tiny_args["out"]] * 4, fc_dims=[tiny_args["fc"]])
    for predictor in heads.get("box_predictors") or [heads.box_predictor]:
        predictor.update(test_score_thresh=0.02, test_topk_per_image=20)
    heads.mask_head.conv_dims = [tiny_args["out"]] * 5
    return fill(instantiate(model)).eval()


@pytest.mark.parametrize("name", ["mask_rcnn", "cascade"])
def test_detector_finds_what_detectron2s_finds(name):
    case = load("vitdet/detector_cases.json.gz")[name]
    expected = np.load(GOLDEN / f"vitdet/detector_{name}.npz")
    model = tiny_detector(case)
    assert state_dict_shapes(model) == [[n, shape] for n, shape in case["keys"].items()]
    inputs = [
        dict(image=image(case["first_image"] + i, *size), height=height, width=width)
        for i, (size, (height, width)) in enumerate(case["sizes"])
    ]
    with torch.no_grad():
        images = model.preprocess_image(inputs)
        proposals, _ = model.proposal_generator(images, model.backbone(images.tensor), None)
        raw, scaled = model.inference(inputs, do_postprocess=False), model(inputs)
    assert list(images.tensor.shape) == expected["preprocessed_shape"].tolist()
    absmean = images.tensor.abs().mean(dim=(2, 3))
    np.testing.assert_allclose(absmean, expected["preprocessed_absmean"], rtol=1e-5)
    for i in range(len(inputs)):
        found, results = raw[i], scaled[i]["instances"]
        pairs = [
            (proposals[i].proposal_boxes.tensor, f"prop_boxes_{i}", 2e-3),
            (proposals[i].objectness_logits, f"prop_logits_{i}", 1e-4),
            (found.pred_boxes.tensor, f"raw_boxes_{i}", 2e-3),
            (found.scores, f"raw_scores_{i}", 1e-4),
            (found.pred_classes, f"raw_classes_{i}", 0),
            (found.pred_masks, f"raw_masks28_{i}", 1e-3),
            (results.pred_boxes.tensor, f"post_boxes_{i}", 2e-3),
            (results.scores, f"post_scores_{i}", 1e-4),
            (results.pred_classes, f"post_classes_{i}", 0),
        ]
        for actual, key, tolerance in pairs:
            np.testing.assert_allclose(actual, expected[key], atol=tolerance, rtol=0, err_msg=key)
        shape = expected[f"post_masks_shape_{i}"]
        bits = np.unpackbits(expected[f"post_masks_packed_{i}"], count=int(np.prod(shape)))
        assert (image_masks(results).numpy() == bits.reshape(shape)).mean() >= 0.995


@pytest.mark.parametrize(
    "kind, shapes",
    [
        ("bottleneck", [(12, 24, 1, 1), (12, 12, 3, 3), (24, 12, 1, 1)]),
        ("basic", [(24, 24, 3, 3), (24, 24, 3, 3)]),
        ("naive", [(24, 24, 3, 3)]),
    ],
)
def test_convolutions_after_a_block_change_nothing_until_they_are_trained(kind, shapes):
    x = noise(1, 3, 64, 64)
    plain = tiny(use_rel_pos=False)
    net = tiny(use_rel_pos=False, residual_block_indexes=(1, 3), residual_block_type=kind)
    added = {n: v for n, v in net.state_dict().items() if "residual" in n}
    convs = {n: v for n, v in added.items() if "conv" in n}
    names = [
        f"blocks.{i}.residual.conv{k}.weight" for i in (1, 3) for k in range(1, len(shapes) + 1)
    ]
    assert list(convs) == names
    assert [tuple(v.shape) for v in convs.values()] == 2 * shapes
    net.load_state_dict({**plain.state_dict(), **added})
    assert torch.equal(net(x)["last_feat"], plain(x)["last_feat"])
    nn.init.ones_(net.get_parameter(f"blocks.1.residual.norm{len(shapes)}.weight"))
    assert not torch.allclose(net(x)["last_feat"], plain(x)["last_feat"], atol=1e-3)


def test_a_bottleneck_carries_information_across_windows():
    net = tiny(window_block_indexes=range(4), residual_block_indexes=(1, 2))
    other = tiny(window_block_indexes=range(4), residual_block_type="none")
    for block in net.blocks:
        if block.residual is not None:
            nn.init.ones_(block.residual.norm3.weight)
    x = noise(1, 3, 96, 96)
    changed = x.clone()
    changed[..., :16, :16] += 1  # a token of the first of four windows of 3x3
    for vit, reached in ((net, True), (other, False)):
        difference = (vit(changed)["last_feat"] - vit(x)["last_feat"]).abs().amax(dim=1)[0]
        assert difference[:3, :3].min() > 0
        assert bool(difference[3:, 3:].max() > 0) == reached


def test_type_none_has_no_convolutions_whatever_the_indexes():
    net = tiny(residual_block_indexes=(1, 3), residual_block_type="none")
    assert not any("residual" in name for name in net.state_dict())


def test_fresh_weights_are_truncated_normal_and_positions_start_as_told():
    net = tiny(embed_dim=192, residual_block_indexes=(1,))
    for name in ("blocks.0.attn.qkv.weight", "blocks.1.mlp.fc1.weight", "pos_embed"):
        std = net.get_parameter(name).std().item()
        assert std == pytest.approx(0.02, rel=0.1), name
    assert not net.blocks[0].attn.qkv.bias.any() and not net.blocks[0].attn.rel_pos_h.any()
    # He's initialisation by the fan out of the 3x3 convolution
    std = net.blocks[1].residual.conv2.weight.std().item()
    assert std == pytest.approx((2 / (96 * 9)) ** 0.5, rel=0.05)
    rows = tiny(embed_dim=192, rel_pos_zero_init=False).blocks[1].attn.rel_pos_h
    assert rows.std().item() == pytest.approx(0.02, rel=0.15)


def test_drop_path_grows_linearly_to_the_last_block():
    rates = [getattr(b.drop_path, "drop_prob", 0.0) for b in tiny(drop_path_rate=0.3).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize("form", ["chunks", "folded"])
def test_checkpointing_changes_neither_names_nor_outputs_nor_gradients(form):
    results = []
    for checkpointing in (False, True):
        arguments = dict(drop_path_rate=0.5, residual_block_indexes=(1,), attn_impl=form)
        net = tiny(**arguments, rel_pos_zero_init=False, use_act_checkpoint=checkpointing).train()
        torch.manual_seed(1)
        output = net(noise(2, 3, 64, 80))["last_feat"]
        output.square().sum().backward()
        results.append({"": output, **{n: p.grad for n, p in net.named_parameters()}})
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


def test_an_incomplete_patch_is_padded_by_the_mean_colour():
    net, x = tiny(), noise(1, 3, 50, 33)
    padded = nn.functional.pad(x, (0, 15, 0, 14))
    assert net(x)["last_feat"].shape == (1, 24, 4, 3)
    assert torch.equal(net(x)["last_feat"], net(padded)["last_feat"])


def test_evaluation_caches_give_the_trained_network_and_are_not_saved():
    net, x = tiny(rel_pos_zero_init=False), noise(1, 3, 48, 80)  # all tables are resized
    trained, names = net(x)["last_feat"], set(net.state_dict())
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(net.eval()(x)["last_feat"], trained)
    assert set(net.state_dict()) == names
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    net.train()(x)["last_feat"].square().mean().backward()
    optimizer.step()
    with torch.no_grad():
        evaluated = net.eval()(x)["last_feat"]
    torch.testing.assert_close(evaluated, net(x)["last_feat"].detach())


def test_mixed_precision_on_a_cpu_is_within_its_rounding():
    net, x = tiny(rel_pos_zero_init=False), noise(2, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = net(x)["last_feat"]
        rounded.float().square().mean().backward()
    torch.testing.assert_close(rounded.float(), net(x)["last_feat"], atol=0.05, rtol=0.05)
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in net.parameters())


def pyramid(**changes) -> SimpleFeaturePyramid:
    arguments = dict(in_feature="last_feat", out_channels=8, scale_factors=(4.0, 2.0, 1.0, 0.5))
    return SimpleFeaturePyramid(tiny(), **(arguments | changes))


def test_pyramid_can_keep_the_channels_and_has_the_given_eps_in_its_convolutions():
    module = pyramid(keep_channels=True, norm_eps=1e-3)
    assert module.simfp_2[0].weight.shape == module.simfp_2[3].weight.shape == (24, 24, 2, 2)
    assert module.simfp_2[4].weight.shape == (8, 24, 1, 1)
    assert module.simfp_3[0].weight.shape == (24, 24, 2, 2)
    eps = {n: m.eps for n, m in module.named_modules() if isinstance(m, LayerNorm)}
    assert eps.pop("simfp_2.1") == 1e-6  # of the deconvolution, not of a convolution
    assert len(eps) == 8 and set(eps.values()) == {1e-3}


def test_pyramid_without_norm_has_biases_at_the_same_names():
    with_norm, without = pyramid(), pyramid(norm="")
    norms = {n for n in with_norm.state_dict() if "norm" in n.split(".") or "simfp_2.1." in n}
    convs = {"2.4", "2.5", "3.1", "3.2", "4.0", "4.1", "5.1", "5.2"}
    biases = {f"simfp_{c}.bias" for c in convs}
    assert len(norms) == 2 * 9
    assert set(without.state_dict()) == set(with_norm.state_dict()) - norms | biases
    assert without(noise(1, 3, 64, 64))["p2"].shape == (1, 8, 16, 16)


def test_an_eps_without_a_norm_is_refused():
    with pytest.raises(ValueError, match="norm_eps is the eps of a norm, got 1e-05 with norm ''"):
        pyramid(norm="", norm_eps=1e-5)


def test_images_are_padded_to_the_square_and_otherwise_to_the_coarsest_stride():
    assert pyramid().size_divisibility == 32
    model = tiny_detector(load("vitdet/detector_cases.json.gz")["mask_rcnn"])
    padded = model.preprocess_image([{"image": image(0, 40, 100)}, {"image": image(1, 128, 8)}])
    assert padded.tensor.shape == (2, 3, 128, 128)
    model.backbone._square_pad = 0
    padded = model.preprocess_image([{"image": image(0, 40, 100)}, {"image": image(1, 33, 8)}])
    assert padded.tensor.shape == (2, 3, 64, 128)


def test_a_square_that_is_no_multiple_of_the_stride_stays_as_it_is():
    model = tiny_detector(load("vitdet/detector_cases.json.gz")["mask_rcnn"])
    model.backbone._square_pad = 112
    padded = model.preprocess_image([{"image": image(0, 40, 100)}])
    assert padded.tensor.shape == (1, 3, 112, 112)
    shapes = [tuple(x.shape[-2:]) for x in model.backbone(padded.tensor).values()]
    assert shapes == [(28, 28), (14, 14), (7, 7), (3, 3), (2, 2)]


def crop_to_the_square(detector: GeneralizedRCNN, batched_inputs: list[dict]) -> ImageList:
    """What upstream's GeneralizedRCNN does with images that are too large."""
    side = detector.backbone.padding_constraints["square_size"]
    cropped = [x["image"].float()[:, :side, :side] for x in batched_inputs]
    return ImageList.from_tensors(cropped, 0, 0.0, detector.backbone.padding_constraints)


@pytest.mark.parametrize("name", ["mask_rcnn", "cascade"])
@pytest.mark.parametrize("sizes", [[(100, 129)], [(60, 60), (100, 129)]])
def test_an_image_larger_than_the_square_is_refused_instead_of_cropped(monkeypatch, name, sizes):
    model = tiny_detector(load("vitdet/detector_cases.json.gz")[name])
    monkeypatch.setattr(GeneralizedRCNN, "preprocess_image", crop_to_the_square)
    message = r"must fit into the square .* 100x129 .* for 128x128; raise .*square_pad"
    with pytest.raises(ValueError, match=message):
        model([{"image": image(i, *size)} for i, size in enumerate(sizes)])


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(window_block_indexes=(0, 4)), r"window_block_indexes must be in 0..3 .* got \[4\]"),
        (dict(residual_block_indexes=(-1,)), r"residual_block_indexes must be in 0..3 .*\[-1\]"),
        (dict(residual_block_type="conv"), r"residual_block_type must be one of .* got 'conv'"),
        (dict(attn_impl="flash"), "attn_impl must be one of"),
        (dict(embed_dim=25), "num_heads must divide the width, got 2 heads for 25"),
        (dict(window_size=0), r"window_size must be positive .* got 0"),
    ],
)
def test_a_vit_that_cannot_be_built_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


@pytest.mark.parametrize("scales", [(), (4.0, 1.0), (8.0, 4.0), (0.5, 1.0)])
def test_scale_factors_that_are_no_pyramid_are_refused(scales):
    with pytest.raises(ValueError, match=r"scale_factors must be neighbours in \[4.0, 2.0, 1.0"):
        pyramid(scale_factors=scales)


@pytest.mark.parametrize("patch_size", [2, 14])
def test_a_pyramid_of_strides_that_are_no_powers_of_two_is_refused(patch_size):
    net = tiny(patch_size=patch_size)
    with pytest.raises(ValueError, match=rf"stride 2\^k, got 'last_feat' of stride {patch_size} "):
        SimpleFeaturePyramid(net, "last_feat", 8, (4.0, 2.0, 1.0, 0.5))


def test_a_map_that_the_net_does_not_give_is_refused():
    with pytest.raises(ValueError, match=r"output of the net, one of \['last_feat'\], got 'c4'"):
        SimpleFeaturePyramid(tiny(), "c4", 8, (4.0, 2.0, 1.0, 0.5))
