"""MIMDet's backbone against the published system's outputs, and its own invariants."""

import logging

import numpy as np
import pytest
import torch
from golden_models import (
    CONFIGS,
    assert_detections,
    assert_summary,
    detector_inputs,
    fill,
    load,
    padded_batch,
)
from torch import nn

from detectron2.config import LazyConfig, instantiate
from detectron2.structures import ImageList
from detectron2.utils.events import EventStorage
from mimdet.modeling.backbone.mimdet import (
    ConvStem,
    MIMDetBackbone,
    MIMDetDecoder,
    MIMDetEncoder,
)
from mimdet.modeling.backbone.token_sampling import padding_mask

FILLS = {"v10": "mask", "v12": "conv"}
CASES = [(variant, index) for variant in FILLS for index in (0, 1)]


def backbone_of(case: dict, *, checkpointing: bool | None = None) -> MIMDetBackbone:
    """The backbone of a golden record, filled by the rule."""
    encoder = dict(case["encoder"], norm_layer=nn.LayerNorm)
    decoder = dict(case["decoder"], fill=FILLS[case["variant"]])
    for arguments in (encoder, decoder):
        arguments.pop("norm", None)
        assert arguments.pop("norm_eps", 1e-5) == nn.LayerNorm(1).eps
        if checkpointing is not None:
            arguments["checkpointing"] = checkpointing
    return fill(
        MIMDetBackbone(MIMDetEncoder(**encoder), MIMDetDecoder(**decoder), sample_ratio=1.0)
    )


def tiny(fill_kind: str = "conv", **changes) -> MIMDetBackbone:
    """A filled two-block backbone of 64 channels for images of up to 64 pixels."""
    case = load(f"forward/mimdet_backbone_{'v10' if fill_kind == 'mask' else 'v12'}.json.gz")[0]
    backbone = backbone_of(case)
    for name, value in changes.items():
        setattr(backbone, name, value)
    return backbone


def batch(*sizes: tuple[int, int], padded: tuple[int, int]) -> ImageList:
    generator = torch.Generator().manual_seed(0)
    tensor = torch.zeros(len(sizes), 3, *padded)
    for k, (h, w) in enumerate(sizes):
        tensor[k, :, :h, :w] = torch.randn(3, h, w, generator=generator)
    return ImageList(tensor, list(sizes))


@pytest.mark.parametrize("variant, index", CASES)
def test_features_and_kept_tokens_equal_the_published_backbone(variant, index):
    case = load(f"forward/mimdet_backbone_{variant}.json.gz")[index]
    backbone, images = backbone_of(case).eval(), padded_batch(case)
    for run in case["runs"]:
        torch.manual_seed(run["manual_seed"])
        backbone.sample_ratio = run["sample_ratio"]
        with torch.no_grad():
            features = backbone(images)
        for name, summary in run["features"].items():
            # which padding tokens are kept depends on a sort's tie order upstream
            if not (run["tie_dependent"] and name in ("c4", "c5")):
                assert_summary(summary, features[name], f"{name} at {run['sample_ratio']}")


@pytest.mark.parametrize("variant, index", CASES)
def test_encoder_parts_equal_the_published_encoder(variant, index):
    case = load(f"forward/mimdet_backbone_{variant}.json.gz")[index]
    backbone, images = backbone_of(case).eval(), padded_batch(case)
    grid = tuple(side // 16 for side in case["padded"])
    is_padding = padding_mask(images.image_sizes, grid, 16, torch.device("cpu"))
    rows = [["".join(str(int(v)) for v in row) for row in one] for one in is_padding]
    assert rows == case["padding_mask_rows"]
    for run in case["runs"]:
        torch.manual_seed(run["manual_seed"])
        with torch.no_grad():
            encoded = backbone.encoder(images, run["sample_ratio"])
        for summary, stage in zip(case["stem"], encoded.stem, strict=False):
            assert_summary(summary, stage)
        if "kept_tokens" in run and not run["tie_dependent"]:
            assert encoded.ids_keep.sort(dim=1).values.tolist() == run["kept_tokens"]
        if "encoder_tokens_in_kept_order" in run and not run["tie_dependent"]:
            assert_summary(run["encoder_tokens_in_kept_order"], encoded.tokens)
        if "encoder_tokens_unshuffled" in run:
            assert_summary(run["encoder_tokens_unshuffled"], encoded.tokens)


@pytest.mark.parametrize("variant", FILLS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_step_has_the_published_loss_and_gradients(variant, checkpointing):
    case = load(f"forward/mimdet_backbone_{variant}.json.gz")[0]
    expected = case["train_step"]
    backbone = backbone_of(case, checkpointing=checkpointing).train()
    backbone.sample_ratio = expected["sample_ratio"]
    torch.manual_seed(expected["manual_seed"])
    features = backbone(padded_batch(case))
    loss = sum((features[name] * _loss_weights(features[name])).mean() for name in sorted(features))
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-4)
    without_grad = [name for name, p in backbone.named_parameters() if p.grad is None]
    assert without_grad == expected["no_grad"]
    for name, parameter in backbone.named_parameters():
        if parameter.grad is not None:
            norm = parameter.grad.norm().item()
            # 1e-6: the key bias has a true gradient of zero, rounding is left
            assert norm == pytest.approx(expected["grad_l2"][name], rel=1e-3, abs=1e-6), name


def _loss_weights(feature: torch.Tensor) -> torch.Tensor:
    return torch.tensor(np.random.RandomState(5).standard_normal(feature.shape)).float()


@pytest.mark.parametrize("variant", FILLS)
def test_detector_finds_what_the_published_detector_finds(variant):
    expected = load(f"forward/mimdet_tiny_detector_{variant}.json.gz")
    name = expected["config"].removesuffix(".py") + ("_convfill" if variant == "v12" else "")
    cfg = LazyConfig.load(str(CONFIGS / "mimdet" / f"{name}.py"))
    overrides = [f"{key}={value}" for key, value in expected["overrides"].items()]
    model = fill(instantiate(LazyConfig.apply_overrides(cfg, overrides).model)).eval()
    for run in expected["runs"]:
        model.backbone.bottom_up.sample_ratio = run["sample_ratio"]
        torch.manual_seed(run["manual_seed"])
        inputs = detector_inputs(run)
        with torch.no_grad():
            outputs = model(inputs)
        for output, wanted in zip(outputs, run["outputs"], strict=True):
            assert_detections(output["instances"], wanted)


def test_all_tokens_in_evaluation_draw_no_random_number():
    backbone = tiny().eval()
    state = torch.get_rng_state()
    backbone(batch((64, 64), padded=(64, 64)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["mask", "conv"])
def test_ratio_one_in_training_equals_no_sampling_and_keeps_the_fill_in_the_graph(kind):
    backbone, images = tiny(kind), batch((64, 48), (40, 64), padded=(64, 64))
    trained = backbone.train()(images)["c4"]
    evaluated = backbone.eval()(images)["c4"]
    torch.testing.assert_close(trained, evaluated, atol=1e-5, rtol=1e-4)  # order of summation
    trained.sum().backward()
    names = {"mask": ["mask_token"], "conv": ["conv_feat_proj.weight", "conv_feat_proj.bias"]}
    for name in names[kind]:
        assert not backbone.decoder.get_parameter(name).grad.any()


def test_every_trainable_parameter_gets_a_gradient_at_half_of_the_tokens():
    for kind in ("mask", "conv"):
        backbone = tiny(kind, sample_ratio=0.5).train()
        features = backbone(batch((64, 64), padded=(64, 64)))
        sum(f.square().mean() for f in features.values()).backward()
        missing = [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
        assert missing == []


def test_an_image_alone_and_in_a_batch_has_the_same_features_at_ratio_one():
    backbone, images = tiny().eval(), batch((64, 64), (64, 64), padded=(64, 64))
    together = backbone(images)
    alone = backbone(ImageList(images.tensor[1:], images.image_sizes[1:]))
    for name, value in alone.items():
        torch.testing.assert_close(together[name][1:], value, atol=1e-5, rtol=1e-4)


def test_feature_shapes_follow_output_shape():
    backbone = tiny().eval()
    features = backbone(batch((96, 64), padded=(96, 64)))
    for name, spec in backbone.output_shape().items():
        assert features[name].shape == (1, spec.channels, 96 // spec.stride, 64 // spec.stride)
    assert backbone.size_divisibility == 32


@pytest.mark.parametrize("patch_size", [8, 16, 32])
def test_padding_is_told_by_the_strides_of_the_tokens_whatever_patch_is_declared(patch_size):
    torch.manual_seed(0)
    encoder = MIMDetEncoder(
        img_size=64, patch_size=patch_size, embed_dim=32, depth=1, num_heads=4
    ).train()
    images = batch((40, 16), (33, 48), padded=(64, 64))
    # of 4 x 4 tokens of 16 pixels the first image touches 3 x 1, the second 3 x 3
    kept = [set(ids.tolist()) for ids in encoder(images, 0.5).ids_keep]
    assert len(kept[0]) == len(kept[1]) == 8
    assert kept[0] == {0, 4, 8} | {1, 2, 3, 5, 6}  # all that are real, then padding in order
    assert kept[1] < {0, 1, 2, 4, 5, 6, 8, 9, 10}
    assert encoder.pos_embed.shape[1] == 1 + (64 // patch_size) ** 2


def test_a_seeded_evaluation_repeats_and_leaves_the_global_generator_alone(caplog):
    backbone = tiny(sample_ratio=0.5, sample_seed=3).eval()
    images = batch((64, 64), padded=(64, 64))
    state = torch.get_rng_state()
    with caplog.at_level(logging.WARNING, logger="mimdet"):
        first, second = backbone(images)["c4"], backbone(images)["c4"]
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(caplog.records) == 1
    assert "samples 0.5 of the tokens (seed 3)" in caplog.text


def test_an_unseeded_evaluation_draws_anew_for_each_batch():
    backbone, images = tiny(sample_ratio=0.5).eval(), batch((64, 64), padded=(64, 64))
    assert not torch.equal(backbone(images)["c4"], backbone(images)["c4"])


def test_a_seeded_evaluation_with_even_samples_repeats_and_differs_from_a_random_one():
    images = batch((64, 64), padded=(64, 64))
    options = dict(sample_ratio=0.5, sample_seed=3)
    even = tiny(sampler="stratified", **options).eval()
    first, second = even(images)["c4"], even(images)["c4"]
    assert torch.equal(first, second)
    assert not torch.equal(first, tiny(**options).eval()(images)["c4"])


def test_a_range_of_ratios_gives_each_training_iteration_its_own_share(monkeypatch):
    parts, images, seen = tiny(), batch((64, 64), padded=(64, 64)), []
    net = MIMDetBackbone(parts.encoder, parts.decoder, sample_ratio=[0.25, 1.0]).train()
    encode = net.encoder.forward

    def forward(x: ImageList, ratio: float, *rest):
        seen.append(ratio)
        return encode(x, ratio, *rest)

    monkeypatch.setattr(net.encoder, "forward", forward)
    for rank in range(2):  # whose random numbers differ
        torch.manual_seed(rank)
        for iteration in range(60):
            with EventStorage(iteration):
                net(images)
    first, second = seen[:60], seen[60:]
    assert first == second and len(set(first)) == 60
    assert 0.25 <= min(first) < 0.3 and 0.95 < max(first) <= 1.0
    assert sum(first) / 60 == pytest.approx(0.625, abs=0.08)
    seen.clear()
    net(images)  # without a training around it
    net.eval()(images)
    net.sample_ratio = 0.5  # as evaluations set it
    net(images)
    assert seen == [1.0, 1.0, 0.5]


@pytest.mark.parametrize("ratio", [[0.5, 0.25], [0.0, 0.5], [0.5, 1.25]])
def test_a_range_out_of_order_or_bounds_is_refused(ratio):
    parts = tiny()
    with pytest.raises(ValueError, match=r"got \[.*a range is \[lowest, highest\]"):
        MIMDetBackbone(parts.encoder, parts.decoder, sample_ratio=ratio)


def test_an_unknown_sampler_is_refused():
    parts = tiny()
    with pytest.raises(ValueError, match="sampler must be one of .*, got 'blue'"):
        MIMDetBackbone(parts.encoder, parts.decoder, sample_ratio=1.0, sampler="blue")


@pytest.mark.parametrize("ratio", [0, 1.5, -0.25])
def test_a_sample_ratio_out_of_range_is_refused(ratio):
    case = load("forward/mimdet_backbone_v12.json.gz")[0]
    backbone = backbone_of(case)
    with pytest.raises(ValueError, match=r"sample_ratio must be in \(0, 1\], got"):
        MIMDetBackbone(backbone.encoder, backbone.decoder, sample_ratio=ratio)


@pytest.mark.parametrize(
    "said, message",
    [
        (
            {"_out_feature_channels": [8, 16, 32, 32]},
            r"_out_feature_channels must be \[8, 16, 16, 16\]",
        ),
        (
            {"_out_feature_strides": (2, 4, 8, 16)},
            r"strides must be \[4, 8, 16, 32\], .* got \[2, 4",
        ),
        ({"size_divisibility": 16}, "size_divisibility must be a multiple of 32, .*, got 16"),
    ],
)
def test_what_follows_from_the_parts_cannot_be_said_otherwise(said, message):
    encoder = MIMDetEncoder(img_size=32, embed_dim=32, depth=1, num_heads=4)
    decoder = MIMDetDecoder(img_size=32, embed_dim=32, decoder_embed_dim=16, depth=1, num_heads=4)
    with pytest.raises(ValueError, match=message):
        MIMDetBackbone(encoder, decoder, sample_ratio=1.0, **said)
    agreed = dict(_out_feature_channels=(8, 16, 16, 16), size_divisibility=64)
    backbone = MIMDetBackbone(encoder, decoder, sample_ratio=1.0, **agreed)
    assert [spec.channels for spec in backbone.output_shape().values()] == [8, 16, 16, 16]
    assert backbone.size_divisibility == 64


def test_a_decoder_of_another_width_than_the_encoder_is_refused():
    encoder = MIMDetEncoder(img_size=32, embed_dim=32, depth=1, num_heads=4)
    decoder = MIMDetDecoder(img_size=32, embed_dim=64, decoder_embed_dim=16, depth=1, num_heads=4)
    with pytest.raises(ValueError, match="decoder.embed_dim must be 32, .*, got 64"):
        MIMDetBackbone(encoder, decoder, sample_ratio=1.0)


def test_a_ratio_that_keeps_no_token_is_refused():
    with pytest.raises(ValueError, match="keep at least one token, got 0.01 for 16 tokens"):
        tiny(sample_ratio=0.01).train()(batch((64, 64), padded=(64, 64)))


def test_a_bare_tensor_is_refused():
    with pytest.raises(TypeError, match="needs an ImageList"):
        tiny()(torch.zeros(1, 3, 64, 64))


def test_an_unknown_fill_is_refused():
    with pytest.raises(ValueError, match="fill must be one of"):
        MIMDetDecoder(fill="zeros")


def test_a_stem_width_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match="multiple of 8"):
        ConvStem(embed_dim=100)


def test_initial_weights_are_those_of_mae():
    torch.manual_seed(0)
    encoder = MIMDetEncoder(img_size=32, embed_dim=64, depth=1, num_heads=4)
    weight = encoder.blocks[0].mlp.fc1.weight
    bound = (6 / (64 + 256)) ** 0.5  # Xavier: uniform in +- sqrt(6 / (fan in + fan out))
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not encoder.blocks[0].mlp.fc1.bias.any()
    assert encoder.norm.eps == 1e-6
    assert not MIMDetDecoder(img_size=32, fill="mask", depth=1).mask_token.any()
