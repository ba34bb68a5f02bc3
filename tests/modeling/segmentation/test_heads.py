"""The heads of semantic segmentation: losses, and what they refuse."""

import pytest
import torch
from segmentation_models import build, fill, label_map, load

TINY = load("keys_tiny_square.json.gz")["config"] | {"img_size": 64}


def features(images: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    sides = {"s0": 16, "s1": 8, "s2": 4, "s3": 2}
    return {name: torch.randn(images, 48, side, side) for name, side in sides.items()}


def test_losses_differ_by_the_share_of_pixels_that_count():
    head = fill(build(TINY)).sem_seg_head.train()
    targets = torch.stack([label_map(i, 64, 64, 7) for i in range(2)])
    targets[:, :32] = 255
    _, over_all = head(features(), targets)
    head.mean_over = "valid"
    _, over_valid = head(features(), targets)
    share = (targets != 255).double().mean().item()
    assert 0 < share < 0.5
    for name, loss in over_all.items():
        assert loss.item() == pytest.approx(share * over_valid[name].item(), rel=1e-5)


@pytest.mark.parametrize("mean_over", ["all", "valid"])
def test_the_loss_of_ignored_pixels_alone_is_0(mean_over):
    head = fill(build(TINY)).sem_seg_head.train()
    head.mean_over = mean_over
    _, losses = head(features(), torch.full((2, 64, 64), 255))
    assert [loss.item() for loss in losses.values()] == [0, 0]
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


def test_the_auxiliary_head_works_in_training_only():
    head = fill(build(TINY)).sem_seg_head.eval()
    head.auxiliary_head.forward = None  # a call would fail
    logits, losses = head(features())
    assert logits.shape == (2, 7, 16, 16)
    assert losses == {}


def test_loss_is_float32_where_the_network_is_not():
    head = fill(build(TINY)).sem_seg_head.train()
    targets = torch.stack([label_map(i, 64, 64, 7) for i in range(2)])
    with torch.autocast("cpu", torch.bfloat16):
        _, losses = head(features(), targets)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


def test_one_image_in_training_is_refused_where_a_batch_norm_would_see_one_value():
    head = build(TINY).sem_seg_head.train()
    with pytest.raises(ValueError, match=r"1 image in one process .*total_batch_size"):
        head(features(1), torch.zeros(1, 64, 64, dtype=torch.int64))
    norms = build(TINY, norm="LN").sem_seg_head.train()  # of the channels, which are enough
    _, losses = norms(features(1), torch.zeros(1, 64, 64, dtype=torch.int64))
    assert losses["loss_sem_seg"].isfinite()


def test_training_without_label_maps_is_refused():
    head = build(TINY).sem_seg_head.train()
    with pytest.raises(ValueError, match="needs label maps in training"):
        head(features())


def test_unknown_mean_is_refused():
    head = build(TINY).sem_seg_head
    with pytest.raises(ValueError, match=r"mean_over must be one of .* got 'pixels'"):
        type(head)(head.decode_head, mean_over="pixels")
