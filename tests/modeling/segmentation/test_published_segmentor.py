"""ViT-B UPerNet's backbone and heads against the numbers of the released system."""

import hashlib

import numpy as np
import pytest
import torch
from segmentation_models import (
    arrays,
    assert_summary,
    batch,
    build,
    fill,
    label_map,
    load,
    published_name,
)

FORWARD = load("forward.json.gz")
OTHER_SIZE = load("other_size.json.gz")


@torch.no_grad()
def outputs(case: dict):
    """Feature maps, logits and auxiliary logits of a record in eval mode."""
    model = fill(build(case["config"])).eval()
    features = model.backbone(batch(case))
    logits, losses = model.sem_seg_head(features)
    assert losses == {}
    return features, logits, model.sem_seg_head.auxiliary_head(list(features.values()))


@pytest.mark.parametrize("name", FORWARD)
def test_features_and_logits_equal_the_released_system(name):
    case, expected = FORWARD[name], arrays("forward.npz")
    features, logits, auxiliary = outputs(case)
    for summary, (key, feature) in zip(case["features"], features.items(), strict=True):
        assert_summary(summary, feature, key)
    for key, value in (("logits", logits), ("aux_logits", auxiliary)):
        assert_summary(case[key], value, key)
        np.testing.assert_allclose(value, expected[f"{name}_{key}"], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", OTHER_SIZE)
def test_tables_are_resized_to_images_of_another_size(name):
    case = OTHER_SIZE[name]
    features, logits, _ = outputs(case)
    for summary, (key, feature) in zip(case["features"], features.items(), strict=True):
        assert_summary(summary, feature, key)
    assert_summary(case["logits"], logits)


def step(mean_over: str):
    """The model of the training record after one backward pass, and its losses."""
    case = load("train.json.gz")
    model = fill(build(case["config"])).train()
    model.sem_seg_head.mean_over = mean_over
    size = case["image_size"]
    targets = torch.stack([label_map(i, *size, 7) for i in case["label_maps"]])
    assert (targets != 255).sum() == case["valid_pixels"]
    features = model.backbone(batch(case))
    _, losses = model.sem_seg_head(features, targets)
    sum(losses.values()).backward()
    return case, model, features, losses


def test_losses_gradients_and_statistics_of_a_step_equal_the_released_system():
    case, model, features, losses = step("all")
    expected = case["upstream"]
    for ours, theirs in (("loss_sem_seg", "decode.loss_ce"), ("loss_sem_seg_aux", "aux.loss_ce")):
        assert losses[ours].item() == pytest.approx(expected[theirs], abs=1e-5)
    for summary, feature in zip(case["features"], features.values(), strict=True):
        assert_summary(summary, feature)
    grads = {published_name(name): p.grad for name, p in model.named_parameters()}
    assert grads.keys() == case["grad_norms"].keys()
    for name, norm in case["grad_norms"].items():
        if name in ("backbone.fpn1.0.bias", "backbone.fpn1.3.bias", "backbone.fpn2.0.bias"):
            assert grads[name].norm() < 1e-5  # a batch norm follows: 0 but for rounding
        else:
            assert grads[name].norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-6), name
    buffers = {published_name(name): value for name, value in model.named_buffers()}
    for name, summary in case["running_stats"].items():
        assert_summary(summary, buffers[name], name)


def test_the_mean_over_valid_pixels_is_that_of_detectron2():
    case, _, _, losses = step("valid")
    expected = case["mean_over_valid"]
    for ours, theirs in (("loss_sem_seg", "decode.loss_ce"), ("loss_sem_seg_aux", "aux.loss_ce")):
        assert losses[ours].item() == pytest.approx(expected[theirs], abs=2e-5)


def test_names_and_sizes_of_vit_b_are_those_of_the_released_file():
    expected = load("keys_vit_base_upernet.json.gz")
    with torch.device("meta"):
        model = build({})
    ours = {published_name(name): list(x.shape) for name, x in model.state_dict().items()}
    theirs = {name: shape for name, shape, *_ in expected["state_dict"]}
    digest = hashlib.sha256("\n".join(sorted(theirs)).encode()).hexdigest()
    assert digest == expected["names_sha256"]
    # which row of a table belongs to which pair follows from the size, and is not saved
    assert ours == {n: s for n, s in theirs.items() if not n.endswith("relative_position_index")}
    assert sum(p.numel() for p in model.parameters()) == expected["total_params"] == 163_877_228
    assert len(list(model.parameters())) == 235


def test_features_of_vit_b_at_512_equal_the_released_system():
    case = load("vit_base_512.json.gz")
    case |= {"images": [case["image"]], "image_size": [512, 512]}
    model = fill(build({})).eval()
    # without the decode head, four fifths of the work: its tiny twins are compared above
    with torch.no_grad():
        features = model.backbone(batch(case))
        auxiliary = model.sem_seg_head.auxiliary_head(list(features.values()))
    for summary, (key, feature) in zip(case["features"], features.items(), strict=True):
        assert_summary(summary, feature, key)
    assert_summary(case["aux_logits"], auxiliary)
