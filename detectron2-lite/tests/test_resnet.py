"""ResNet: names, sizes, arithmetic, freezing."""

import pytest
import torch
import torchvision
from torch import nn

from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import ResNet, make_stage
from detectron2.modeling.backbone import BasicStem, BottleneckBlock
from detectron2.modeling.backbone.resnet import BasicBlock

MAPS = ["res2", "res3", "res4", "res5"]


def build(depth=18, norm="BN", **arguments):
    return ResNet(BasicStem(norm=norm), ResNet.make_default_stages(depth, norm=norm), **arguments)


def tiny(num_stages=2, **arguments):
    stages = [
        make_stage(
            BasicBlock, 2, in_channels=8 * 2**i, out_channels=16 * 2**i, stride_per_block=[2, 1]
        )
        for i in range(num_stages)
    ]
    return ResNet(BasicStem(out_channels=8), stages, **arguments)


def torchvision_name(name):
    """The name in torchvision's ResNet of an entry of ours."""
    name = name.replace("stem.conv1.norm", "bn1").removeprefix("stem.")
    for stage in range(2, 6):
        name = name.replace(f"res{stage}.", f"layer{stage - 1}.")
    for conv in range(1, 4):
        name = name.replace(f"conv{conv}.norm", f"bn{conv}")
    name = name.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")
    return name.replace("linear.", "fc.")


@pytest.mark.parametrize("depth", [18, 50])
@torch.no_grad()
def test_network_with_the_weights_of_torchvisions_gives_its_outputs(depth):
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=7).eval()
    ours = build(depth, num_classes=7).eval()
    weights = theirs.state_dict()
    ours.load_state_dict({name: weights[torchvision_name(name)] for name in ours.state_dict()})
    assert len(ours.state_dict()) == len(weights)
    torch.manual_seed(0)
    x = torch.randn(2, 3, 65, 40)
    torch.testing.assert_close(ours(x)["linear"], theirs(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("depth", "channels", "blocks"),
    [
        (18, [64, 128, 256, 512], [2, 2, 2, 2]),
        (34, [64, 128, 256, 512], [3, 4, 6, 3]),
        (50, [256, 512, 1024, 2048], [3, 4, 6, 3]),
        (101, [256, 512, 1024, 2048], [3, 4, 23, 3]),
        (152, [256, 512, 1024, 2048], [3, 8, 36, 3]),
    ],
)
def test_default_stages_have_the_blocks_of_the_paper(depth, channels, blocks):
    with torch.device("meta"):
        network = build(depth, out_features=MAPS)
        outputs = network(torch.zeros(1, 3, 64, 96))
    assert [len(getattr(network, name)) for name in MAPS] == blocks
    assert network.output_shape() == {
        name: ShapeSpec(channels=c, stride=stride)
        for name, c, stride in zip(MAPS, channels, (4, 8, 16, 32), strict=True)
    }
    for name, shape in network.output_shape().items():
        size = (1, shape.channels, 64 // shape.stride, 96 // shape.stride)
        assert tuple(outputs[name].shape) == size


def test_blocks_have_the_names_of_released_checkpoints():
    names = list(build(50, out_features=["res2"]).state_dict())
    norm = [f"norm.{x}" for x in ("weight", "bias", "running_mean", "running_var")]
    norm.append("norm.num_batches_tracked")
    expected = [
        f"{part}.{entry}"
        for part in (
            "stem.conv1",
            *(f"res2.0.{x}" for x in ("shortcut", "conv1", "conv2", "conv3")),
        )
        for entry in ("weight", *norm)
    ]
    assert names[: len(expected)] == expected
    assert not any(name.startswith("res2.1.shortcut") for name in names)


@pytest.mark.parametrize(("in_1x1", "strides"), [(True, (2, 1)), (False, (1, 2))])
def test_stride_is_in_the_first_or_in_the_middle_convolution(in_1x1, strides):
    block = BottleneckBlock(
        8, 16, bottleneck_channels=4, stride=2, stride_in_1x1=in_1x1, num_groups=2, dilation=3
    )
    assert (block.conv1.stride[0], block.conv2.stride[0]) == strides
    assert block.conv2.groups == 2 and block.conv2.dilation == (3, 3)
    assert block.conv1.bias is block.conv2.bias is block.conv3.bias is None
    assert block(torch.zeros(1, 8, 10, 9)).shape == (1, 16, 5, 5)


# ---- outputs


def test_the_last_stage_is_the_only_output_by_default():
    assert list(tiny()(torch.zeros(1, 3, 32, 32))) == ["res3"]
    assert list(tiny(num_classes=5)(torch.zeros(1, 3, 32, 32))) == ["linear"]


def test_outputs_come_in_stage_order_and_later_stages_are_left_out():
    network = tiny(3, out_features=["res3", "stem"])
    outputs = network(torch.zeros(1, 3, 64, 64))
    assert {name: tuple(x.shape[1:]) for name, x in outputs.items()} == {
        "stem": (8, 16, 16),
        "res3": (32, 4, 4),
    }
    assert list(outputs) == ["stem", "res3"]
    assert not any(name.startswith("res4") for name in network.state_dict())


@pytest.mark.lite
@pytest.mark.parametrize("names", [["res7"], ["linear"], []])
def test_an_unknown_output_is_an_error(names):
    with pytest.raises(AssertionError):
        tiny(out_features=names)


def test_input_that_is_no_batch_of_images_is_an_error():
    with pytest.raises(AssertionError):
        tiny()(torch.zeros(3, 32, 32))


# ---- freezing


@pytest.mark.parametrize(
    ("freeze_at", "frozen"), [(0, set()), (1, {"stem"}), (2, {"stem", "res2"})]
)
def test_frozen_parts_have_no_gradient_and_no_moving_statistics(freeze_at, frozen):
    network = tiny(freeze_at=freeze_at)
    for name in ("stem", "res2", "res3"):
        part = getattr(network, name)
        assert {p.requires_grad for p in part.parameters()} == {name not in frozen}
        norms = {type(m) for m in part.modules() if "BatchNorm" in type(m).__name__}
        assert norms == {FrozenBatchNorm2d if name in frozen else nn.BatchNorm2d}


# ---- stages


def test_each_block_can_have_its_own_arguments():
    blocks = make_stage(
        BottleneckBlock,
        3,
        in_channels=8,
        out_channels=16,
        bottleneck_channels=4,
        stride_per_block=[2, 1, 1],
        dilation_per_block=[1, 1, 2],
    )
    assert [b.in_channels for b in blocks] == [8, 16, 16]
    assert [b.stride for b in blocks] == [2, 1, 1]
    assert [b.conv2.dilation[0] for b in blocks] == [1, 1, 2]


def test_wrong_arguments_of_a_stage_are_errors():
    for wrong in ({"stride_per_block": [1]}, {"stride": 1, "stride_per_block": [1, 1]}):
        with pytest.raises(AssertionError):
            make_stage(BasicBlock, 2, in_channels=8, out_channels=8, **wrong)
    with pytest.raises(KeyError):
        ResNet.make_default_stages(42)


@pytest.mark.lite
def test_wrong_arguments_are_explained():
    channels = {"in_channels": 8, "out_channels": 8}
    with pytest.raises(AssertionError, match=r"one entry for each of 2 blocks, got \[1\]"):
        make_stage(BasicBlock, 2, stride_per_block=[1], **channels)
    with pytest.raises(AssertionError, match="stride or stride_per_block, got both"):
        make_stage(BasicBlock, 2, stride=1, stride_per_block=[1, 1], **channels)
    with pytest.raises(KeyError, match=r"one of \[18, 34, 50, 101, 152\], got 42"):
        ResNet.make_default_stages(42)
    with pytest.raises(AssertionError, match=r"some of \['stem', 'res2', 'res3'\], got \['res7'\]"):
        tiny(out_features=["res7"])
    with pytest.raises(AssertionError, match=r"images \(B, C, H, W\), got \(3, 32, 32\)"):
        tiny()(torch.zeros(3, 32, 32))
