"""Boxes, instances and image lists."""

import copy
import pickle

import golden_data as golden
import numpy as np
import pytest
import torch

from detectron2.structures import (
    Boxes,
    BoxMode,
    ImageList,
    Instances,
    pairwise_ioa,
    pairwise_iou,
    pairwise_point_box_distance,
)
from detectron2.structures import boxes as boxes_module

BOXES, BOXES_META = golden.load("boxes")
MISC, MISC_META = golden.load("misc")

HALF_SIZE = tuple(side // 2 for side in BOXES_META["parameters"]["img"])


def golden_boxes(name: str) -> Boxes:
    return Boxes(torch.from_numpy(BOXES[f"iou.{name}"].copy()))


# --------------------------------------------------------------------------------------- BoxMode


def test_box_modes_have_the_numbers_that_files_use():
    names = ["XYXY_ABS", "XYWH_ABS", "XYXY_REL", "XYWH_REL", "XYWHA_ABS"]
    assert [mode.name for mode in BoxMode] == names
    assert [int(mode) for mode in BoxMode] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "box",
    [
        [1, 2, 3, 5],
        (1, 2, 3, 5),
        np.array([[1, 2, 3, 5]]),
        np.array([[1.0, 2, 3, 5]]),
        torch.tensor([[1.0, 2, 3, 5]]),
    ],
    ids=["list", "tuple", "ints", "floats", "tensor"],
)
def test_converting_a_box_keeps_its_type_and_leaves_it_alone(box):
    before = copy.deepcopy(box)
    out = BoxMode.convert(box, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert type(out) is type(box)
    assert np.asarray(out).reshape(-1).tolist() == [1, 2, 4, 7]
    assert np.asarray(out).dtype == np.asarray(box).dtype
    assert np.array_equal(np.asarray(box), np.asarray(before))
    back = BoxMode.convert(out, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    assert np.array_equal(np.asarray(back), np.asarray(before))


def test_converting_to_the_same_mode_returns_the_box_itself():
    box = [1, 2, 3, 4]
    assert BoxMode.convert(box, BoxMode.XYXY_ABS, BoxMode.XYXY_ABS) is box


def test_converting_lists_keeps_ints_and_rounds_floats_to_float32():
    ints = BoxMode.convert([1, 2, 3, 4], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert all(isinstance(value, int) for value in ints)
    floats = BoxMode.convert([0.1, 0.2, 0.3, 0.4], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert floats[0] == float(np.float32(0.1)) != 0.1


def test_plain_numbers_are_accepted_as_modes():
    assert BoxMode.convert([1, 2, 3, 4], 1, 0) == [1, 2, 4, 6]


def test_relative_boxes_cannot_be_converted():
    for modes in [(BoxMode.XYXY_REL, BoxMode.XYXY_ABS), (BoxMode.XYWH_ABS, BoxMode.XYWH_REL)]:
        with pytest.raises(AssertionError):
            BoxMode.convert([0, 0, 1, 1], *modes)


@pytest.mark.lite
def test_box_mode_errors_name_the_modes():
    with pytest.raises(AssertionError, match="XYXY_REL to XYXY_ABS.*image size"):
        BoxMode.convert([0, 0, 1, 1], BoxMode.XYXY_REL, BoxMode.XYXY_ABS)
    with pytest.raises(NotImplementedError, match="XYWHA_ABS to XYXY_ABS"):
        BoxMode.convert([0, 0, 1, 1, 45], BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS)
    with pytest.raises(AssertionError, match=r"4 numbers, got \[1, 2, 3\]"):
        BoxMode.convert([1, 2, 3], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)


# ----------------------------------------------------------------------------------------- Boxes


def test_pairwise_iou_and_ioa_are_those_of_upstream():
    a, b = golden_boxes("a"), golden_boxes("b")
    golden.assert_array(BOXES, "iou.iou", pairwise_iou(a, b))
    golden.assert_array(BOXES, "iou.ioa", pairwise_ioa(a, b))


def test_methods_of_boxes_give_the_numbers_of_upstream():
    b = golden_boxes("b")
    golden.assert_array(BOXES, "iou.area_b", b.area())
    golden.assert_array(BOXES, "iou.centers", b.get_centers())
    golden.assert_array(BOXES, "iou.inside_box", b.inside_box(HALF_SIZE, boundary_threshold=3))
    clipped = b.clone()
    clipped.clip(HALF_SIZE)
    golden.assert_array(BOXES, "iou.clip_half", clipped.tensor)
    golden.assert_array(BOXES, "iou.nonempty_half", clipped.nonempty())
    golden.assert_array(BOXES, "iou.nonempty_thr4", b.nonempty(threshold=4))
    b.scale(1.5, 0.75)
    golden.assert_array(BOXES, "iou.scaled_1.5_0.75", b.tensor)


def test_iou_of_two_boxes_by_hand():
    a, b = Boxes([[0, 0, 2, 2]]), Boxes([[1, 1, 3, 3], [0, 0, 2, 1], [2, 0, 4, 2]])
    torch.testing.assert_close(pairwise_iou(a, b), torch.tensor([[1 / 7, 0.5, 0.0]]))
    torch.testing.assert_close(pairwise_ioa(a, b), torch.tensor([[1 / 4, 1.0, 0.0]]))


def test_iou_has_a_gradient():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]], requires_grad=True)
    others = Boxes([[2.0, 2, 12, 12], [3, 3, 5, 9], [20, 20, 30, 30]])
    pairwise_iou(Boxes(boxes), others).sum().backward()
    expected = torch.tensor([[0.0466, 0.0466, 0.0399, 0.0399]])  # the third has none
    torch.testing.assert_close(boxes.grad, expected, atol=1e-4, rtol=0)


def test_iou_of_empty_boxes_is_zero_and_not_nan():
    point = Boxes([[1, 1, 1, 1]])
    assert pairwise_iou(point, point).item() == 0
    assert pairwise_ioa(point, point).item() == 0
    assert pairwise_iou(Boxes([]), point).shape == (0, 1)
    assert pairwise_iou(point, Boxes([])).shape == (1, 0)


@pytest.mark.lite
def test_iou_of_many_boxes_in_chunks_is_the_same(monkeypatch):
    a, b = golden_boxes("a"), golden_boxes("b")
    expected = pairwise_iou(a, b)
    monkeypatch.setattr(boxes_module, "_MAX_PAIRS", 5 * len(b))
    assert torch.equal(pairwise_iou(a, b), expected)
    monkeypatch.setattr(boxes_module, "_MAX_PAIRS", 1)
    assert torch.equal(pairwise_iou(a, b), expected)


@pytest.mark.parametrize("empty", [[], torch.zeros(0), torch.zeros(0, 4), np.zeros((0, 4))])
def test_anything_empty_makes_no_boxes(empty):
    boxes = Boxes(empty)
    assert boxes.tensor.shape == (0, 4) and boxes.tensor.dtype == torch.float32
    assert boxes.area().shape == (0,) and boxes.nonempty().shape == (0,)


def test_boxes_are_float32_whatever_they_are_made_from():
    for source in ([[1, 2, 3, 4]], np.array([[1.0, 2, 3, 4]]), torch.tensor([[1, 2, 3, 4]])):
        assert Boxes(source).tensor.dtype == torch.float32


@pytest.mark.parametrize("shape", [(4,), (2, 5), (1, 2, 4)])
def test_boxes_must_have_four_columns(shape):
    with pytest.raises(AssertionError):
        Boxes(torch.zeros(shape))


@pytest.mark.lite
def test_the_error_for_a_wrong_shape_gives_the_shape():
    with pytest.raises(AssertionError, match=r"\(N, 4\), got \(2, 5\)"):
        Boxes(torch.zeros(2, 5))


def test_clip_makes_a_new_tensor():
    original = torch.tensor([[-1.0, -2, 50, 60]])
    boxes = Boxes(original)
    boxes.clip((30, 40))
    assert boxes.tensor.tolist() == [[0, 0, 40, 30]]
    assert original.tolist() == [[-1, -2, 50, 60]]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_clip_refuses_boxes_that_are_not_finite(value):
    with pytest.raises(AssertionError):
        Boxes([[0, 0, 1, value]]).clip((5, 5))


@pytest.mark.lite
def test_the_error_for_boxes_that_are_not_finite_shows_one():
    with pytest.raises(AssertionError, match=r"finite.*diverged.*\[\[0.0, 0.0, 1.0, nan\]\]"):
        Boxes([[0, 0, 1, 1], [0, 0, 1, float("nan")]]).clip((5, 5))


def test_nonempty_and_inside_box_are_strict_where_upstream_is():
    boxes = Boxes([[0, 0, 2, 2], [0, 0, 2, 3], [-1, 0, 5, 5], [0, 0, 6, 5]])
    assert boxes.nonempty(threshold=2).tolist() == [False, False, True, True]
    assert boxes.inside_box((6, 6)).tolist() == [True, True, False, False]
    assert boxes.inside_box((6, 6), boundary_threshold=1).tolist() == [True] * 4


def test_indexing_boxes_always_gives_boxes():
    boxes = Boxes(torch.arange(12.0).reshape(3, 4))
    assert boxes[1].tensor.tolist() == [[4, 5, 6, 7]]
    assert boxes[-1].tensor.tolist() == [[8, 9, 10, 11]]
    assert len(boxes[1:]) == 2 and len(boxes[torch.tensor([True, False, False])]) == 1
    assert boxes[torch.tensor([2, 0])].tensor[:, 0].tolist() == [8, 0]
    with pytest.raises(IndexError):
        boxes[3]
    with pytest.raises(AssertionError):
        boxes[torch.ones(3, 4, dtype=torch.bool)]


def test_a_single_true_is_a_mask_and_not_a_position():
    boxes = Boxes([[0, 0, 1, 1]])
    assert len(boxes[torch.tensor([True])]) == 1 and len(boxes[torch.tensor([False])]) == 0
    instances = Instances((5, 5), pred_boxes=boxes)
    assert len(instances[torch.tensor([False])]) == 0


@pytest.mark.lite
def test_the_error_for_an_index_over_both_dimensions_gives_the_shapes():
    with pytest.raises(AssertionError, match=r"first dimension of \(1, 4\).*gives \(4,\)"):
        Boxes(torch.zeros(1, 4))[torch.ones(1, 4, dtype=torch.bool)]


def test_joining_iterating_and_moving_boxes():
    a, b = Boxes([[0, 0, 1, 1]]), Boxes([[0, 0, 2, 2], [0, 0, 3, 3]])
    joined = Boxes.cat([a, b])
    assert [box[2].item() for box in joined] == [1, 2, 3]
    assert Boxes.cat([]).tensor.shape == (0, 4)
    assert joined.to("meta").device.type == "meta" and joined.device.type == "cpu"
    copied = joined.clone()
    copied.scale(2, 2)
    assert joined.tensor[0, 2] == 1
    with pytest.raises(AssertionError):
        Boxes.cat([a, b.tensor])
    assert repr(a).startswith("Boxes(tensor(")


@pytest.mark.lite
def test_the_error_for_joining_something_else_names_what_is_needed():
    with pytest.raises(AssertionError, match="needs a list of Boxes"):
        Boxes.cat([torch.zeros(1, 4)])


# ------------------------------------------------------------------------------------- Instances


def three_instances() -> Instances:
    return Instances(
        (10, 20),
        gt_boxes=Boxes(torch.arange(12.0).reshape(3, 4)),
        scores=torch.tensor([0.1, 0.2, 0.3]),
        names=["a", "b", "c"],
    )


def test_fields_are_attributes():
    instances = three_instances()
    assert instances.scores.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert instances.has("scores") and not instances.has("labels")
    assert instances.get("names") == ["a", "b", "c"]
    instances.labels = torch.zeros(3)
    assert list(instances.get_fields()) == ["gt_boxes", "scores", "names", "labels"]
    instances.remove("labels")
    assert not instances.has("labels")
    assert instances.image_size == (10, 20) and len(instances) == 3
    with pytest.raises(AttributeError, match="labels"):
        _ = instances.labels
    with pytest.raises(KeyError):
        instances.get("labels")


def test_fields_must_have_one_length():
    with pytest.raises(AssertionError, match="Adding a field of length 2"):
        three_instances().labels = torch.zeros(2)


@pytest.mark.lite
def test_the_error_for_another_length_names_the_field():
    with pytest.raises(AssertionError, match="length 3.*field 'labels'"):
        three_instances().labels = torch.zeros(2)


def test_indexing_indexes_each_field():
    instances = three_instances()
    assert instances[1].names == ["b"] and instances[-1].names == ["c"]
    assert instances[1].gt_boxes.tensor.tolist() == [[4, 5, 6, 7]]
    assert instances[1:].names == ["b", "c"]
    instances.remove("names")
    picked = instances[torch.tensor([2, 0])]
    assert picked.gt_boxes.tensor[:, 0].tolist() == [8, 0]
    assert len(instances[instances.scores > 0.15]) == 2
    assert picked.image_size == (10, 20)
    for index in (3, -4):
        with pytest.raises(IndexError):
            instances[index]


@pytest.mark.lite
@pytest.mark.parametrize("index", [np.int64(1), torch.tensor(1)])
def test_numpy_and_tensor_integers_are_positions(index):
    assert three_instances()[index].names == ["b"]


@pytest.mark.lite
def test_the_error_for_a_position_out_of_range_says_how_many_there_are():
    with pytest.raises(IndexError, match="index 3 is out of range for 3 instances"):
        three_instances()[3]


def test_moving_makes_new_instances_and_keeps_what_cannot_move():
    instances = three_instances()
    moved = instances.to("meta")
    assert moved.scores.device.type == "meta" and moved.gt_boxes.device.type == "meta"
    assert moved.names == ["a", "b", "c"]
    assert instances.scores.device.type == "cpu"


def test_joining_instances_joins_every_field():
    joined = Instances.cat([three_instances(), three_instances()[:1]])
    assert len(joined) == 4 and joined.names == ["a", "b", "c", "a"]
    assert isinstance(joined.gt_boxes, Boxes) and joined.scores.shape == (4,)
    one = three_instances()
    assert Instances.cat([one]) is one


def test_joining_needs_instances_of_one_image_size():
    with pytest.raises(AssertionError):
        Instances.cat([Instances((1, 2)), Instances((2, 1))])
    with pytest.raises(AssertionError):
        Instances.cat([])


def test_fields_that_cannot_be_joined_are_a_value_error():
    with pytest.raises(ValueError):
        Instances.cat([Instances((1, 2), names=("a",)), Instances((1, 2), names=("b",))])


@pytest.mark.lite
def test_joining_errors_say_why():
    with pytest.raises(AssertionError, match=r"one image size.*\(1, 2\), \(2, 1\)"):
        Instances.cat([Instances((1, 2)), Instances((2, 1))])
    with pytest.raises(AssertionError, match="list of Instances that is not empty"):
        Instances.cat([])
    with pytest.raises(ValueError, match="class method cat.*got tuple.*field 'names'"):
        Instances.cat([Instances((1, 2), names=("a",)), Instances((1, 2), names=("b",))])


def test_instances_cannot_be_iterated_and_have_no_length_without_fields():
    with pytest.raises(NotImplementedError):
        iter(three_instances())
    with pytest.raises(NotImplementedError):
        len(Instances((1, 2)))


def test_instances_survive_copy_and_pickle():
    instances = three_instances()
    for copied in (copy.deepcopy(instances), pickle.loads(pickle.dumps(instances))):
        assert copied.names == instances.names and copied.image_size == (10, 20)
        assert torch.equal(copied.gt_boxes.tensor, instances.gt_boxes.tensor)
        assert copied.scores is not instances.scores


def test_repr_shows_size_and_fields():
    text = repr(Instances((1, 2), names=["a"]))
    assert (
        text == "Instances(num_instances=1, image_height=1, image_width=2, fields=[names: ['a']])"
    )


@pytest.mark.lite
def test_repr_works_without_fields():
    assert "num_instances=0" in repr(Instances((1, 2)))


# ------------------------------------------------------------------------------------- ImageList


def golden_images() -> list[torch.Tensor]:
    seed = MISC_META["parameters"]["seed"]
    sizes = MISC_META["image_list"]["sizes"]
    return [golden.image(seed + 20 + i, h, w).float() for i, (h, w) in enumerate(sizes)]


@pytest.mark.parametrize("case", MISC_META["image_list"]["cases"])
def test_image_lists_are_those_of_upstream(case):
    meta = MISC_META["image_list"]["cases"][case]
    images = ImageList.from_tensors(golden_images(), **meta["kwargs"])
    assert list(images.tensor.shape) == meta["shape"]
    assert [list(size) for size in images.image_sizes] == meta["image_sizes"]
    assert list(images[1].shape) == meta["item1_shape"]
    golden.assert_array(MISC, f"image_list.{case}", images.tensor)


def test_every_image_comes_back_from_the_list():
    images = golden_images()
    batch = ImageList.from_tensors(images, size_divisibility=32, pad_value=3.0)
    assert len(batch) == 3 and batch.tensor.is_contiguous()
    assert all(torch.equal(batch[i], image) for i, image in enumerate(images))
    assert batch.tensor[0, :, 30:].eq(3).all()
    assert batch.image_sizes == [(30, 41), (37, 25), (32, 32)]


def test_an_image_list_keeps_dtype_and_gradient():
    image = torch.ones(1, 2, 3, requires_grad=True)
    batch = ImageList.from_tensors([image, torch.ones(1, 4, 1)])
    batch.tensor.sum().backward()
    assert image.grad.eq(1).all()
    assert (
        ImageList.from_tensors([torch.ones(1, 2, 3, dtype=torch.uint8)]).tensor.dtype == torch.uint8
    )


def test_an_image_list_moves_as_a_whole():
    batch = ImageList.from_tensors([torch.ones(3, 2, 2)])
    assert batch.device.type == "cpu" and batch.to("meta").device.type == "meta"
    assert batch.to(torch.float64).tensor.dtype == torch.float64
    assert batch.to("meta").image_sizes == [(2, 2)]


def test_images_must_exist_and_agree_in_channels():
    with pytest.raises(AssertionError):
        ImageList.from_tensors([])
    with pytest.raises(AssertionError):
        ImageList.from_tensors([torch.ones(3, 2, 2), torch.ones(1, 2, 2)])


@pytest.mark.lite
def test_image_list_errors_name_the_image():
    with pytest.raises(AssertionError, match="at least one image"):
        ImageList.from_tensors([])
    with pytest.raises(AssertionError, match=r"\(1, 2, 2\) at index 1 beside \(3, 2, 2\)"):
        ImageList.from_tensors([torch.ones(3, 2, 2), torch.ones(1, 2, 2)])


@pytest.mark.lite
@pytest.mark.parametrize("count", [1, 2])
def test_an_image_larger_than_the_square_is_an_error(count):
    images = [torch.ones(3, 20, 10)] * count
    with pytest.raises(RuntimeError, match=r"size of tensor a \(16\) must match .* b \(20\)"):
        ImageList.from_tensors(images, padding_constraints={"square_size": 16})


def test_matched_boxes_are_compared_one_by_one():
    first = Boxes([[0, 0, 2, 2], [0, 0, 1, 1]])
    second = Boxes([[1, 0, 3, 2], [5, 5, 6, 6]])
    iou = boxes_module.matched_pairwise_iou(first, second)
    torch.testing.assert_close(iou, torch.tensor([1 / 3, 0]))
    assert torch.equal(iou, pairwise_iou(first, second).diagonal())
    with pytest.raises(AssertionError, match="1 and 2|same number"):
        boxes_module.matched_pairwise_iou(first[0], second)


@pytest.mark.lite
def test_matched_boxes_without_area_do_not_overlap():
    empty = Boxes([[3, 3, 3, 3]])
    assert boxes_module.matched_pairwise_iou(empty, empty).tolist() == [0]


def test_intersections_are_areas():
    overlap = boxes_module.pairwise_intersection(
        Boxes([[0, 0, 4, 3]]), Boxes([[1, 1, 9, 9], [5, 0, 6, 1]])
    )
    assert overlap.tolist() == [[6.0, 0.0]]


def test_distances_of_points_are_negative_outside_of_the_box():
    points = torch.tensor([[1.0, 2.0], [5.0, 0.0]])
    distances = pairwise_point_box_distance(points, Boxes([[0, 0, 4, 3]]))
    assert distances.tolist() == [[[1, 2, 3, 1]], [[5, 0, -1, 3]]]
