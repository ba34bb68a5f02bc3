import pytest
import torch
from golden_data import assert_array, feature, load

from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes

ARRAYS, META = load("roi")
SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
POOLERS = [name for name in META if name.startswith("pooler.") and name != "pooler.empty_shape"]


def features(batch=2, channels=4):
    seed = META["pooler"]["seed"]
    return [feature(seed + 30 + k, (batch, channels, 32 >> k, 40 >> k)) for k in range(4)]


def boxes(*rows):
    return Boxes(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4))


def pooler(output_size=7, pooler_type="ROIAlignV2", **kwargs):
    return ROIPooler(output_size, SCALES, 0, pooler_type, **kwargs)


@pytest.mark.parametrize("name", [name for name in META if name.startswith("levels.")])
def test_levels_equal_upstream(name):
    tensor = torch.from_numpy(ARRAYS["levels.boxes"])
    box_lists = [Boxes(tensor[:30]), Boxes(tensor[30:])]
    assert_array(ARRAYS, name, assign_boxes_to_levels(box_lists, *META[name]["args"]))


@pytest.mark.parametrize("name", POOLERS)
def test_pooled_features_equal_upstream(name):
    box_lists = [Boxes(torch.from_numpy(ARRAYS[f"pooler.boxes{i}"])) for i in range(2)]
    assert_array(ARRAYS, name, ROIPooler(**META[name])(features(), box_lists))


def test_images_without_boxes_give_an_empty_result():
    pooled = pooler()(features(), [boxes(), boxes()])
    assert list(pooled.shape) == META["pooler.empty_shape"]


def test_no_images_give_an_empty_result():
    assert pooler()(features(batch=0), []).shape == (0, 4, 7, 7)


def test_boxes_keep_their_coordinates_where_the_maps_are_in_bfloat16():
    maps = [torch.randn(1, 4, 400 >> k, 512 >> k).bfloat16() for k in range(4)]
    corners = torch.rand(40, 2) * 400 + 1003.3
    sides = torch.rand(40, 2) * 300 + 5
    box_lists = [Boxes(torch.cat([corners, corners + sides], dim=1))]
    expected = pooler()([x.float() for x in maps], box_lists)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pooler()(maps, box_lists)
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(pooled, expected.bfloat16(), rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize(
    "width, height, level",
    [
        (112, 112, 1),
        (111.9, 112, 0),
        (224, 224, 2),
        (223.99, 224, 1),
        (448, 448, 3),
        (0, 0, 0),
        (2000, 2000, 3),
        (56, 56, 0),
    ],
)
def test_level_of_a_box_by_hand(width, height, level):
    levels = assign_boxes_to_levels([boxes([0, 0, width, height])], 2, 5, 224, 4)
    assert levels.tolist() == [level]
    assert levels.dtype == torch.int64


def test_each_box_is_pooled_from_its_level_in_the_order_given():
    x = features()
    box_lists = [boxes([0, 0, 120, 120], [3, 3, 9, 9]), boxes([0, 0, 60, 60], [1, 2, 130, 100])]
    pooled = pooler(canonical_box_size=56)(x, box_lists)
    rows = [(0, b) for b in box_lists[0].tensor] + [(1, b) for b in box_lists[1].tensor]
    levels = assign_boxes_to_levels(box_lists, 2, 5, 56, 4).tolist()
    assert levels == [3, 0, 2, 3]
    for result, (image, box), level in zip(pooled, rows, levels, strict=True):
        roi = torch.cat([torch.tensor([float(image)]), box])[None]
        expected = ROIAlign((7, 7), SCALES[level], 0, aligned=True)(x[level], roi)[0]
        torch.testing.assert_close(result, expected)


def test_one_scale_pools_every_box_from_the_only_map():
    x = features()[1:2]
    single = ROIPooler((7, 5), [1 / 8], 0, "ROIAlignV2")
    pooled = single(x, [boxes([0, 0, 2, 2], [0, 0, 300, 300]), boxes()])
    expected = ROIAlign((7, 5), 1 / 8, 0, aligned=True)(
        x[0], torch.tensor([[0.0, 0, 0, 2, 2], [0, 0, 0, 300, 300]])
    )
    torch.testing.assert_close(pooled, expected)


def test_every_map_is_in_the_graph_even_without_boxes_on_its_level():
    x = [level.requires_grad_() for level in features()]
    pooler()(x, [boxes([0, 0, 20, 20]), boxes()]).sum().backward()
    assert [bool(level.grad.abs().sum() > 0) for level in x] == [True, False, False, False]


@pytest.mark.parametrize("pooler_type", ["ROIAlign", "ROIAlignV2", "ROIPool"])
def test_constant_maps_pool_to_the_constant(pooler_type):
    x = [torch.full((1, 2, 32 >> k, 32 >> k), 3.0) for k in range(4)]
    pooled = pooler(pooler_type=pooler_type)(x, [boxes([20, 20, 60, 60], [8, 8, 120, 120])])
    torch.testing.assert_close(pooled, torch.full((2, 2, 7, 7), 3.0))


def test_the_pooler_has_no_state():
    assert len(pooler().state_dict()) == 0


@pytest.mark.lite
def test_output_may_be_a_rectangle_with_several_levels():
    box_lists = [boxes([0, 0, 20, 20], [0, 0, 150, 120]), boxes()]
    assert pooler(output_size=(7, 5))(features(), box_lists).shape == (2, 4, 7, 5)


@pytest.mark.lite
def test_boxes_without_a_valid_area_pool_to_zeros():
    nan = float("nan")
    box_lists = [boxes([9, 0, 0, 9], [0, 0, 20, 20], [nan, 0, 9, 9]), boxes()]
    assert assign_boxes_to_levels(box_lists, 2, 5, 224, 4).tolist() == [-1, 0, -1]
    pooled = pooler()(features(), box_lists)
    assert [bool(row.abs().sum() > 0) for row in pooled] == [False, True, False]


def test_an_unknown_pooler_type_is_an_error():
    with pytest.raises(ValueError, match="RoIAlign"):
        pooler(pooler_type="RoIAlign")


@pytest.mark.parametrize("scales", [[1 / 3], [1 / 4, 1 / 16], [1 / 8, 1 / 4], [2.0]])
def test_scales_other_than_consecutive_powers_are_an_error(scales):
    with pytest.raises(AssertionError):
        ROIPooler(7, scales, 0, "ROIAlignV2")


@pytest.mark.lite
def test_errors_about_arguments_say_what_was_received():
    with pytest.raises(AssertionError, match=r"powers 1/2\^k .* got \[0.25, 0.0625\]"):
        ROIPooler(7, [1 / 4, 1 / 16], 0, "ROIAlignV2")
    with pytest.raises(AssertionError, match=r"powers 1/2\^k .* got \[\]"):
        ROIPooler(7, [], 0, "ROIAlignV2")
    with pytest.raises(AssertionError, match=r"output_size must be .* got \(7, 7, 7\)"):
        pooler(output_size=(7, 7, 7))
    with pytest.raises(AssertionError, match="canonical_box_size must be positive, got 0"):
        pooler(canonical_box_size=0)


@pytest.mark.parametrize(
    "change",
    [lambda x, b: (tuple(x), b), lambda x, b: (x[:3], b), lambda x, b: (x, b[:1])],
    ids=["not a list", "map missing", "image missing"],
)
def test_inputs_that_do_not_fit_are_an_error(change):
    with pytest.raises(AssertionError):
        pooler()(*change(features(), [boxes([0, 0, 9, 9])] * 2))


@pytest.mark.lite
def test_errors_about_inputs_say_what_was_received():
    with pytest.raises(AssertionError, match="takes lists, got tuple and list"):
        pooler()(tuple(features()), [boxes()] * 2)
    with pytest.raises(AssertionError, match="has 4 scales, got 3 feature maps"):
        pooler()(features()[:3], [boxes()] * 2)
    with pytest.raises(AssertionError, match="got 1 for 2 images"):
        pooler()(features(), [boxes()])
