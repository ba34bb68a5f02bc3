import math

import pytest
import torch
from golden_data import assert_array, load

from detectron2.modeling.box_regression import Box2BoxTransform

ARRAYS, META = load("boxes")
CODERS = [name for name in META if name.startswith("coder.")]
SRC = torch.tensor([[0.0, 0, 10, 20]])
PROPOSALS = torch.tensor([[0.0, 0, 10, 10], [2, 2, 8, 9]])
GT_BOXES = torch.tensor([[1.0, 0, 10, 11], [2, 2, 8, 9]])
LOSSES = ("smooth_l1", "giou", "diou", "ciou")


def array(name):
    return torch.from_numpy(ARRAYS[name])


def coder(name):
    return Box2BoxTransform(META[name]["weights"], scale_clamp=META[name]["scale_clamp"])


@pytest.mark.parametrize("name", CODERS)
def test_encoding_equals_upstream(name):
    deltas = coder(name).get_deltas(array("coder.src"), array("coder.tgt"))
    assert_array(ARRAYS, f"{name}.get_deltas", deltas)


@pytest.mark.parametrize("kind", ["k1", "k3"])
@pytest.mark.parametrize("name", CODERS)
def test_decoding_equals_upstream(name, kind):
    boxes = coder(name).apply_deltas(array(f"coder.deltas_{kind}"), array("coder.src"))
    assert_array(ARRAYS, f"{name}.apply_{kind}", boxes, atol=1e-2)


@pytest.mark.parametrize("name", CODERS)
def test_decoding_of_extreme_deltas_equals_upstream(name):
    boxes = coder(name).apply_deltas(array("coder.deltas_extreme"), array("coder.src"))
    assert_array(ARRAYS, f"{name}.apply_extreme", boxes, atol=0)


def test_decoding_with_another_clamp_equals_upstream():
    boxes = Box2BoxTransform((1.0, 1.0, 1.0, 1.0), scale_clamp=1.0).apply_deltas(
        array("coder.deltas_k1"), array("coder.src")
    )
    assert_array(ARRAYS, "coder.clamp1.apply_k1", boxes, atol=1e-2)


def test_deltas_by_hand():
    target = torch.tensor([[1.0, 2, 13, 30]])
    transform = Box2BoxTransform((10, 10, 5, 5))
    deltas = transform.get_deltas(SRC, target)
    # centre (5, 10) -> (7, 16), size 10 x 20 -> 12 x 28
    expected = torch.tensor([[10 * 0.2, 10 * 0.3, 5 * math.log(1.2), 5 * math.log(1.4)]])
    torch.testing.assert_close(deltas, expected)
    torch.testing.assert_close(transform.apply_deltas(deltas, SRC), target)


def test_sizes_grow_at_most_by_the_clamp():
    boxes = Box2BoxTransform((10, 10, 5, 5)).apply_deltas(torch.tensor([[0.0, 0, 100, 100]]), SRC)
    torch.testing.assert_close(boxes, torch.tensor([[-307.5, -615, 317.5, 635]]))


def test_half_precision_deltas_are_decoded_in_float32():
    deltas = torch.tensor([[0.5, 0.25, 0, 0]], dtype=torch.float16)
    src = torch.tensor([[2000.0, 3000, 2011, 3013]])
    boxes = Box2BoxTransform((1, 1, 1, 1)).apply_deltas(deltas, src)
    assert boxes.dtype == torch.float32
    assert boxes.tolist() == [[2005.5, 3003.25, 2016.5, 3016.25]]


def test_no_boxes_give_no_boxes():
    transform = Box2BoxTransform((1, 1, 1, 1))
    empty = torch.zeros(0, 4)
    assert transform.get_deltas(empty, empty).shape == (0, 4)
    assert transform.apply_deltas(torch.zeros(0, 12), empty).shape == (0, 12)


def test_a_source_box_without_width_is_an_error():
    src = torch.tensor([[0.0, 0, 10, 20], [5, 0, 5, 20]])
    with pytest.raises(AssertionError):
        Box2BoxTransform((1, 1, 1, 1)).get_deltas(src, src)


@pytest.mark.lite
def test_the_error_names_a_source_box_without_width():
    src = torch.tensor([[0.0, 0, 10, 20], [5, 0, 5, 20]])
    with pytest.raises(AssertionError, match=r"\[5.0, 0.0, 5.0, 20.0\] \(1 such boxes of 2\)"):
        Box2BoxTransform((1, 1, 1, 1)).get_deltas(src, src)


def test_a_source_box_without_height_is_allowed():
    src = torch.tensor([[0.0, 5, 10, 5]])
    assert Box2BoxTransform((1, 1, 1, 1)).get_deltas(src, SRC).shape == (1, 4)


def regression_loss(deltas, loss_type, beta=0.0, anchors=PROPOSALS, gt_boxes=GT_BOXES):
    from detectron2.modeling.box_regression import box_regression_loss  # a name of lite only

    transform = Box2BoxTransform((10, 10, 5, 5))
    return box_regression_loss(anchors, deltas, gt_boxes, transform, loss_type, beta)


@pytest.mark.lite
@pytest.mark.parametrize("loss_type, expected", [("smooth_l1", 0.7345), ("giou", 0.0742)])
def test_loss_equals_upstream(loss_type, expected):
    # upstream's Fast R-CNN loss divides the sum by the three sampled rows of that example
    loss = regression_loss(torch.full((2, 4), 0.1), loss_type) / 3
    torch.testing.assert_close(loss, torch.tensor(expected), rtol=0, atol=5e-5)  # 4 digits given


@pytest.mark.lite
def test_smooth_l1_loss_is_quadratic_below_beta():
    deltas = torch.tensor([[0.1, 0.0, 0.0, 3.0]])
    loss = regression_loss(deltas, "smooth_l1", 1.0, GT_BOXES[:1], GT_BOXES[:1])
    torch.testing.assert_close(loss, torch.tensor(0.5 * 0.1**2 + 3.0 - 0.5))


@pytest.mark.lite
def test_distance_losses_add_their_penalty_to_the_overlap_loss():
    # a box of 10 x 10, the ground truth shifted by 10: no overlap, enclosing box 20 x 10
    anchors, gt_boxes = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[10.0, 0, 20, 10]])
    deltas = torch.zeros(1, 4)
    giou, diou, ciou = (
        regression_loss(deltas, name, 0.0, anchors, gt_boxes) for name in ("giou", "diou", "ciou")
    )
    torch.testing.assert_close(giou, torch.tensor(1.0))  # both boxes fill the enclosing one
    torch.testing.assert_close(diou, torch.tensor(1 + 10**2 / (20**2 + 10**2)))
    torch.testing.assert_close(ciou, diou)  # same aspect ratio


@pytest.mark.lite
@pytest.mark.parametrize("loss_type", LOSSES)
def test_loss_of_exact_deltas_is_zero(loss_type):
    deltas = Box2BoxTransform((10, 10, 5, 5)).get_deltas(PROPOSALS, GT_BOXES)
    torch.testing.assert_close(
        regression_loss(deltas, loss_type), torch.tensor(0.0), rtol=0, atol=1e-5
    )


@pytest.mark.lite
@pytest.mark.parametrize("loss_type", LOSSES)
def test_loss_without_foreground_is_zero_and_has_a_gradient(loss_type):
    deltas = torch.zeros(0, 4, requires_grad=True)
    loss = regression_loss(deltas, loss_type, 0.0, torch.zeros(0, 4), torch.zeros(0, 4))
    loss.backward()
    assert loss.item() == 0 and deltas.grad.shape == (0, 4)


@pytest.mark.lite
def test_an_unknown_loss_type_is_an_error():
    with pytest.raises(ValueError, match="must be one of .*'ciou'.* got 'iou'"):
        regression_loss(torch.zeros(2, 4), "iou")
