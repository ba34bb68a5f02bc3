"""MAE: equal to stored outputs of its released code, in numbers, names and initial values."""

import math
import re

import numpy as np
import pytest
import torch
from golden_models import load
from pretraining_models import (
    PRETRAINING,
    assert_gradients,
    assert_summary,
    filled,
    imagenet,
    images,
    tiny_mae,
)

from mimdet.layers.pos_embed import get_2d_sincos_pos_embed
from mimdet.pretraining.mae import MAE, ViTEncoder
from mimdet.pretraining.targets import patchify

CASES = load("pretraining/mae_tiny.json")
KEYS = {n: v for n, v in load("pretraining/keys_mae.json.gz").items() if n.startswith("mae_")}
TABLES = dict(np.load(PRETRAINING / "sincos.npz"))
SIZES = {
    "base_patch16": dict(patch_size=16, embed_dim=768, depth=12, num_heads=12),
    "large_patch16": dict(patch_size=16, embed_dim=1024, depth=24, num_heads=16),
    "huge_patch14": dict(patch_size=14, embed_dim=1280, depth=32, num_heads=16),
}


def golden_model(case: dict) -> MAE:
    changes = dict(mask_ratio=case["mask_ratio"], norm_pix_loss=case["norm_pix_loss"])
    return filled(tiny_mae(**case["config"], **changes))


@pytest.fixture(params=sorted(CASES))
def case(request):
    case = CASES[request.param]
    batch = imagenet(images("random", case["images"], case["config"]["img_size"]))
    return case, golden_model(case), batch, torch.tensor(case["noise"])


def test_outputs_loss_and_gradients_equal_the_stored_ones(case):
    case, model, batch, noise = case
    output = model.predict(batch, noise)
    assert output.masking.removed.long().tolist() == case["mask"]
    assert output.masking.ids_restore.tolist() == case["ids_restore"]
    assert_summary(case["latent"], output.latent)
    assert_summary(case["pred"], output.prediction)
    loss = model.loss(batch, noise)
    assert loss.item() == pytest.approx(case["loss"], rel=1e-4)
    loss.backward()
    assert_gradients(case["grad_norms"], model, str)


def test_the_noise_is_the_only_draw_of_a_forward_pass(case):
    case, model, batch, noise = case
    torch.manual_seed(case["seed"])
    assert model.loss(batch).item() == pytest.approx(case["loss"], rel=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_names_shapes_and_counts_are_the_published_ones(size):
    expected = KEYS[f"mae_vit_{size}"]
    with torch.device("meta"):
        model = MAE(img_size=224, **SIZES[size])
    assert {n: list(v.shape) for n, v in model.state_dict().items()} == expected["state_dict"]
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert sorted(frozen) == sorted(expected["frozen_parameters"])
    assert sum(p.numel() for p in model.parameters()) == expected["params_total"]
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    assert sum(trained) == expected["params_trainable"]
    with torch.device("meta"):
        encoder = ViTEncoder(img_size=224, **SIZES[size])
    of_encoder = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    assert of_encoder == expected["params_encoder_trainable"]


@pytest.mark.parametrize("name", TABLES)
def test_position_tables_equal_the_stored_ones(name):
    dim, grid, has_cls, *rows = (int(n) for n in re.findall(r"\d+", name))
    table = get_2d_sincos_pos_embed(dim, grid, cls_token=bool(has_cls))
    np.testing.assert_allclose(table[rows] if rows else table, TABLES[name], rtol=0, atol=1e-7)


def test_initial_values_follow_mae():
    torch.manual_seed(0)
    model = tiny_mae(embed_dim=192)
    bound = math.sqrt(6 / (192 + 3 * 16 * 16))  # Xavier of a (192, 768) matrix
    weight = model.patch_embed.proj.weight
    assert weight.abs().max() <= bound and weight.abs().max() > 0.99 * bound
    qkv = model.blocks[0].attn.qkv.weight
    assert qkv.abs().max().item() == pytest.approx(math.sqrt(6 / (192 + 3 * 192)), rel=0.01)
    assert not model.decoder_pred.bias.any()
    assert model.cls_token.std().item() == pytest.approx(0.02, rel=0.3)
    assert model.mask_token.std().item() == pytest.approx(0.02, rel=0.5)
    assert not model.pos_embed[0, 0].any()


def test_no_size_in_a_training_step_depends_on_values_for_which_a_gpu_would_be_waited():
    model = tiny_mae().train().to("meta")  # tensors without values: a selection is an error
    model.loss(torch.zeros(2, 3, model.img_size, model.img_size, device="meta")).backward()


def test_a_batch_gives_a_loss_in_training_and_pictures_in_evaluation():
    model = tiny_mae()
    batch = [{"image": x, "file_name": "a"} for x in imagenet(images("wave", [0, 1], 64))]
    losses = model.train()(batch)
    assert list(losses) == ["loss_mae"] and losses["loss_mae"].ndim == 0
    outputs = model.eval()(batch)
    assert len(outputs) == 2
    for sample, output in zip(batch, outputs, strict=True):
        removed = output["removed"]
        assert removed.float().mean() == 0.75
        assert torch.equal(output["image"][:, ~removed], sample["image"][:, ~removed])
        assert not torch.equal(output["image"][:, removed], sample["image"][:, removed])


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_a_perfect_prediction_is_painted_as_the_image(norm_pix_loss, monkeypatch):
    model = tiny_mae(norm_pix_loss=norm_pix_loss)
    batch = imagenet(images("wave", [0, 1], 64))
    target = model.target(batch).flatten(2).transpose(1, 2)
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda *a: predict(*a)._replace(prediction=target))
    pictures, _ = model.reconstruct(batch)
    torch.testing.assert_close(pictures, batch, rtol=1e-4, atol=1e-5)
    assert model.loss(batch) == 0


def test_normalised_patches_have_mean_0_and_unbiased_variance_1():
    target = tiny_mae().target
    cells = target(imagenet(images("random", [0], 64)))
    assert cells.shape == (1, 768, 4, 4)
    np.testing.assert_allclose(cells.mean(dim=1), 0, atol=1e-6)
    np.testing.assert_allclose(cells.var(dim=1), 1, atol=1e-5)


def test_patches_are_in_the_order_row_column_colour():
    x = torch.arange(3 * 4 * 4).float().view(1, 3, 4, 4)  # colour * 16 + row * 4 + column
    assert patchify(x, 2)[0, :, 0, 1].tolist() == [2, 18, 34, 3, 19, 35, 6, 22, 38, 7, 23, 39]


def test_recomputed_activations_give_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = filled(tiny_mae(checkpointing=checkpointing)).train()
        torch.manual_seed(0)
        model.loss(imagenet(images("random", [0], 64))).backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    torch.testing.assert_close(gradients[0], gradients[1])


# --- What cannot work -----------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_mask_ratio_out_of_range_is_refused(ratio):
    with pytest.raises(ValueError, match=r"mask_ratio must be in \(0, 1\), got .*model.mask_ratio"):
        tiny_mae(mask_ratio=ratio)


def test_a_mask_ratio_that_keeps_nothing_is_refused():
    with pytest.raises(ValueError, match="must keep some of 16 places .* keeps 0"):
        tiny_mae(mask_ratio=0.95)


def test_a_patch_that_does_not_divide_the_image_is_refused():
    with pytest.raises(
        ValueError, match="img_size must be a multiple of patch_size, got 64 and 15"
    ):
        tiny_mae(patch_size=15)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"images must be 64x64 \(model.img_size\), got 64x96"):
        tiny_mae().predict(torch.zeros(1, 3, 64, 96))
