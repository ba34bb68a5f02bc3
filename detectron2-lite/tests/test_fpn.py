import pytest
import torch
from golden_data import TinyBackbone, assert_array, fill, image, load, state_dict_shapes
from torch import nn

from detectron2.modeling import FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7

ARRAYS, META = load("fpn")
CASES = [name for name, case in META.items() if "output_names" in case]
TOP_BLOCKS = {"LastLevelMaxPool": LastLevelMaxPool, "LastLevelP6P7": LastLevelP6P7}


def build(name):
    kwargs = dict(META[name]["kwargs"])
    if kwargs["top_block"]:
        block, arguments = kwargs["top_block"]
        kwargs["top_block"] = TOP_BLOCKS[block](**arguments)
    return fill(FPN(bottom_up=TinyBackbone(), **kwargs)).eval()


def pyramid(in_features=("res3", "res4"), out_channels=4, **kwargs):
    return FPN(TinyBackbone(), in_features, out_channels, **kwargs)


@pytest.mark.parametrize("name", CASES)
def test_outputs_equal_upstream(name):
    first, size = META["input"]["seed"], META["input"]["size"]
    images = (torch.stack([image(first + i, *size) for i in range(2)]).float() - 127.5) / 64
    outputs = build(name)(images)
    assert list(outputs) == META[name]["output_names"]
    for level, value in outputs.items():
        assert_array(ARRAYS, f"{name}.{level}", value)


@pytest.mark.parametrize("name", CASES)
def test_names_and_shapes_equal_upstream(name):
    model = build(name)
    assert state_dict_shapes(model) == META[name]["state_dict"]
    assert [n for n, _ in model.named_parameters()] == META[name]["parameters"]
    assert model.size_divisibility == META[name]["size_divisibility"]
    assert model.padding_constraints == META[name]["padding_constraints"]
    shapes = {
        n: {"channels": s.channels, "stride": s.stride} for n, s in model.output_shape().items()
    }
    assert shapes == META[name]["output_shape"]
    assert list(shapes) == META[name]["output_names"]


def test_a_backbone_states_its_outputs_and_asks_for_no_padding():
    backbone = TinyBackbone()
    shapes = backbone.output_shape()
    assert [(n, s.channels, s.stride) for n, s in shapes.items()] == [
        ("res2", 8, 4),
        ("res3", 12, 8),
        ("res4", 16, 16),
        ("res5", 24, 32),
    ]
    assert backbone.size_divisibility == 0
    assert backbone.padding_constraints == {}


def test_the_abstract_backbone_cannot_be_built():
    with pytest.raises(TypeError):
        Backbone()


def test_a_coarser_map_is_repeated_and_added_to_the_finer_one():
    class Maps(Backbone):
        _out_features = ["a", "b"]
        _out_feature_channels = {"a": 1, "b": 1}
        _out_feature_strides = {"a": 4, "b": 8}

        def forward(self, image):
            return {"a": torch.zeros(1, 1, 2, 2), "b": torch.tensor([[[[5.0]]]])}

    for fuse_type, expected in (("sum", 5.0), ("avg", 2.5)):
        model = FPN(Maps(), ["a", "b"], 1, fuse_type=fuse_type)
        for level in (2, 3):
            lateral, output = model.get_submodule(f"fpn_lateral{level}"), f"fpn_output{level}"
            nn.init.dirac_(lateral.weight)
            nn.init.dirac_(model.get_submodule(output).weight)
        outputs = model(None)
        assert outputs["p3"].item() == 5.0
        torch.testing.assert_close(outputs["p2"], torch.full((1, 1, 2, 2), expected))


def test_the_input_reaches_the_bottom_up_network_untouched():
    seen = []

    class Recording(TinyBackbone):
        def forward(self, x):
            seen.append(x)
            return super().forward(x["image"])

    batch = {"image": torch.zeros(1, 3, 32, 32)}
    FPN(Recording(), ["res3", "res4"], 4)(batch)
    assert seen[0] is batch


def test_max_pool_takes_every_second_pixel():
    x = torch.arange(15.0).reshape(1, 1, 3, 5)
    (p6,) = LastLevelMaxPool()(x)
    assert p6.tolist() == [[[[0, 2, 4], [10, 12, 14]]]]


def test_p7_is_made_from_the_rectified_p6():
    block = LastLevelP6P7(2, 3)
    p6, p7 = block(torch.randn(1, 2, 5, 7))
    assert (p6.shape, p7.shape) == ((1, 3, 3, 4), (1, 3, 2, 2))
    torch.testing.assert_close(p7, block.p7(torch.relu(p6)))


@pytest.mark.parametrize("norm", ["BN", lambda channels: nn.Identity(), None])
def test_convolutions_have_a_bias_only_where_norm_is_an_empty_text(norm):
    assert any(name.endswith("lateral3.bias") for name, _ in pyramid().named_parameters())
    assert not any(
        name.endswith("lateral3.bias") for name, _ in pyramid(norm=norm).named_parameters()
    )


def test_biases_start_at_zero_and_weights_within_the_xavier_bound():
    conv = pyramid().fpn_output3
    assert conv.bias.abs().max() == 0
    bound = (3 / (4 * 9)) ** 0.5  # kaiming uniform with a = 1: sqrt(3 / fan_in)
    assert 0.5 * bound < conv.weight.abs().max() <= bound


def test_every_parameter_of_the_pyramid_gets_a_gradient():
    model = pyramid(["res4", "res5"], top_block=LastLevelP6P7(24, 4))
    sum(value.sum() for value in model(torch.randn(1, 3, 64, 64)).values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_an_image_of_indivisible_size_is_an_error():
    with pytest.raises(RuntimeError, match="size"):
        pyramid(["res2", "res3"])(torch.zeros(1, 3, 250, 256))


@pytest.mark.lite
def test_maps_of_one_row_are_not_broadcast():
    with pytest.raises(RuntimeError, match="multiple of 8"):
        pyramid(["res2", "res3"])(torch.zeros(1, 3, 4, 8))


@pytest.mark.parametrize("in_features", [["res2", "res4"], ["res4", "res3"]])
def test_strides_that_do_not_double_are_an_error(in_features):
    with pytest.raises(AssertionError, match="[Ss]tride"):
        pyramid(in_features)


def test_wrong_arguments_are_errors():
    with pytest.raises(AssertionError):
        FPN(nn.Identity(), ["res3"], 4)
    with pytest.raises(AssertionError):
        pyramid(fuse_type="max")
    with pytest.raises(AssertionError):
        pyramid([])
    with pytest.raises(KeyError, match="res6"):
        pyramid(["res5", "res6"])


@pytest.mark.lite
def test_a_top_block_whose_input_does_not_exist_is_an_error():
    model = pyramid(top_block=LastLevelMaxPool())
    with pytest.raises(ValueError, match="p5"):
        model(torch.zeros(1, 3, 32, 32))


@pytest.mark.lite
def test_errors_name_what_was_given_and_what_exists():
    with pytest.raises(
        AssertionError, match="must be a detectron2.modeling.Backbone, got Identity"
    ):
        FPN(nn.Identity(), ["res3"], 4)
    with pytest.raises(AssertionError, match="'sum' or 'avg', got 'max'"):
        pyramid(fuse_type="max")
    with pytest.raises(AssertionError, match="got strides {'res2': 4, 'res4': 16}"):
        pyramid(["res2", "res4"])
    with pytest.raises(KeyError, match="res2.*res5.*lacks .*res6"):
        pyramid(["res5", "res6"])
    with pytest.raises(ValueError, match="one of .*'res5', 'p3', 'p4'.* got 'p5'"):
        pyramid(top_block=LastLevelMaxPool())(torch.zeros(1, 3, 32, 32))


@pytest.mark.lite
def test_a_name_that_lite_leaves_out_is_explained_on_import():
    with pytest.raises(ImportError, match="build_model is not part of detectron2-lite"):
        from detectron2.modeling import build_model  # noqa: F401
