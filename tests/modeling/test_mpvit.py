"""MPViT against the published system's outputs, and its own invariants."""

import pytest
import torch
from config_files import load_stem
from golden_models import (
    assert_detections,
    assert_summary,
    detector_inputs,
    fill,
    load,
    padded_batch,
)
from torch import nn

from detectron2.config import instantiate
from mimdet.modeling.backbone.mpvit import (
    SIZES,
    ConvBlock,
    ConvRelPosEnc,
    FactorizedAttention,
    MPViT,
    MPViTBackbone,
    PatchEmbedStage,
)

BACKBONES = {case["case"]: case for case in load("forward/mpvit_backbone.json.gz")}
DETECTORS = {run["config"]: run for run in load("forward/mpvit_detectors.json.gz")}

TINY = dict(
    embed_dims=(16, 24, 32, 40), num_layers=(1, 1, 2, 1), num_path=(2, 3, 3, 3), mlp_ratios=[2] * 4
)


def tiny(**changes) -> MPViT:
    return fill(MPViT(**{**TINY, **changes}))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# --- by golden ------------------------------------------------------------------------------------


def test_stages_of_a_narrow_network_are_the_published_ones():
    case = BACKBONES["tiny"]
    arguments = dict(case["args"])
    assert arguments.pop("num_heads") == [8] * arguments.pop("num_stages")
    network = fill(MPViT(**arguments)).eval()
    with torch.no_grad():
        outputs = network(padded_batch(case).tensor)
    for (name, summary), output in zip(case["features"].items(), outputs, strict=True):
        assert_summary(summary, output, name)


def test_features_of_mpvit_tiny_are_the_published_ones():
    case = BACKBONES["mpvit_tiny"]
    backbone = fill(MPViTBackbone("mpvit_tiny")).eval()
    with torch.no_grad():
        features = backbone(padded_batch(case).tensor)
    assert features.keys() == case["features"].keys()
    for name, summary in case["features"].items():
        assert_summary(summary, features[name], name)


@pytest.mark.parametrize("file", DETECTORS)
def test_detector_finds_what_the_published_detector_finds(file):
    run = DETECTORS[file]
    upstream = dict(zip(run["overrides"][::2], run["overrides"][1::2], strict=True))
    model = load_stem(file.removesuffix(".yaml")).model
    model.backbone.bottom_up.name = upstream.get("MODEL.MPVIT.NAME", "mpvit_tiny")
    if "RetinaNet" in str(model._target_):
        model.num_classes = int(upstream["MODEL.RETINANET.NUM_CLASSES"])
        model.test_score_thresh = float(upstream["MODEL.RETINANET.SCORE_THRESH_TEST"])
    else:
        model.roi_heads.num_classes = int(upstream["MODEL.ROI_HEADS.NUM_CLASSES"])
    detector = fill(instantiate(model)).eval()
    with torch.no_grad():
        outputs = detector(detector_inputs(run))
    for output, wanted in zip(outputs, run["outputs"], strict=True):
        # What is stored is as exact as that: a float64 run of the same weights differs from it by
        # up to 0.027 pixels, 1.1e-4 and 9 pixels.
        assert_detections(output["instances"], wanted, box_atol=0.1, score_atol=5e-4, area_atol=12)


# --- by hand --------------------------------------------------------------------------------------


def test_attention_is_the_formula_with_its_scale_only_on_the_factorised_term():
    torch.manual_seed(0)
    attention, crpe = FactorizedAttention(24), ConvRelPosEnc(24)
    x, hw = noise(2, 6, 24), (2, 3)
    q, k, v = attention.qkv(x).chunk(3, dim=2)
    relative = crpe(v, hw)
    heads = []
    for head in range(8):
        part = slice(3 * head, 3 * head + 3)  # 24 channels of 8 heads
        context = k[..., part].softmax(dim=1).transpose(1, 2) @ v[..., part]
        heads.append(3**-0.5 * q[..., part] @ context + q[..., part] * relative[..., part])
    expected = attention.proj(torch.cat(heads, dim=2))
    torch.testing.assert_close(attention(x, hw, crpe), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("head, reach", [(0, 1), (1, 1), (2, 2), (4, 2), (5, 3), (7, 3)])
def test_heads_see_values_within_windows_of_3_5_and_7(head, reach):
    crpe = ConvRelPosEnc(8)  # one channel per head
    for conv in crpe.conv_list:
        nn.init.ones_(conv.weight)
        nn.init.zeros_(conv.bias)
    values = torch.zeros(1, 81, 8)
    values[0, 40] = 1  # the middle of 9 x 9
    reached = crpe(values, (9, 9))[0, :, head].reshape(9, 9).nonzero()
    assert reached.min() == 4 - reach and reached.max() == 4 + reach


def test_path_k_sees_patches_of_2k_plus_3():
    stage = PatchEmbedStage(4, num_path=3, norm="BN", stride=1).eval()
    image = noise(1, 4, 15, 15).requires_grad_()
    for k, output in enumerate(stage(image)):
        (grad,) = torch.autograd.grad(output[0, :, 7, 7].sum(), image, retain_graph=True)
        rows = grad[0].abs().sum((0, 2)).nonzero()[:, 0]
        assert [rows.min(), rows.max()] == [7 - (k + 1), 7 + (k + 1)]


def test_drop_path_grows_from_block_to_block_and_is_the_same_for_all_paths():
    network = MPViT(**TINY, drop_path_rate=0.4)
    rates = [
        [[getattr(block.drop_path, "drop_prob", 0.0) for block in path.MHCA_layers] for path in p]
        for p in (stage.mhca_blks for stage in network.mhca_stages)
    ]
    assert [stage[0] for stage in rates] == [
        [0.0],
        [pytest.approx(0.1)],
        [pytest.approx(0.2), pytest.approx(0.3)],
        [pytest.approx(0.4)],
    ]
    assert all(path == stage[0] for stage in rates for path in stage)


def test_initial_weights_have_the_released_spread():
    torch.manual_seed(0)
    block, embed = ConvBlock(64, "BN"), PatchEmbedStage(64, 1, "BN", 1).patch_embeds[0]
    spread = {
        (2 / 64) ** 0.5: [block.conv1.conv, block.conv2.conv, embed["patch_conv"].pwconv],
        (2 / 9) ** 0.5: [block.dwconv],  # divided by its groups
        (2 / (9 * 64)) ** 0.5: [embed["patch_conv"].dwconv],  # not divided
    }
    for std, convs in spread.items():
        for conv in convs:
            assert conv.weight.std().item() == pytest.approx(std, rel=0.1)
    linear = MPViT(**TINY).mhca_stages[3].mhca_blks[0].MHCA_layers[0].mlp.fc1
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not linear.bias.any()


# --- by invariant ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_channels_and_strides_are_those_of_the_table(name):
    with torch.device("meta"), torch.no_grad():
        backbone = MPViTBackbone(name).eval()
        features = backbone(torch.zeros(1, 3, 64, 96))
    dims = SIZES[name].embed_dims
    assert [spec.channels for spec in backbone.output_shape().values()] == [*dims[1:], dims[-1]]
    for key, spec in backbone.output_shape().items():
        assert features[key].shape == (1, spec.channels, 64 // spec.stride, 96 // spec.stride)
    assert backbone.size_divisibility == 32


def test_only_the_wanted_features_are_returned():
    with torch.device("meta"):
        backbone = MPViTBackbone("mpvit_tiny", out_features=["stage5", "stage3"])
        assert list(backbone.eval()(torch.zeros(1, 3, 32, 32))) == ["stage5", "stage3"]
    assert list(backbone.output_shape()) == ["stage5", "stage3"]


def test_checkpointing_changes_neither_outputs_nor_gradients():
    images, plain, saving = noise(1, 3, 64, 64), tiny(), tiny(checkpointing=True)
    for network in (plain, saving):
        sum(output.square().mean() for output in network(images)).backward()
    for (name, parameter), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, msg=name)


def test_maps_and_tokens_share_their_memory():
    network = tiny().eval()
    outputs = network(noise(2, 3, 64, 64))
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in outputs)


def test_an_image_alone_and_in_a_batch_has_the_same_features():
    network, images = tiny().eval(), noise(2, 3, 64, 96)
    for together, alone in zip(network(images), network(images[1:]), strict=True):
        torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-4)


def test_each_model_has_the_norm_that_it_was_given():
    kinds = {"FrozenBN": "FrozenBatchNorm2d", "BN": "BatchNorm2d", "SyncBN": "SyncBatchNorm"}
    networks = {norm: tiny(norm=norm) for norm in kinds}  # all alive at once
    for norm, network in networks.items():
        modules = dict(network.named_modules())
        found = {type(m).__name__ for n, m in modules.items() if n.endswith((".bn", "InvRes.norm"))}
        assert found == {kinds[norm]}


# --- by error -------------------------------------------------------------------------------------


def test_an_unknown_size_is_refused_with_the_known_ones():
    known = "mpvit_tiny, mpvit_xsmall, mpvit_small, mpvit_base"
    with pytest.raises(ValueError, match=f"no MPViT of the size 'mpvit_huge'.*{known}"):
        MPViTBackbone("mpvit_huge")


def test_an_unknown_feature_is_refused():
    with pytest.raises(
        ValueError, match=r"out_features must be among .*'stage5'\], got \['res2'\]"
    ):
        MPViTBackbone("mpvit_tiny", out_features=["res2", "stage3"])


def test_ratios_for_another_number_of_stages_are_refused():
    with pytest.raises(ValueError, match="one number per stage, got 4, 4, 4 and 2 numbers"):
        MPViTBackbone("mpvit_tiny", mlp_ratios=[4, 4])


def test_a_width_that_does_not_fit_the_heads_is_refused():
    with pytest.raises(ValueError, match="multiples of 8, the number of heads, got 20"):
        tiny(embed_dims=(16, 20, 32, 40))


def test_a_network_without_norms_is_refused():
    with pytest.raises(ValueError, match="norm must name a normalisation.*got ''"):
        tiny(norm="")
