import pytest
import torch
from golden_data import assert_array, load

from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

ARRAYS, META = load("anchors")
CASES = [name for name, case in META.items() if "kwargs" in case]


def maps(*sizes):
    return [torch.zeros(1, 1, h, w) for h, w in sizes]


@pytest.mark.parametrize("case", CASES)
def test_anchors_of_every_level_equal_upstream(case):
    generator = DefaultAnchorGenerator(**META[case]["kwargs"])
    for g, sizes in enumerate(META[case]["grids"]):
        anchors = generator(maps(*sizes))
        assert len(anchors) == len(sizes)
        for level, boxes in enumerate(anchors):
            assert_array(ARRAYS, f"{case}.grid{g}.level{level}", boxes.tensor)


@pytest.mark.parametrize("case", CASES)
def test_counts_and_buffers_equal_upstream(case):
    generator = DefaultAnchorGenerator(**META[case]["kwargs"])
    assert generator.num_anchors == META[case]["num_anchors"]
    assert generator.num_cell_anchors == META[case]["num_anchors"]
    assert generator.box_dim == META[case]["box_dim"]
    assert list(generator.state_dict()) == META[case]["state_dict_keys"]
    assert [name for name, _ in generator.named_buffers()] == META[case]["buffers"]


def test_anchors_by_hand():
    generator = DefaultAnchorGenerator(
        sizes=[[32]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=[4], offset=0.0
    )
    (anchors,) = generator(maps((2, 3)))
    assert len(anchors) == 18
    flat, square, tall = anchors.tensor[:3]
    torch.testing.assert_close(flat, torch.tensor([-22.627417, -11.313708, 22.627417, 11.313708]))
    assert square.tolist() == [-16, -16, 16, 16]
    torch.testing.assert_close(tall, torch.tensor([-11.313708, -22.627417, 11.313708, 22.627417]))
    torch.testing.assert_close(anchors.tensor[3], flat + torch.tensor([4.0, 0, 4, 0]))
    torch.testing.assert_close(anchors.tensor[9], flat + torch.tensor([0, 4.0, 0, 4]))


def test_default_offset_is_half_a_stride():
    generator = DefaultAnchorGenerator(sizes=[32], aspect_ratios=[1.0], strides=[4])
    assert generator(maps((1, 2)))[0].tensor.tolist() == [[-14, -14, 18, 18], [-10, -14, 22, 18]]


def test_the_offset_may_end_between_pixels():
    generator = DefaultAnchorGenerator(sizes=[8], aspect_ratios=[1.0], strides=[5], offset=0.3)
    first, second = generator(maps((1, 2)))[0].get_centers().tolist()
    assert (first, second) == (pytest.approx([1.5, 1.5]), pytest.approx([6.5, 1.5]))


def test_flat_lists_hold_for_every_level():
    flat = DefaultAnchorGenerator(sizes=[8, 16], aspect_ratios=[1.0], strides=[4, 8])
    spelled = DefaultAnchorGenerator(
        sizes=[[8, 16], [8, 16]], aspect_ratios=[[1.0], [1.0]], strides=[4, 8]
    )
    sizes = maps((3, 2), (2, 1))
    for a, b in zip(flat(sizes), spelled(sizes), strict=True):
        torch.testing.assert_close(a.tensor, b.tensor, rtol=0, atol=0)


@pytest.mark.lite
def test_an_empty_map_has_no_anchors():
    generator = DefaultAnchorGenerator(sizes=[8], aspect_ratios=[1.0], strides=[4])
    assert generator(maps((0, 5)))[0].tensor.shape == (0, 4)


def test_the_first_levels_suffice_when_there_are_fewer_maps():
    generator = DefaultAnchorGenerator(sizes=[[8], [16]], aspect_ratios=[1.0], strides=[4, 8])
    assert [len(boxes) for boxes in generator(maps((2, 2)))] == [4]


def test_many_sizes_in_turn_give_the_same_anchors_as_a_fresh_generator():
    def build():
        return DefaultAnchorGenerator(sizes=[8], aspect_ratios=[1.0], strides=[4])

    generator = build()
    for _ in range(2):
        for size in range(1, 13):
            expected = build()(maps((size, 3)))[0].tensor
            torch.testing.assert_close(generator(maps((size, 3)))[0].tensor, expected)


def test_anchors_first_made_in_inference_mode_serve_training():
    generator = DefaultAnchorGenerator(sizes=[8], aspect_ratios=[1.0], strides=[4])
    with torch.inference_mode():
        generator(maps((2, 2)))
    weight = torch.ones(4, 4, requires_grad=True)
    (weight * generator(maps((2, 2)))[0].tensor).sum().backward()
    assert weight.grad is not None


@pytest.mark.lite
def test_the_grid_of_a_size_seen_before_is_not_built_again():
    generator = DefaultAnchorGenerator(sizes=[8], aspect_ratios=[1.0], strides=[4])
    first, again = (generator(maps((2, 2)))[0].tensor for _ in range(2))
    assert first.data_ptr() == again.data_ptr()


def test_anchors_follow_the_type_and_the_device_of_the_generator():
    def build():
        return DefaultAnchorGenerator(sizes=[10.3], aspect_ratios=[0.7], strides=[4])

    used = build()
    used(maps((2, 2)))  # what is kept from this must not be given again
    in_half = used.half()(maps((2, 2)))[0].tensor
    torch.testing.assert_close(in_half, build().half()(maps((2, 2)))[0].tensor, rtol=0, atol=0)
    assert not torch.equal(in_half, build()(maps((2, 2)))[0].tensor)
    assert used.to("meta")(maps((2, 2)))[0].tensor.device.type == "meta"


@pytest.mark.lite
def test_clipping_returned_anchors_does_not_change_the_next_ones():
    generator = DefaultAnchorGenerator(sizes=[8], aspect_ratios=[1.0], strides=[4])
    expected = generator(maps((2, 2)))[0].tensor.clone()
    generator(maps((2, 2)))[0].clip((3, 3))
    torch.testing.assert_close(generator(maps((2, 2)))[0].tensor, expected)


@pytest.mark.parametrize("name", ["sizes", "aspect_ratios"])
def test_a_list_that_does_not_fit_the_strides_is_an_error(name):
    kwargs = {"sizes": [[8]], "aspect_ratios": [[1.0]], "strides": [4, 8, 16]}
    with pytest.raises(AssertionError, match=name):
        DefaultAnchorGenerator(**{**kwargs, name: [[1.0], [2.0]]})


@pytest.mark.lite
def test_an_empty_list_of_sizes_is_an_error():
    with pytest.raises(AssertionError, match="sizes must be a non-empty list"):
        DefaultAnchorGenerator(sizes=[], aspect_ratios=[1.0], strides=[4])


@pytest.mark.parametrize("offset", [-0.1, 1.0])
def test_an_offset_outside_the_cell_is_an_error(offset):
    with pytest.raises(AssertionError, match=str(offset)):
        DefaultAnchorGenerator(sizes=[8], aspect_ratios=[1.0], strides=[4], offset=offset)


@pytest.mark.lite
def test_more_maps_than_levels_are_an_error():
    generator = DefaultAnchorGenerator(sizes=[8], aspect_ratios=[1.0], strides=[4])
    with pytest.raises(ValueError, match="1 levels .* got 2 feature maps"):
        generator(maps((2, 2), (1, 1)))
