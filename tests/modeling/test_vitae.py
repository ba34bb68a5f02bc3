"""ViTAE's cells and backbones against the released code's outputs, and their own invariants."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from mmdet_weights import arrays, backbone_of, batch_of, cases, filled
from torch import nn

from mimdet.checkpoint.convert.vitdet_mmdet import to_native
from mimdet.layers.attention import RelPosAttention
from mimdet.modeling.backbone.vitae import (
    NormalCell,
    NormedViT,
    PerformerBlock,
    PlainViTAE,
    Reduction,
    ReductionCell,
    ViTAE,
)
from mimdet.modeling.backbone.vitdet import SimpleFeaturePyramid

BACKBONES = (
    "unofficial_vit_backbone",
    "unofficial_vitae_b_backbone",
    "unofficial_vitae_s_backbone",
)
# the three reduction cells of ViTAE
REDUCTIONS = [Reduction(4, 7, (1, 2, 3, 4)), Reduction(2, 3, (1, 2, 3)), Reduction(2, 3, (1, 2))]


def assert_equal(actual: torch.Tensor, expected: torch.Tensor) -> None:
    # 1e-4: the goldens' own tolerance; float32 against float64 differs by 1e-5
    np.testing.assert_allclose(actual.detach().numpy(), expected.numpy(), atol=1e-4, rtol=0)


def converted(shapes: dict[str, list[int]], prefix: str) -> dict[str, torch.Tensor]:
    """Filled under their own names, then converted as if they were below `prefix`."""
    native = to_native({f"{prefix}{name}": value for name, value in filled(shapes).items()})
    new_prefix = prefix.replace("backbone.", "backbone.net.")
    return {name.removeprefix(new_prefix): value for name, value in native.items()}


def normal_cell(case: dict, **changes) -> NormalCell:
    attn = RelPosAttention(
        case["dim"],
        case["heads"],
        use_rel_pos=True,
        input_size=case["window_size"],
        window_size=case["window_size"] if case["window"] else 0,
    )
    arguments = dict(
        mlp_ratio=case["mlp_ratio"],
        groups=case["group"],
        norm="BN",
        third_conv="PCM.6.weight" in case["keys"],
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    cell = NormalCell(case["dim"], case["heads"], attn, **arguments | changes)
    cell.load_state_dict(converted(case["keys"], "backbone.blocks.0."))
    return cell.eval()


@pytest.mark.parametrize("kind", ["b_window", "b_global", "s_window", "s_global"])
def test_normal_cell_equals_the_released_one(kind):
    case, data = cases()[f"vis_cell_{kind}"], arrays(f"vis_cell_{kind}")
    with torch.no_grad():
        y = normal_cell(case)(data["x"].unflatten(1, case["hw"]))
    assert_equal(y.flatten(1, 2), data["y"])


def reduction_cell(index: int, **changes) -> ReductionCell:
    case = cases()[f"vis_reduction_{index}"]
    args = case["args"]
    token_dim = args["token_dims"] if args["tokens_type"] == "performer" else None
    reduction = Reduction(args["downsample_ratios"], args["kernel_size"], tuple(args["dilations"]))
    assert reduction == REDUCTIONS[index]
    cell = ReductionCell(
        args["in_chans"], args["embed_dims"], token_dim, reduction, "BN", **changes
    )
    cell.load_state_dict(filled(case["keys"]))
    return cell.eval()


@pytest.mark.parametrize("index", range(3))
def test_reduction_cell_equals_the_released_one(index):
    data = arrays(f"vis_reduction_{index}")
    with torch.no_grad():
        y = reduction_cell(index)(data["x"])
    assert list(y.shape[2:]) == cases()[f"vis_reduction_{index}"]["out_hw"]
    assert_equal(y.flatten(2).transpose(1, 2), data["y"])


def pyramid_of(name: str) -> tuple[SimpleFeaturePyramid, dict]:
    """The pyramid of a stored case on its backbone with converted weights; the rest is random."""
    case = cases()[name]
    pyramid = SimpleFeaturePyramid(
        backbone_of(case),
        "last_feat",
        out_channels=24,
        scale_factors=(4.0, 2.0, 1.0, 0.5),
        keep_channels=True,
    )
    weights = converted(case["keys"], "backbone.")
    own = {n.removeprefix("net."): n for n in pyramid.state_dict() if n.startswith("net.")}
    renamed = {own.get(n, n.removeprefix("backbone.")): value for n, value in weights.items()}
    missing, unexpected = pyramid.load_state_dict(renamed, strict=False)
    assert not unexpected
    # what is left are the two convolutions of each level, which the stored case has not
    assert all(n.split(".")[-2] == "norm" or ".weight" in n for n in missing)
    assert not any(n.startswith("net.") for n in missing)
    return pyramid.eval(), case


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_equals_the_released_one_at_every_level(name):
    pyramid, case = pyramid_of(name)
    expected = arrays(name)
    with torch.no_grad():
        feature = pyramid.net(batch_of(case))["last_feat"]
        for k, stage in enumerate(("simfp_2", "simfp_3", "simfp_4", "simfp_5")):
            rescale = pyramid.get_submodule(stage)[:-2]  # before the stage's convolutions
            assert_equal(rescale(feature), expected[f"level{k}"])


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_has_the_released_number_of_parameters(name):
    case = cases()[name]
    count = sum(p.numel() for p in backbone_of(case).parameters())
    width = 48
    pyramid = 3 * (width * width * 4 + width) + 2 * width  # three deconvolutions and a norm
    # two key biases fewer there: the global block of the tiny ViTAE-B
    key_bias = width if "vitae_b" in name else 0
    assert count == case["params"] - pyramid + key_bias


@pytest.mark.parametrize("name", BACKBONES)
def test_images_of_another_size_than_the_tables_are_taken(name):
    backbone = backbone_of(cases()[name]).eval()
    with torch.no_grad():
        feature = backbone(torch.randn(1, 3, 50, 97))["last_feat"]
    assert feature.shape == (1, 48, 4, 7)  # rounded up to whole tokens


def trained(name: str, **changes) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A backbone after one forward and backward pass in training, and its gradients."""
    torch.manual_seed(0)
    backbone = backbone_of(cases()[name]).train()
    for key, value in changes.items():
        setattr(backbone, key, value)
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    backbone(batch_of(cases()[name]))["last_feat"].square().mean().backward()
    return backbone, {n: p.grad for n, p in backbone.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", BACKBONES[1:])
def test_checkpointing_changes_neither_gradients_nor_running_statistics(name):
    plain, expected = trained(name)
    recomputed, actual = trained(name, use_act_checkpoint=True)
    for key, gradient in expected.items():
        torch.testing.assert_close(actual[key], gradient, msg=key)
    state = recomputed.state_dict()
    counted = [key for key in state if key.endswith("num_batches_tracked")]
    assert counted and all(state[key] == 1 for key in counted)
    for key, value in plain.state_dict().items():
        assert torch.equal(state[key], value), key


def test_the_random_features_alone_are_frozen():
    frozen = {
        n for n, p in backbone_of(cases()[BACKBONES[2]]).named_parameters() if not p.requires_grad
    }
    assert frozen == {"layers.0.RC.attn.w", "layers.1.RC.attn.w"}


def test_random_directions_are_orthogonal_and_of_equal_length():
    w = PerformerBlock(10, 12).w
    torch.testing.assert_close(w @ w.T, 6 * torch.eye(6), atol=1e-5, rtol=0)


def quotient_in_float64(block: PerformerBlock, q, k, v) -> torch.Tensor:
    """The attention as a quotient of sums, without the release's 1e-8."""
    w = block.w.double()
    q, k, v = q.double(), k.double(), v.double()
    features = [(x @ w.T - x.square().sum(-1, keepdim=True) / 2).exp() for x in (q, k)]
    weights = features[0] @ features[1].transpose(1, 2)
    return weights / weights.sum(dim=-1, keepdim=True) @ v


@pytest.mark.parametrize("length", [0.5, 3.0])
def test_subtracting_the_maximum_gives_the_quotient_where_features_underflow(length):
    torch.manual_seed(0)
    block = PerformerBlock(16, 16, subtract_max=True)
    q, k, v = (torch.randn(2, 9, 16) for _ in range(3))
    q, k = q * length, k * length
    expected = quotient_in_float64(block, q, k, v)
    torch.testing.assert_close(block._attend(q, k, v).double(), expected, atol=1e-4, rtol=1e-3)
    block.subtract_max = False
    off = (block._attend(q, k, v).double() - expected).abs().max()
    assert (off < 1e-4) == (length == 0.5)


def test_attention_of_a_reduction_cell_is_computed_in_float32_under_autocast():
    cell, x = reduction_cell(1), arrays("vis_reduction_1")["x"]
    q = torch.randn(1, 4, 24, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert cell.attn._attend(q, q, q).dtype == torch.float32
        y = cell(x)
    # bfloat16 has 8 bits, and the convolutions around the attention use it
    torch.testing.assert_close(y.float(), reduction_cell(1)(x).detach(), atol=0.2, rtol=0.05)


def test_train_and_eval_return_the_module():
    backbone = backbone_of(cases()[BACKBONES[2]])
    assert backbone.train() is backbone and backbone.eval() is backbone


def test_drop_path_grows_from_zero_and_not_in_reduction_cells():
    backbone = ViTAE(
        img_size=32, embed_dims=(4, 4, 8), token_dims=(8, 8), depth=3, num_heads=2,
        drop_path_rate=0.2, global_block_indexes=(2,), pcm_groups=4,
    )  # fmt: skip
    rates = [getattr(cell.drop_path, "drop_prob", 0.0) for cell in backbone.layers[2]["NC"]]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


def test_attention_and_convolutions_are_dropped_independently():
    case = cases()["vis_cell_b_global"]
    cell = normal_cell(case, drop_path=0.5).train()
    x = arrays("vis_cell_b_global")["x"][:1].unflatten(1, case["hw"])
    cell.PCM.eval()
    cell.mlp = nn.Identity()
    nn.init.zeros_(cell.norm2.weight), nn.init.zeros_(cell.norm2.bias)
    attn, convolved = cell.attn(cell.norm1(x)), cell.PCM(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    possible = {(a, c): x + 2 * a * attn + 2 * c * convolved for a in (0, 1) for c in (0, 1)}
    torch.manual_seed(0)
    seen = set()
    with torch.no_grad():
        for _ in range(40):
            y = cell(x)
            seen |= {key for key, value in possible.items() if torch.allclose(y, value, atol=1e-5)}
    assert seen == set(possible)


@pytest.mark.parametrize("norm, kind", [("BN", nn.BatchNorm2d), ("SyncBN", nn.SyncBatchNorm)])
def test_norm_of_the_convolutions_is_the_one_that_is_asked_for(norm, kind):
    arguments = dict(img_size=32, embed_dim=16, depth=1, num_heads=2)
    plain = PlainViTAE(pcm_groups=4, pcm_norm=norm, **arguments)
    staged = ViTAE(
        img_size=32, embed_dims=(4, 4, 8), token_dims=(8, 8), depth=1, num_heads=2,
        global_block_indexes=(0,), pcm_groups=4, pcm_norm=norm,
    )  # fmt: skip
    for backbone, count in ((plain, 1), (staged, 4)):
        assert sum(isinstance(m, kind) for m in backbone.modules()) == count
    assert not any(isinstance(m, kind) for m in NormedViT(**arguments).modules())


def test_an_index_without_a_cell_is_refused():
    message = r"global_block_indexes must be in 0..2 for 3 normal cells, got \[3\]"
    with pytest.raises(ValueError, match=message):
        ViTAE(depth=3, global_block_indexes=(1, 3))


@pytest.mark.parametrize("changes", [{"embed_dims": (4, 8)}, {"token_dims": (8, 8, 16)}])
def test_other_numbers_of_reduction_cells_are_refused(changes):
    with pytest.raises(ValueError, match="embed_dims must have 3 numbers and token_dims 2, got "):
        ViTAE(**changes)


def test_output_shape_tells_channels_and_stride():
    (shape,) = backbone_of(cases()[BACKBONES[2]]).output_shape().values()
    assert (shape.channels, shape.stride) == (48, 16)
    assert math.prod(r.stride for r in REDUCTIONS) == 16
