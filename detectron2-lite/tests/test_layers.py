"""Convolutions, norms, NMS, ROI align and the small wrappers of detectron2.layers."""

import golden_data as golden
import pytest
import sync_norm_worker
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn
from torchvision.ops import batched_nms as torchvision_batched_nms

import detectron2
import detectron2.layers as layers
from detectron2.layers import (
    CNNBlockBase,
    Conv2d,
    CycleBatchNormList,
    DepthwiseSeparableConv2d,
    FrozenBatchNorm2d,
    NaiveSyncBatchNorm,
    ROIAlign,
    ShapeSpec,
    batched_nms,
    cat,
    ciou_loss,
    cross_entropy,
    diou_loss,
    get_norm,
    move_device_like,
    nonzero_tuple,
    shapes_to_tensor,
)
from detectron2.layers.batch_norm import LayerNorm

BOXES, _ = golden.load("boxes")
ROI, _ = golden.load("roi")
FPN, FPN_META = golden.load("fpn")
_, MISC_META = golden.load("misc")

NORMS = [name.removeprefix("norm_") for name in FPN_META if name.startswith("norm_")]
NORMS.remove("input")


def norm_input() -> torch.Tensor:
    parameters = FPN_META["parameters"]
    return golden.feature(parameters["seed"] + 3, (2, parameters["c"], 5, 6))


# ------------------------------------------------------------------------------------ shape spec


def test_shape_spec_is_a_mutable_record_of_four_optional_numbers():
    spec = ShapeSpec(channels=3, stride=4)
    assert spec == ShapeSpec(3, None, None, 4)
    spec.height = 7
    assert (spec.channels, spec.height, spec.width, spec.stride) == (3, 7, None, 4)


# -------------------------------------------------------------------------------------- get_norm


@pytest.mark.parametrize("name", NORMS)
def test_norm_has_the_class_arguments_and_names_of_upstream(name):
    meta = FPN_META[f"norm_{name}"]
    norm = get_norm(name, FPN_META["norm_input"]["c"])
    assert type(norm).__name__ == meta["cls"]
    assert norm.eps == meta["eps"]
    assert getattr(norm, "num_groups", None) == meta["num_groups"]
    assert getattr(norm, "momentum", None) == meta["momentum"]
    assert golden.state_dict_shapes(norm) == meta["state_dict"]
    assert {n: p.requires_grad for n, p in norm.named_parameters()} == meta["requires_grad"]


@pytest.mark.parametrize("name", NORMS)
def test_norm_in_eval_gives_the_numbers_of_upstream(name):
    norm = golden.fill(get_norm(name, FPN_META["norm_input"]["c"])).eval()
    golden.assert_array(FPN, f"norm_{name}.eval", norm(norm_input()))


@pytest.mark.parametrize("name", ["BN", "naiveSyncBN_N"])
def test_norm_in_training_gives_the_numbers_of_upstream(name):
    norm = golden.fill(get_norm(name, FPN_META["norm_input"]["c"])).train()
    golden.assert_array(FPN, f"norm_{name}.train", norm(norm_input()))
    golden.assert_array(FPN, f"norm_{name}.running_mean", norm.running_mean)
    golden.assert_array(FPN, f"norm_{name}.running_var", norm.running_var)


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_norm_is_none(nothing):
    assert get_norm(nothing, 8) is None


@pytest.mark.parametrize("name", ["SyncBN", "nnSyncBN"])
def test_sync_bn_is_torchs_own_kind(name):
    assert isinstance(get_norm(name, 8), nn.SyncBatchNorm)


def test_a_callable_norm_is_called_with_the_channels():
    norm = get_norm(lambda channels: nn.GroupNorm(4, channels), 8)
    assert (norm.num_groups, norm.num_channels) == (4, 8)


def test_unknown_norm_is_a_key_error():
    with pytest.raises(KeyError, match="bn"):
        get_norm("bn", 8)


@pytest.mark.lite
def test_the_error_for_an_unknown_norm_lists_the_known_ones():
    with pytest.raises(KeyError, match="must be one of BN, SyncBN.*LN or empty, got 'bn'"):
        get_norm("bn", 8)


# ------------------------------------------------------------------------------------- LayerNorm


def test_layer_norm_makes_every_pixel_zero_mean_unit_variance():
    x = torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1)
    y = LayerNorm(2, eps=0.0)(x)
    torch.testing.assert_close(y, torch.tensor([-1.0, 1.0]).reshape(1, 2, 1, 1))


def test_layer_norm_is_that_of_torch_over_channels_but_not_of_its_class():
    x = norm_input()
    norm = golden.fill(LayerNorm(32))
    expected = F.layer_norm(x.permute(0, 2, 3, 1), (32,), norm.weight, norm.bias, 1e-6)
    torch.testing.assert_close(norm(x), expected.permute(0, 3, 1, 2), atol=1e-6, rtol=1e-6)
    assert not isinstance(norm, nn.LayerNorm)


def test_layer_norm_keeps_half_precision_under_autocast():
    x = (torch.randn(2, 64, 8, 8) + 3).bfloat16()
    norm = LayerNorm(64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = norm(x)
        assert norm.bfloat16()(x).dtype == y.dtype == torch.bfloat16
    # As exact as the type of the output: the sums are in float32.
    expected = F.layer_norm(x.float().movedim(1, 3), (64,), eps=1e-6).movedim(3, 1)
    torch.testing.assert_close(y.float(), expected, rtol=2**-8, atol=1e-4)


# ----------------------------------------------------------------------------- FrozenBatchNorm2d


def test_fresh_frozen_batch_norm_is_the_identity_and_has_no_parameters():
    norm = FrozenBatchNorm2d(3)
    assert not list(norm.parameters())
    assert list(norm.state_dict()) == ["weight", "bias", "running_mean", "running_var"]
    torch.testing.assert_close(norm.running_var, torch.full((3,), 0.99999))
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(norm(x), x)


def test_frozen_batch_norm_gives_the_same_with_and_without_gradient():
    norm = golden.fill(FrozenBatchNorm2d(32))
    x = norm_input()
    y = norm(x.clone().requires_grad_())
    assert y.requires_grad
    torch.testing.assert_close(y.detach(), norm(x), atol=1e-5, rtol=1e-5)


def test_frozen_batch_norm_keeps_half_precision_with_gradient():
    x = torch.randn(2, 3, 4, 4).bfloat16().requires_grad_()
    assert FrozenBatchNorm2d(3)(x).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.SyncBatchNorm, NaiveSyncBatchNorm])
def test_freezing_replaces_batch_norms_at_any_depth_and_keeps_their_numbers(kind):
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(golden.fill(kind(3, eps=1e-3))))
    x = torch.randn(2, 3, 4, 4)
    expected = model.eval()(x).detach()
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(model)
    assert frozen is model
    assert isinstance(model[1][0], FrozenBatchNorm2d)
    assert model[1][0].eps == 1e-3
    torch.testing.assert_close(model(x).detach(), expected, atol=1e-5, rtol=1e-5)


def test_freezing_a_batch_norm_without_affine_map_and_back_keeps_the_numbers():
    norm = nn.BatchNorm2d(3, affine=False)
    norm.running_mean += 1
    x = torch.randn(2, 3, 4, 4)
    expected = norm.eval()(x)
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(norm)
    torch.testing.assert_close(frozen(x), expected)
    thawed = FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d(nn.Sequential(frozen))
    assert type(thawed[0]) is nn.BatchNorm2d
    torch.testing.assert_close(thawed.eval()(x).detach(), expected)
    assert len(list(thawed.parameters())) == 2


@pytest.mark.lite
def test_a_batch_norm_without_statistics_cannot_be_frozen():
    with pytest.raises(ValueError, match="running statistics.*track_running_stats=True"):
        FrozenBatchNorm2d.convert_frozen_batchnorm(nn.BatchNorm2d(3, track_running_stats=False))


def test_old_files_without_statistics_load_as_mean_zero_variance_one():
    norm = nn.Sequential(golden.fill(FrozenBatchNorm2d(3)))
    norm.load_state_dict({"0.weight": torch.full((3,), 2.0), "0.bias": torch.ones(3)})
    assert norm[0].running_mean.tolist() == [0, 0, 0]
    assert norm[0].running_var.tolist() == [1, 1, 1]


def test_new_files_without_statistics_are_reported():
    norm = FrozenBatchNorm2d(3)
    state = norm.state_dict()
    del state["running_var"]
    with pytest.raises(RuntimeError, match="running_var"):
        norm.load_state_dict(state)


@pytest.mark.lite
def test_a_file_that_lacks_the_whole_layer_is_reported_and_changes_nothing():
    norm = golden.fill(FrozenBatchNorm2d(3))
    mean = norm.running_mean.clone()
    assert "running_mean" in norm.load_state_dict({}, strict=False).missing_keys
    assert torch.equal(norm.running_mean, mean)


# ---------------------------------------------------------------------------- NaiveSyncBatchNorm


def test_naive_sync_batch_norm_alone_accepts_an_empty_batch():
    norm = NaiveSyncBatchNorm(4, stats_mode="N").train()
    x = torch.zeros(0, 4, 7, 7, requires_grad=True)
    y = norm(x)
    y.sum().backward()
    assert y.shape == (0, 4, 7, 7)
    assert norm.running_mean.tolist() == [0] * 4
    assert norm.running_var.tolist() == [1] * 4
    assert norm.num_batches_tracked == 1


def test_naive_sync_batch_norm_knows_two_modes():
    with pytest.raises(AssertionError):
        NaiveSyncBatchNorm(4, stats_mode="n")


@pytest.fixture(scope="module")
def synced(tmp_path_factory) -> list[dict]:
    """Results of both processes of `sync_norm_worker`."""
    folder = tmp_path_factory.mktemp("sync")
    lite = "lite" in detectron2.__version__
    mp.spawn(sync_norm_worker.run, args=(str(folder), lite), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def samples(case: str) -> list[torch.Tensor]:
    _, shapes = (sync_norm_worker.CASES | sync_norm_worker.LITE_CASES)[case]
    return [sync_norm_worker.sample(rank, shape) for rank, shape in enumerate(shapes)]


def assert_same_as_one_process(synced, case, *, unbiased):
    """Both processes together are one batch norm over all their pixels."""
    inputs = samples(case)
    # (N, C, H, W) -> (1, C, N*H*W, 1): images of different sizes become one.
    pixels = torch.cat([x.transpose(0, 1).flatten(1) for x in inputs], dim=1)[None, :, :, None]
    norm = sync_norm_worker.filled(nn.BatchNorm2d(sync_norm_worker.CHANNELS))
    expected = sync_norm_worker.forward_backward(norm, pixels)
    for key in ("y", "x.grad"):
        actual = [result[case][key].transpose(0, 1).flatten(1) for result in synced]
        actual = torch.cat(actual, dim=1)[None, :, :, None]
        torch.testing.assert_close(actual, expected[key], atol=1e-4, rtol=1e-4)
    for key in ("weight.grad", "bias.grad"):
        total = synced[0][case][key] + synced[1][case][key]
        torch.testing.assert_close(total, expected[key], atol=1e-3, rtol=1e-4)
    count = pixels.shape[2]
    var = expected["running_var"]
    if not unbiased:
        var = 0.9 + (var - 0.9) * (count - 1) / count
    for result in synced:
        torch.testing.assert_close(result[case]["running_mean"], expected["running_mean"])
        torch.testing.assert_close(result[case]["running_var"], var, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", ["equal", "unequal", "one_empty"])
def test_naive_sync_batch_norm_over_two_processes_is_one_batch_norm(synced, case):
    assert_same_as_one_process(synced, case, unbiased=False)
    assert all(result[case]["num_batches_tracked"] == 0 for result in synced)


def test_naive_sync_batch_norm_changes_nothing_when_all_processes_are_empty(synced):
    for result in synced:
        assert result["all_empty"]["y"].shape == (0, 3, 4, 5)
        assert result["all_empty"]["running_mean"].tolist() == [0, 0, 0]
        assert result["all_empty"]["running_var"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("case", "weights"), [("unequal_pixels", [1, 3]), ("unequal_without_weights", [1, 1])]
)
def test_naive_sync_batch_norm_weighs_samples_or_processes_but_not_pixels(synced, case, weights):
    means = torch.stack([x.mean(dim=(0, 2, 3)) for x in samples(case)])
    weights = torch.tensor(weights, dtype=torch.float32)
    mean = (weights[:, None] * means).sum(dim=0) / weights.sum()
    for result in synced:
        torch.testing.assert_close(result[case]["running_mean"], 0.1 * mean)


def test_naive_sync_batch_norm_without_weights_refuses_an_empty_process(synced):
    assert all("error" in result for result in synced)


@pytest.mark.lite
def test_the_error_for_an_empty_process_names_the_mode_that_works(synced):
    for result in synced:
        assert 'got (0, 3, 4, 5); use stats_mode="N"' in result["error"]


def test_naive_sync_batch_norm_in_eval_ignores_the_other_process(synced):
    norm = sync_norm_worker.filled(nn.BatchNorm2d(3)).eval()
    for rank, result in enumerate(synced):
        torch.testing.assert_close(result["eval"], norm(sync_norm_worker.sample(rank, (2, 4, 5))))


@pytest.mark.lite
def test_naive_sync_batch_norm_computes_bfloat16_in_float32(synced):
    for result in synced:
        assert result["bfloat16"].dtype == torch.bfloat16
        assert torch.equal(result["bfloat16"], result["bfloat16_as_float32"].bfloat16())


@pytest.mark.lite
def test_naive_sync_batch_norm_survives_a_variance_rounded_below_zero(synced):
    # 1000.1 squared has more digits than float32: the difference of 1e6 and 1e6 may be -0.06.
    assert all(torch.isfinite(result["constant"]).all() for result in synced)


@pytest.mark.lite
def test_sync_bn_on_the_cpu_is_one_batch_norm_over_all_pixels(synced):
    assert_same_as_one_process(synced, "torch_sync_bn", unbiased=True)
    assert all(result["torch_sync_bn"]["num_batches_tracked"] == 1 for result in synced)


# ---------------------------------------------------------------------------- CycleBatchNormList


def test_cycle_batch_norm_list_uses_its_norms_in_turn():
    norms = CycleBatchNormList(2, num_features=3).train()
    assert list(norms.state_dict()) == [
        "weight",
        "bias",
        *(f"{i}.{name}" for i in range(2) for name in list(nn.BatchNorm2d(3).state_dict())[2:]),
    ]
    with torch.no_grad():
        norms.weight.fill_(2.0)
        norms.bias.fill_(5.0)
    x = torch.randn(4, 3, 6, 6)
    y = norms(x)
    torch.testing.assert_close(y, 2 * nn.BatchNorm2d(3)(x) + 5, atol=1e-5, rtol=1e-5)
    for _ in range(2):
        norms(x)
    assert [norms[0].num_batches_tracked.item(), norms[1].num_batches_tracked.item()] == [2, 1]


def test_cycle_batch_norm_list_without_affine_map_has_no_parameters():
    norms = CycleBatchNormList(2, bn_class=nn.SyncBatchNorm, num_features=3, affine=False)
    assert not list(norms.parameters())
    assert isinstance(norms[1], nn.SyncBatchNorm)
    x = torch.randn(4, 3, 6, 6)
    torch.testing.assert_close(norms(x), nn.BatchNorm2d(3)(x).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.lite
def test_cycle_batch_norm_list_can_start_again():
    norms = CycleBatchNormList(3, num_features=2).train()
    x = torch.randn(4, 2, 6, 6)
    norms(x)
    norms.reset()
    norms(x)
    assert [int(norm.num_batches_tracked) for norm in norms] == [2, 0, 0]


# ---------------------------------------------------------------------------------- convolutions


def conv2d_ln_relu() -> Conv2d:
    channels = FPN_META["norm_input"]["c"]
    return golden.fill(
        Conv2d(channels, 6, 3, padding=1, bias=False, norm=get_norm("LN", 6), activation=F.relu)
    )


def test_conv2d_with_norm_and_activation_gives_the_numbers_of_upstream():
    conv = conv2d_ln_relu()
    assert golden.state_dict_shapes(conv) == FPN_META["conv2d_ln_relu"]["state_dict"]
    golden.assert_array(FPN, "conv2d_ln_relu.out", conv(norm_input()))


def test_conv2d_of_an_empty_batch_is_empty_in_both_directions():
    conv = conv2d_ln_relu()
    x = norm_input()[:0].requires_grad_()
    y = conv(x)
    y.sum().backward()
    assert list(y.shape) == FPN["conv2d_ln_relu.out_empty_shape"].tolist()
    assert x.grad.shape == x.shape
    assert conv.weight.grad.abs().sum() == 0


def test_conv2d_refuses_an_empty_batch_for_sync_bn_in_training_only():
    conv = Conv2d(3, 4, 1, norm=get_norm("SyncBN", 4))
    with pytest.raises(AssertionError):
        conv.train()(torch.zeros(0, 3, 5, 5))
    assert conv.eval()(torch.zeros(0, 3, 5, 5)).shape == (0, 4, 5, 5)


@pytest.mark.lite
def test_the_error_for_sync_bn_on_an_empty_batch_names_a_norm_that_works():
    with pytest.raises(AssertionError, match=r"\(0, 3, 5, 5\).*naiveSyncBN_N"):
        Conv2d(3, 4, 1, norm=get_norm("SyncBN", 4))(torch.zeros(0, 3, 5, 5))


def test_plain_conv2d_is_torchs():
    conv = Conv2d(3, 4, 3, stride=2, padding=1)
    x = torch.randn(1, 3, 8, 8)
    expected = F.conv2d(x, conv.weight, conv.bias, stride=2, padding=1)
    assert torch.equal(conv(x), expected)


def test_depthwise_separable_conv_has_a_bias_only_without_norm():
    conv = DepthwiseSeparableConv2d(4, 6, norm1="BN", activation1=F.relu, activation2=F.relu)
    names = list(conv.state_dict())
    assert names[0] == "depthwise.weight" and "depthwise.bias" not in names
    assert names[-2:] == ["pointwise.weight", "pointwise.bias"]
    assert conv.depthwise.weight.shape == (4, 1, 3, 3)
    assert conv.pointwise.bias.abs().sum() == 0
    y = conv(torch.randn(2, 4, 5, 5))
    assert y.shape == (2, 6, 5, 5) and y.min() >= 0


def test_freezing_a_block_stops_gradients_and_replaces_batch_norm():
    class Block(CNNBlockBase):
        def __init__(self):
            super().__init__(3, 4, stride=2)
            self.conv1 = Conv2d(3, 4, 3, stride=2, norm=get_norm("BN", 4))

    block = Block()
    assert (block.in_channels, block.out_channels, block.stride) == (3, 4, 2)
    assert block.freeze() is block
    assert not any(p.requires_grad for p in block.parameters())
    assert isinstance(block.conv1.norm, FrozenBatchNorm2d)


# ----------------------------------------------------------------------------------- NMS, losses


@pytest.mark.parametrize("size", ["small", "big"])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_batched_nms_keeps_the_boxes_that_upstream_keeps(size, threshold):
    boxes, scores, idxs = (
        torch.from_numpy(BOXES[f"nms.{size}.{name}"]) for name in ("boxes", "scores", "idxs")
    )
    keep = batched_nms(boxes, scores, idxs, threshold)
    golden.assert_array(BOXES, f"nms.{size}.keep_{threshold}", keep)


def test_batched_nms_keeps_a_box_at_exactly_the_threshold():
    boxes = torch.tensor([[0.0, 0, 2, 1], [0.0, 0, 1, 1]])  # IoU 0.5
    args = boxes, torch.tensor([0.9, 0.8]), torch.zeros(2)
    assert batched_nms(*args, 0.5).tolist() == [0, 1]
    assert batched_nms(*args, 0.499).tolist() == [0]


def test_batched_nms_of_half_precision_boxes_computes_in_float32():
    boxes = torch.tensor([[1000.0, 0, 1010, 10], [1001.0, 0, 1011, 10], [0.0, 0, 9, 9]])
    scores, idxs = torch.tensor([0.5, 0.9, 0.7]), torch.tensor([70, 70, 2])
    keep = batched_nms(boxes.half(), scores, idxs, 0.5)
    assert keep.tolist() == torchvision_batched_nms(boxes, scores, idxs, 0.5).tolist() == [1, 2]


def test_batched_nms_needs_four_coordinates():
    with pytest.raises(AssertionError):
        batched_nms(torch.zeros(2, 5), torch.zeros(2), torch.zeros(2), 0.5)


def test_iou_losses_are_zero_for_equal_boxes_and_grow_with_distance():
    box = torch.tensor([[0.0, 0, 2, 2]])
    far = torch.tensor([[2.0, 0, 4, 2]])
    # IoU 0; centres 2 apart, diagonal of the hull sqrt(4^2 + 2^2): 1 + 4 / 20.
    torch.testing.assert_close(diou_loss(box, far), torch.tensor([1.2]))
    torch.testing.assert_close(ciou_loss(box, far), torch.tensor([1.2]))
    assert ciou_loss(box, box, reduction="sum").abs() < 1e-6


# ------------------------------------------------------------------------------------- ROI align


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("size", [7, 14])
def test_roi_align_gives_the_numbers_of_upstream(aligned, sampling_ratio, size):
    pool = ROIAlign((size, size), 0.25, sampling_ratio, aligned=aligned)
    out = pool(torch.from_numpy(ROI["align.feature"]), torch.from_numpy(ROI["align.rois"]))
    golden.assert_array(ROI, f"align.aligned{aligned:d}_sr{sampling_ratio}_out{size}", out)


def test_roi_align_of_whole_pixels_returns_them():
    feature = torch.arange(16.0).reshape(1, 1, 4, 4)
    out = ROIAlign((2, 2), 1.0, 1)(feature, torch.tensor([[0.0, 1, 1, 3, 3]]))
    assert out[0, 0].tolist() == [[5, 6], [9, 10]]


def test_roi_align_takes_rois_to_the_dtype_of_its_input():
    out = ROIAlign((1, 1), 1.0, 1)(torch.ones(1, 1, 4, 4).double(), torch.zeros(0, 5))
    assert out.dtype == torch.float64 and out.shape == (0, 1, 1, 1)


def test_roi_align_needs_five_columns():
    with pytest.raises(AssertionError):
        ROIAlign((1, 1), 1.0, 1)(torch.ones(1, 1, 4, 4), torch.zeros(2, 4))


@pytest.mark.lite
def test_the_error_for_rois_without_batch_index_says_what_the_columns_are():
    with pytest.raises(AssertionError, match=r"batch index and box, got \(2, 4\)"):
        ROIAlign((1, 1), 1.0, 1)(torch.ones(1, 1, 4, 4), torch.zeros(2, 4))


# ---------------------------------------------------------------------------------- small things


def test_cat_returns_a_single_tensor_itself():
    x = torch.zeros(2)
    assert cat([x]) is x
    assert cat((x, x + 1), dim=0).tolist() == [0, 0, 1, 1]
    with pytest.raises(AssertionError):
        cat(x)


def test_cross_entropy_of_nothing_is_zero_and_has_a_gradient():
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(0, dtype=torch.int64), reduction="mean")
    loss.backward()
    assert loss.item() == MISC_META["cross_entropy_empty_mean"]
    assert logits.grad.shape == (0, 5)


def test_cross_entropy_of_something_is_torchs():
    logits, target = torch.randn(4, 5), torch.tensor([0, 4, 2, 1])
    assert torch.equal(cross_entropy(logits, target), F.cross_entropy(logits, target))
    expected = F.cross_entropy(logits, target, reduction="sum", label_smoothing=0.1)
    assert torch.equal(
        cross_entropy(logits, target, reduction="sum", label_smoothing=0.1), expected
    )


def test_small_helpers_do_what_their_names_say():
    rows, columns = nonzero_tuple(torch.tensor([[0, 1], [1, 0]]))
    assert rows.tolist() == [0, 1] and columns.tolist() == [1, 0]
    sizes = shapes_to_tensor([3, 4])
    assert sizes.tolist() == [3, 4] and not sizes.is_floating_point()
    assert move_device_like(torch.zeros(1), torch.zeros(1, device="meta")).device.type == "meta"


def test_torchs_own_layers_are_exported_under_their_names():
    assert layers.Linear is nn.Linear
    assert layers.BatchNorm2d is nn.BatchNorm2d
    assert issubclass(layers.ConvTranspose2d, nn.ConvTranspose2d)
    assert layers.interpolate is F.interpolate
    assert callable(layers.roi_align) and callable(layers.nms)
