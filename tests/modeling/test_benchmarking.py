"""Benchmarking-ViT against the published backbone's outputs, and its own invariants."""

import numpy as np
import pytest
import torch
from golden_models import CONFIGS, assert_summary, fill, image, load, padded_batch
from torch import nn

from detectron2.config import LazyConfig, instantiate
from detectron2.structures import ImageList
from mimdet.layers.attention import BiasedAttention
from mimdet.layers.pos_embed import get_2d_sincos_pos_embed
from mimdet.layers.rel_pos import RelativePositionBias
from mimdet.modeling.backbone.benchmarking import BenchmarkingViTDet
from mimdet.modeling.postprocessing import image_masks

CASES = {case["case"]: case for case in load("forward/benchmarking_backbone.json.gz")}


def tiny(**changes) -> BenchmarkingViTDet:
    """A filled backbone of eight blocks and 64 channels for images of 64 pixels, windows of 2."""
    arguments = dict(window_size=2, img_size=64, embed_dim=64, depth=8, num_heads=4) | changes
    return fill(BenchmarkingViTDet(**arguments))


def images(number: int = 2, side: int = 64) -> torch.Tensor:
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CASES)
def test_features_equal_the_published_backbone(name):
    case = CASES[name]
    torch.manual_seed(0)
    backbone = BenchmarkingViTDet(**case["args"]).eval()
    sizes = {"padded": case["image_sizes"][0]}
    batch = padded_batch(case | sizes)
    for key in ("windowed", "global"):
        index = backbone.get_buffer(f"{key}_rel_pos_bias.relative_position_index")
        assert index.sum().item() == case[f"{key}_rel_index_sum"]
    corner = case["global_rel_index_corner"]
    assert index[: len(corner), : len(corner[0])].tolist() == corner
    if "pos_embed_before_fill" in case:
        assert_summary(case["pos_embed_before_fill"], backbone.pos_embed)
    table = backbone.pos_embed.detach().clone()
    assert backbone.pos_embed.requires_grad == case["pos_embed_requires_grad"]
    fill(backbone)
    # the table as it is made has been compared above, so once with it is enough
    for key in ("features", "features_with_unfilled_pos_embed"):
        if key == "features" or (key in case and name.startswith("tiny")):
            with torch.no_grad():
                features = backbone(batch)
                backbone.pos_embed.copy_(table)
            assert features.keys() == case[key].keys()
            for feature, summary in case[key].items():
                assert_summary(summary, features[feature], f"{feature} of {key}")


def test_every_kind_of_published_case_is_compared():
    assert list(CASES) == ["tiny", "tiny_learned_pos_beit", "tiny_nonsquare", "vit_base_512"]
    assert {"features_with_unfilled_pos_embed"} & {key for case in CASES.values() for key in case}


def test_detector_finds_what_the_published_detector_finds():
    expected = load("forward/benchmarking_tiny_detector.json.gz")
    cfg = LazyConfig.load(str(CONFIGS / "benchmarking" / expected["config"]))
    # the release's modules read their starting weights themselves; ours know of no files
    assert expected["overrides"].pop("model.backbone.bottom_up.pretrained") is None
    for key, value in expected["overrides"].items():
        LazyConfig.apply_overrides(cfg, [f"{key}={'null' if value is None else value}"])
    model = fill(instantiate(cfg.model)).eval()
    inputs = [
        dict(image=image(expected["image_index_first"] + k, *size), height=hw[0], width=hw[1])
        for k, (size, hw) in enumerate(
            zip(expected["image_sizes"], expected["height_width"], strict=True)
        )
    ]
    with torch.no_grad():
        outputs = model(inputs)
    for output, wanted in zip(outputs, expected["outputs"], strict=True):
        instances, n = output["instances"], len(wanted["boxes"])
        assert (list(instances.image_size), len(instances)) == (wanted["image_size"], wanted["n"])
        np.testing.assert_allclose(instances.pred_boxes.tensor[:n], wanted["boxes"], atol=1e-2)
        np.testing.assert_allclose(instances.scores[:n], wanted["scores"], atol=1e-4)
        assert instances.scores.sum().item() == pytest.approx(wanted["scores_sum"], rel=1e-4)
        assert instances.pred_classes[:n].tolist() == wanted["classes"]
        masks = image_masks(instances)
        assert list(masks.shape) == wanted["mask_shape"]
        areas = masks.flatten(1).sum(1)[: len(wanted["mask_area"])]
        np.testing.assert_allclose(areas, wanted["mask_area"], atol=2, rtol=5e-3)


# --- by hand and by invariant ---------------------------------------------------------------------


def test_relative_index_of_a_grid_of_one_by_two_tokens_is_that_of_the_formula():
    # the columns differ by -1, 0 or 1: rows 0, 1, 2 of the table
    bias = RelativePositionBias((1, 2), num_heads=1)
    assert bias.relative_position_index.tolist() == [[1, 0], [2, 1]]
    bias.relative_position_bias_table.data = torch.tensor([[10.0], [20.0], [30.0]])
    assert bias().values.tolist() == [[[20, 10], [30, 20]]]


def test_bias_depends_on_the_difference_of_positions_alone():
    module = fill(RelativePositionBias((3, 4), num_heads=2))
    bias = module().values.unflatten(2, (3, 4)).unflatten(1, (3, 4))  # (N, h, w, h', w')
    assert torch.equal(bias[:, 0, 1, 1, 0], bias[:, 1, 3, 2, 2])
    assert torch.equal(bias[:, 2, 3, 0, 0], module.relative_position_bias_table[-1])
    assert torch.equal(bias[:, 0, 0, 2, 3], module.relative_position_bias_table[0])


def test_bias_is_made_in_the_precision_of_autocast():
    module = fill(RelativePositionBias((2, 2), num_heads=2))
    with torch.autocast("cpu", torch.bfloat16):
        assert module().values.dtype == torch.bfloat16
    assert module().values.dtype == torch.float32


def test_beit_bias_is_a_joint_bias_without_keys():
    beit = fill(BiasedAttention(8, num_heads=2, qkv_bias=True, beit_qkv_bias=True))
    joint = BiasedAttention(8, num_heads=2, qkv_bias=True, beit_qkv_bias=False)
    state = beit.state_dict()
    bias = torch.cat([state.pop("q_bias"), torch.zeros(8), state.pop("v_bias")])
    joint.load_state_dict(state | {"qkv.bias": bias})
    x = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0))
    rel = RelativePositionBias((2, 2), num_heads=2)()
    torch.testing.assert_close(beit(x, rel), joint(x, rel))


def test_the_last_block_of_each_quarter_sees_the_whole_map_and_the_others_their_window():
    backbone, x = tiny().eval(), images(1)
    changed = x.clone()
    changed[..., -16:, -16:] += 1  # the last token
    inputs = {}

    def remember(name):
        return lambda block, arguments, output: inputs.setdefault(name, []).append(output)

    for i in (0, 1):
        backbone.blocks[i].register_forward_hook(remember(i))
    with torch.no_grad():
        backbone(x), backbone(changed)
    same = [(first == second).all(dim=-1).flatten() for first, second in inputs.values()]
    # block 0: windows of 2x2 in a row, only the last one has changed; block 1: all tokens
    assert same[0].tolist() == [True] * 12 + [False] * 4
    assert not same[1].any()


def test_checkpointing_changes_no_output_and_no_gradient():
    results = []
    for with_cp in (False, True):
        backbone = tiny(with_cp=with_cp).train()
        features = backbone(images())
        sum(f.square().mean() for f in features.values()).backward()
        results.append((features, {n: p.grad for n, p in backbone.named_parameters()}))
    (features, grads), (features_cp, grads_cp) = results
    for name, feature in features.items():
        assert torch.equal(feature, features_cp[name]), name
    for name, grad in grads.items():
        torch.testing.assert_close(grad, grads_cp[name], msg=name)


def test_every_parameter_gets_a_gradient_unless_it_is_frozen():
    for frozen in (set(), {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}):
        backbone = tiny(
            freeze_pos_embed=bool(frozen),
            stop_grad_conv1=bool(frozen),
            init_values=0.1,
            beit_qkv_bias=True,
        ).train()
        sum(f.square().mean() for f in backbone(images()).values()).backward()
        without = {name for name, p in backbone.named_parameters() if p.grad is None}
        assert without == frozen
        assert {n for n, p in backbone.named_parameters() if not p.requires_grad} == frozen


def test_drop_path_drops_each_window_by_itself_and_whole_images_in_the_last_block_of_a_quarter():
    backbone = tiny(drop_path_rate=0.9).train()  # 4 windows of 4 tokens in an image
    dropped = {}

    def remember(name):
        def hook(module, x, output):
            dropped.setdefault(name, []).append(output.abs().sum(dim=-1) == 0)

        return hook

    for i in range(1, 8):
        backbone.blocks[i].drop_path.register_forward_hook(remember(i))
    torch.manual_seed(0)
    backbone(images(8))
    for i, branches in dropped.items():
        for tokens in branches:
            assert tokens.shape == ((8, 16) if i % 2 else (32, 4))
            assert torch.equal(tokens.all(dim=1), tokens.any(dim=1))
    of_images = dropped[6][0].all(dim=1).view(8, 4)
    assert (of_images.any(dim=1) & ~of_images.all(dim=1)).any()  # some windows of an image


def test_feature_shapes_follow_output_shape_and_an_image_list_is_taken_too():
    backbone = tiny(img_size=(64, 96)).eval()
    batch = torch.randn(1, 3, 64, 96)
    features = backbone(batch)
    for name, spec in backbone.output_shape().items():
        assert features[name].shape == (1, spec.channels, 64 // spec.stride, 96 // spec.stride)
    assert [s.stride for s in backbone.output_shape().values()] == [4, 8, 16, 32]
    listed = backbone(ImageList(batch, [(64, 96)]))
    assert all(torch.equal(listed[name], features[name]) for name in features)


# --- position tables and initial weights ----------------------------------------------------------


@pytest.mark.parametrize("order, of_rows", [("row_first", 0), ("column_first", 1)])
def test_sincos_table_has_the_code_of_rows_in_the_half_that_is_asked_for(order, of_rows):
    table = tiny_table(sincos_pos_embed=True, sincos_order=order)
    halves = table.reshape(4, 4, 2, 32)  # row, column, half, channel
    by_row, by_column = halves[:, :, of_rows], halves[:, :, 1 - of_rows]
    assert torch.equal(by_row[:, 0], by_row[:, 3])
    assert torch.equal(by_column[0], by_column[3])


def tiny_table(**arguments) -> torch.Tensor:
    backbone = BenchmarkingViTDet(
        window_size=2, img_size=64, embed_dim=64, depth=4, num_heads=4, **arguments
    )
    return backbone.pos_embed.detach().reshape(1, 16, 64)


def test_column_first_is_maes_own_table():
    table = tiny_table(sincos_pos_embed=True, sincos_order="column_first")
    assert torch.equal(table[0], get_2d_sincos_pos_embed(64, 4))


@pytest.mark.parametrize("case", load("forward/pos_embed.json.gz")["benchmarking_sincos"])
def test_sincos_table_equals_the_released_one(case):
    backbone = BenchmarkingViTDet(
        window_size=1,
        img_size=[16 * side for side in case["grid"]],
        embed_dim=case["embed_dim"],
        depth=4,
        num_heads=4,
        mlp_ratio=0.1,
        sincos_pos_embed=True,
    )
    assert_summary(case["table"], backbone.pos_embed)


def test_zero_pos_embed_starts_with_zeros_that_are_trained():
    backbone = BenchmarkingViTDet(
        window_size=2, img_size=64, embed_dim=64, depth=4, num_heads=4, zero_pos_embed=True
    )
    assert not backbone.pos_embed.any() and backbone.pos_embed.requires_grad


def test_initial_weights_are_cut_at_one_deviation_and_shrink_with_depth():
    torch.manual_seed(0)
    backbone = BenchmarkingViTDet(window_size=2, img_size=64, embed_dim=64, depth=4, num_heads=4)
    for layer, block in enumerate(backbone.blocks, start=1):
        # a normal law cut at one deviation has 0.5396 of its deviation
        assert block.mlp.fc1.weight.abs().max() <= 0.02
        assert block.mlp.fc1.weight.std().item() == pytest.approx(0.5396 * 0.02, rel=0.05)
        assert block.mlp.fc2.weight.abs().max() <= 0.02 / (2 * layer) ** 0.5
        assert block.attn.proj.weight.std() < block.attn.qkv.weight.std() / (2 * layer) ** 0.5 * 1.1
    fan_in = 3 * 16 * 16
    assert backbone.patch_embed.proj.weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.1)
    assert not any(p.any() for n, p in backbone.named_parameters() if n.endswith("bias"))
    assert not backbone.global_rel_pos_bias.relative_position_bias_table.any()
    assert (
        isinstance(backbone.blocks[0].norm1, nn.LayerNorm) and backbone.blocks[0].norm1.eps == 1e-6
    )


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 80), (48, 64), (128, 128)])
def test_images_of_another_size_are_refused_with_both_sizes(size):
    message = rf"needs images of \(64, 64\) pixels .*got \({size[0]}, {size[1]}\); pad them"
    with pytest.raises(ValueError, match=message):
        tiny()(torch.zeros(1, 3, *size))


def test_a_window_that_does_not_divide_the_map_is_refused():
    message = r"window_size must divide the token map, got 3 for a map of \(4, 4\) tokens"
    with pytest.raises(ValueError, match=message):
        tiny(window_size=3)


def test_an_image_size_that_is_no_multiple_of_the_patch_is_refused():
    with pytest.raises(ValueError, match=r"img_size must be a multiple of patch_size, got \(70, "):
        tiny(img_size=70)


@pytest.mark.parametrize("patch_size", [2, 14])
def test_a_patch_without_whole_strides_around_it_is_refused(patch_size):
    with pytest.raises(ValueError, match=f"patch_size must be a power of two .*got {patch_size}"):
        tiny(patch_size=patch_size, img_size=56)


def test_strides_follow_from_the_patch():
    backbone = tiny(patch_size=8).eval()
    assert [s.stride for s in backbone.output_shape().values()] == [2, 4, 8, 16]
    features = backbone(images(1))
    for name, spec in backbone.output_shape().items():
        assert features[name].shape[-2:] == (64 // spec.stride, 64 // spec.stride)


def test_a_depth_that_four_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="depth must be a multiple of 4.*got 6"):
        tiny(depth=6)


def test_an_unknown_order_of_the_table_is_refused():
    with pytest.raises(ValueError, match="sincos_order must be 'row_first' or 'column_first'"):
        tiny(sincos_pos_embed=True, sincos_order="rows")
