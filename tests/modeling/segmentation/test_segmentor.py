"""Sliding windows against the numbers of the released system, and their bounds."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmentation_models import MEAN, STD, arrays, assert_summary, build, fill, load, pixels
from torch import nn

from mimdet.modeling.segmentation import segmentor
from mimdet.modeling.segmentation.segmentor import SlidingWindowSegmentor, class_map

SLIDE = load("slide.json.gz")


def sliding(config: dict, windows_per_batch: int = 3, **arguments) -> SlidingWindowSegmentor:
    """The filled model of a record's `config` in eval mode."""
    parts = fill(build(config)).eval()
    arguments = {"crop_size": config["crop"][0], "crop_stride": config["stride"][0]} | arguments
    return SlidingWindowSegmentor(
        backbone=parts.backbone,
        sem_seg_head=parts.sem_seg_head,
        pixel_mean=MEAN,
        pixel_std=STD,
        windows_per_batch=windows_per_batch,
        **arguments,
    ).eval()


def recorded(case: dict) -> dict:
    """The input of a record, for the wanted size of its output."""
    height, width = case["output_size"]
    image = pixels(case["image_kind"], case["image"], *case["image_size"])
    return {"image": image, "height": height, "width": width}


@pytest.mark.parametrize("name", SLIDE)
@torch.no_grad()
def test_windows_scores_and_classes_are_those_of_the_released_system(name, monkeypatch):
    case = SLIDE[name]
    model, given = sliding(case["config"]), recorded(case)
    side = model.crop_size
    rows, columns = (
        segmentor._starts(max(n, side), side, model.crop_stride) for n in case["image_size"]
    )
    windows = [[y, x, y + side, x + side] for y in rows for x in columns]
    assert windows == case["windows_y1x1y2x2"]

    kept = []
    scores = model.scores
    monkeypatch.setattr(model, "scores", lambda image: kept.append(scores(image)) or kept[0])
    (output,) = model([given])
    h, w = case["image_size"]
    expected = arrays("slide.npz")
    every5 = expected[f"{name}_logits_every5"]  # those of the padding, too
    found = kept[0][:, ::5, ::5]
    cut = every5[:, : found.shape[1], : found.shape[2]]
    np.testing.assert_allclose(found, cut, atol=2e-5, rtol=2e-5)
    if [h, w] == case["padded_size"]:
        assert_summary(case["logits"], kept[0][None])
    size = tuple(case["output_size"])
    resized = F.interpolate(kept[0][None], size=size, mode="bilinear", align_corners=False)
    assert_summary(case["output_logits"], resized)
    truth = expected[f"{name}_output_argmax"]
    assert output["sem_seg"].shape == size
    assert (output["sem_seg"].numpy() == truth).mean() >= 0.999


@torch.no_grad()
def test_windows_may_pass_in_batches_of_any_number():
    case = SLIDE["larger_than_crop"]
    image = torch.randn(3, *case["image_size"], generator=torch.Generator().manual_seed(0))
    one, eight, more = (sliding(case["config"], n).scores(image) for n in (1, 8, 100))
    torch.testing.assert_close(eight, one, atol=1e-5, rtol=1e-5)
    assert torch.equal(more, eight)


@torch.no_grad()
def test_one_window_is_the_whole_image_to_detectron2s_segmentor():
    case = SLIDE["single_window"]
    model, given = sliding(case["config"]), recorded(case)
    (output,) = super(SlidingWindowSegmentor, model).forward([given])
    # Detectron2 resizes the scores of stride 4 at once, which here is the size of the image.
    found = model([given])[0]["sem_seg"]
    assert (output["sem_seg"].argmax(dim=0) == found).double().mean() >= 0.999


class Constant(nn.Module):
    """A head whose scores are the same everywhere."""

    def forward(self, features, targets):
        n, _, h, w = features["s0"].shape
        return torch.tensor([1.0, 3.0, 2.0])[None, :, None, None].expand(n, 3, h, w), {}


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (50, 300), (199, 67), (1, 1)])
def test_constant_scores_stay_constant_in_images_of_any_size(size):
    model = sliding(SLIDE["single_window"]["config"])
    model.sem_seg_head = Constant()
    scores = model.scores(torch.zeros(3, *size))
    assert scores.shape == (3, *size)
    torch.testing.assert_close(
        scores, torch.tensor([1.0, 3.0, 2.0])[:, None, None].expand(3, *size)
    )
    (output,) = model([{"image": torch.zeros(3, *size, dtype=torch.uint8)}])
    assert output["sem_seg"].dtype == torch.int32
    assert torch.equal(output["sem_seg"], torch.ones(size, dtype=torch.int32))


@pytest.mark.parametrize("size", [(37, 53), (80, 91), (5, 200), (1, 1), (160, 33)])
def test_bands_of_rows_give_the_classes_of_the_whole_map(size):
    scores = torch.randn(7, 40, 66, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]
    for at_once in (1, 3 * 7 * size[1], 10**9):
        bands = class_map(scores, size, at_once)
        assert bands.shape == size
        assert torch.equal(bands, whole.argmax(dim=0).int())


def test_scores_are_never_held_at_the_size_of_the_photo():
    scores = torch.randn(3, 16, 20)
    bands = list(segmentor._resized_in_bands(scores, (2000, 2500), rows=50))
    assert {tuple(band.shape[::2]) for band in bands} == {(3, 2500)}
    rows = [band.shape[1] for band in bands]
    assert sum(rows) == 2000 and max(rows) <= 50


@torch.no_grad()
def test_half_precision_keeps_its_maps_and_sums_in_float32():
    case = SLIDE["larger_than_crop"]
    model, seen = sliding(case["config"]), []
    fused = model.sem_seg_head.decode_head.fpn_bottleneck
    fused.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
    given = recorded(case)
    (exact,) = model([given])
    with torch.autocast("cpu", torch.bfloat16):
        scores = model.scores(torch.zeros(3, 64, 64))
        (output,) = model([given])
    assert seen[0] == torch.float32 and set(seen[-3:]) == {torch.bfloat16}
    assert scores.dtype == torch.float32
    assert (output["sem_seg"] == exact["sem_seg"]).double().mean() > 0.9


@torch.no_grad()
def test_every_window_passes_once():
    case = SLIDE["larger_than_crop"]
    model, seen = sliding(case["config"]), []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    model([recorded(case)])
    assert seen == [3, 3, 2]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(crop_stride=65), r"crop_stride must be from 1 to crop_size, got 65 and 64"),
        (dict(crop_stride=0), r"crop_stride must be from 1 to crop_size, got 0 and 64"),
        (dict(crop_size=60), r"a multiple of .* 16 pixels, got 60 \(model\.crop_size\)"),
        (dict(windows_per_batch=0), r"at least 1, got 0 \(model\.windows_per_batch\)"),
    ],
)
def test_windows_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sliding(SLIDE["single_window"]["config"], **arguments)


def test_training_gives_losses_and_refuses_images_larger_than_the_square():
    model = sliding(SLIDE["single_window"]["config"]).train()
    image = torch.zeros(3, 40, 64, dtype=torch.uint8)
    labels = torch.zeros(40, 64, dtype=torch.int64)
    losses = model([{"image": image, "sem_seg": labels}] * 2)
    assert losses.keys() == {"loss_sem_seg", "loss_sem_seg_aux"}
    with pytest.raises(ValueError, match=r"got 64x80 .* for 64x64; crop training images"):
        model([{"image": torch.zeros(3, 64, 80, dtype=torch.uint8)}])
