"""FastMIM: one loss for all backbones, block sizes and targets, equal to stored outputs."""

import pytest
import torch
from golden_models import load
from pretraining_models import (
    SEED_NAMES,
    assert_gradients,
    assert_summary,
    dyadic,
    filled,
    imagenet,
    images,
    tiny_fastmim,
)
from torch import nn

from mimdet.pretraining.fastmim import FastMIM
from mimdet.pretraining.masking import enlarge
from mimdet.pretraining.targets import HOGTarget

CASES = load("pretraining/fastmim_tiny.json.gz")
SWIN = CASES["swin_hog_block32"]["config"]
VIT = CASES["vit_hog_block16"]["config"]


@pytest.fixture(params=sorted(CASES))
def case(request):
    case = CASES[request.param]
    model = tiny_fastmim(case["arch"], case["config"], case["mask_ratio"])
    filled(model, SEED_NAMES[case["arch"]])
    batch = dyadic(images(case["image_kind"], case["images"], case["config"]["img_size"]))
    return case, model, batch, torch.tensor(case["noise"])


def test_outputs_loss_and_gradients_equal_the_stored_ones(case):
    case, model, batch, noise = case
    output = model.predict(batch, noise)
    assert_summary(case["latent"], output.latent)
    assert_summary(case["pred"], output.prediction)
    expected = torch.tensor(case["loss_mask"])
    factor = expected.shape[-1] // output.removed.shape[-1]
    assert torch.equal(enlarge(output.removed, factor).long(), expected)
    assert output.removed.sum() * case["config"]["block_size"] ** 2 == case["pixel_mask_sum"]
    loss = model.loss(batch, noise)
    assert loss.item() == pytest.approx(case["loss"], rel=1e-4)
    loss.backward()
    assert_gradients(case["grad_norms"], model, SEED_NAMES[case["arch"]])


def test_the_noise_is_the_only_draw_of_a_forward_pass():
    case = CASES["vit_hog_block16"]
    model = filled(tiny_fastmim("vit", VIT), SEED_NAMES["vit"])
    torch.manual_seed(case["seed"])
    loss = model.loss(dyadic(images("random", case["images"], 64)))
    assert loss.item() == pytest.approx(case["loss"], rel=1e-4)


def test_exactly_the_same_number_of_blocks_is_masked_in_every_image():
    model = tiny_fastmim("vit", VIT)
    removed = model.predict(torch.zeros(9, 3, 64, 64)).removed
    assert removed.flatten(1).sum(dim=1).tolist() == [12] * 9


def test_masked_pixels_do_not_reach_the_encoder():
    model = filled(tiny_fastmim("vit", VIT), SEED_NAMES["vit"])
    batch, noise = imagenet(images("random", [0, 1], 64)), torch.rand(2, 16)
    first = model.predict(batch, noise)
    is_masked = enlarge(first.removed, 16)[:, None]
    changed = torch.where(is_masked, torch.full_like(batch, 7.0), batch)
    assert torch.equal(model.predict(changed, noise).latent, first.latent)


def test_a_batch_gives_a_loss_in_training_and_targets_in_evaluation():
    model = tiny_fastmim("swin", SWIN)
    batch = [{"image": x} for x in imagenet(images("wave", [0, 1], 128))]
    losses = model.train()(batch)
    assert list(losses) == ["loss_mim"] and losses["loss_mim"].ndim == 0
    outputs = model.eval()(batch)
    assert [o["target"].shape for o in outputs] == [(27, 16, 16)] * 2
    assert [o["removed"].float().mean().item() for o in outputs] == [0.75] * 2


def test_a_token_predicts_its_cells_channel_by_channel():
    model = tiny_fastmim("vit", VIT)  # 4 x 4 tokens of 2 x 2 cells
    prediction = torch.arange(16 * 108).float().view(1, 16, 108)
    target = model._as_target(prediction)
    assert target.shape == (1, 27, 8, 8)
    # token (1, 2) is the sixth; its channel 5 is at 20..23, row by row
    assert target[0, 5, 2:4, 4:6].tolist() == [
        [6 * 108 + 20, 6 * 108 + 21],
        [6 * 108 + 22, 6 * 108 + 23],
    ]


def test_pixel_targets_of_blocks_below_the_stride_are_masked_at_the_finer_resolution():
    config = {**SWIN, "mim_loss": "l2", "block_size": 16}
    model = tiny_fastmim("swin", config)
    assert model.target.cell_size == 16
    batch, noise = imagenet(images("random", [0], 128)), torch.rand(1, 64)
    output = model.predict(batch, noise)
    error = (model._as_target(output.prediction) - model.target(batch)).square()
    assert error.shape == (1, 768, 8, 8)
    expected = error.permute(0, 2, 3, 1)[output.removed].mean()
    torch.testing.assert_close(model.loss(batch, noise), expected)


def test_bfloat16_changes_the_prediction_and_not_the_target():
    model = filled(tiny_fastmim("vit", VIT), SEED_NAMES["vit"])
    batch, noise = dyadic(images("random", [0, 1], 64)), torch.rand(2, 16)
    exact = model.loss(batch, noise)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.target(batch), model.target(batch.float()))
        assert model.target(batch).dtype == torch.float32
        loss = model.loss(batch, noise)
    assert loss.item() == pytest.approx(exact.item(), rel=0.02) and loss != exact


# --- What cannot work -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config, message",
    [
        ({"block_size": 24}, "block_size must divide img_size, got 24 and 64"),
        ({"block_size": 4}, r"target.cell_size must divide block_size, got 8 and 4"),
        ({"decoder_depth": 0}, "decoder_embed_dim must be the encoder's width, got 32 for 48"),
        ({"decoder_embed_dim": 40}, "decoder_embed_dim must be a multiple of 32, .*, got 40"),
        ({"block_size": 64}, "must keep some of 1 places"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        tiny_fastmim("vit", {**VIT, **config})


def test_a_stride_that_does_not_divide_the_image_is_refused():
    with pytest.raises(ValueError, match="stride must divide img_size, got 32 and 80"):
        FastMIM(nn.Identity(), HOGTarget(), embed_dim=8, stride=32, img_size=80, block_size=40)


@pytest.mark.parametrize("name, own, wrong", [("embed_dim", 48, 64), ("stride", 16, 32)])
def test_a_value_that_is_not_the_encoders_is_refused(name, own, wrong):
    vit = tiny_fastmim("vit", VIT).encoder
    with pytest.raises(ValueError, match=f"{name} must be the encoder's {own}, got {wrong}"):
        FastMIM(vit, HOGTarget(), img_size=64, **{name: wrong})


def test_what_an_encoder_does_not_say_has_to_be_given():
    with pytest.raises(ValueError, match=r"stride must be given, .* \(model.stride\)"):
        FastMIM(nn.Identity(), HOGTarget(), embed_dim=8)


def test_sizes_of_tokens_come_from_the_last_map_of_a_backbone():
    model = tiny_fastmim("swin", SWIN)
    assert model.grid_size == (4, 4)  # 128 pixels, stride 32
    assert model.decoder_embed.in_features == 8 * SWIN["embed_dim"]


@pytest.mark.parametrize("ratio", [0.0, 1.0, 2.0])
def test_a_mask_ratio_out_of_range_is_refused(ratio):
    with pytest.raises(ValueError, match=r"mask_ratio must be in \(0, 1\), got"):
        tiny_fastmim("vit", VIT, ratio)


def test_images_of_another_size_are_refused_as_a_change_of_resolution():
    model = tiny_fastmim("vit", VIT)
    with pytest.raises(
        ValueError, match=r"must be 64x64 \(model.img_size\), got 96x96; .*FastMIM-P"
    ):
        model.predict(torch.zeros(1, 3, 96, 96))
