"""Training does not wait for the device more often when a batch has more images."""

import numpy as np
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from benchmarks.launches import Launches, as_on_a_gpu
from detectron2.layers import batched_nms
from detectron2.modeling import sampling
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import proposal_utils
from detectron2.modeling.proposal_generator.rpn import RPN
from detectron2.modeling.roi_heads.roi_heads import ROIHeads, select_foreground_proposals
from detectron2.modeling.sampling import subsample_labels
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

pytestmark = pytest.mark.lite

SIZE = (200, 300)


@pytest.fixture(autouse=True)
def _ways_of_a_gpu():
    with as_on_a_gpu():
        yield


def random_boxes(count: int) -> torch.Tensor:
    corners = torch.rand(count, 2) * 150
    return torch.cat([corners, corners + torch.rand(count, 2) * 60], dim=1)


def ground_truth(count: int) -> Instances:
    return Instances(SIZE, gt_boxes=Boxes(random_boxes(count)), gt_classes=torch.arange(count) % 3)


def rpn() -> RPN:
    return RPN(
        in_features=["p2"],
        head=torch.nn.Identity(),
        anchor_generator=torch.nn.Identity(),
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=32,
        positive_fraction=0.5,
        pre_nms_topk=(100, 100),
        post_nms_topk=(50, 50),
    )


def waits_of_rpn(num_images: int) -> int:
    anchors = [Boxes(random_boxes(400))]
    gt = [ground_truth(4) for _ in range(num_images)]
    logits = [torch.randn(num_images, 400, requires_grad=True)]
    deltas = [torch.randn(num_images, 400, 4, requires_grad=True)]
    with EventStorage(), Launches() as counted:
        head = rpn()
        labels, gt_boxes = head.label_and_sample_anchors(anchors, gt)
        losses = head.losses(anchors, logits, labels, deltas, gt_boxes)
        sum(losses.values()).backward()
    return counted.waits.total()


def waits_of_roi_heads(num_images: int) -> int:
    heads = ROIHeads(
        num_classes=3,
        batch_size_per_image=64,
        positive_fraction=0.25,
        proposal_matcher=Matcher([0.5], [0, 1]),
    )
    proposals = [
        Instances(SIZE, proposal_boxes=Boxes(random_boxes(90)), objectness_logits=torch.randn(90))
        for _ in range(num_images)
    ]
    gt = [ground_truth(4) for _ in range(num_images)]
    with EventStorage(), Launches() as counted:
        sampled = heads.label_and_sample_proposals(proposals, gt)
        select_foreground_proposals(sampled, 3)
    return counted.waits.total()


@pytest.mark.parametrize("waits, expected", [(waits_of_rpn, 1), (waits_of_roi_heads, 2)])
def test_the_host_waits_as_often_for_eight_images_as_for_two(waits, expected):
    torch.manual_seed(0)
    assert (waits(2), waits(8)) == (expected, expected)


def test_true_rows_are_those_of_nonzero_for_one_wait():
    masks = [torch.rand(n) > 0.5 for n in (5, 0, 9)] + [torch.zeros(3, dtype=torch.bool)]
    with Launches() as counted:
        rows = sampling.true_rows(masks)
    assert counted.waits.total() == 1
    assert [r.tolist() for r in rows] == [mask.nonzero().flatten().tolist() for mask in masks]


def test_true_rows_are_the_same_on_a_cpu(monkeypatch):
    masks = [torch.rand(n) > 0.5 for n in (5, 0, 9)]
    expected = sampling.true_rows(masks)
    monkeypatch.setattr(sampling, "is_on_cpu", lambda mask: True)
    assert [r.tolist() for r in sampling.true_rows(masks)] == [r.tolist() for r in expected]


def test_the_counter_sees_what_waits():
    x = torch.tensor([1.0, 0.0])
    with Launches() as counted:
        x[x > 0], x.nonzero(), x[0].item(), x[torch.tensor([1])], x.tolist()
    assert counted.waits.total() == 4


def test_samples_of_all_images_are_the_draws_of_image_after_image():
    labels = [torch.randint(-1, 4, (n,)) for n in (50, 7, 0, 200)]
    torch.manual_seed(3)
    expected = [subsample_labels(of_image, 16, 0.5, 3) for of_image in labels]
    torch.manual_seed(3)
    lengths = [len(of_image) for of_image in labels]
    rows, counts = sampling.subsample_labels_of_images(torch.cat(labels), lengths, 16, 0.5, 3)
    starts = torch.tensor([0, 50, 57, 57]).repeat_interleave(2).tolist()
    drawn = [of_draw - start for of_draw, start in zip(rows.split(counts), starts, strict=True)]
    torch.testing.assert_close(drawn, [of_draw for pair in expected for of_draw in pair])


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("min_box_size", [0.0, 12.0])
def test_suppression_of_a_batch_is_that_of_each_image(monkeypatch, on_cpu, min_box_size):
    monkeypatch.setattr(proposal_utils, "is_on_cpu", lambda tensor: on_cpu)
    torch.manual_seed(1)
    candidates = random_boxes(600).view(3, 200, 4) + 60  # some reach out of the image
    scores, levels = torch.randn(3, 200), torch.arange(200) // 70
    candidates[1, 5], scores[2, 7] = torch.nan, torch.inf
    finite = candidates.isfinite().all(dim=2) & scores.isfinite()
    sizes = [SIZE, (150, 150), SIZE]
    scores_of_levels = list(scores.split([70, 70, 60], dim=1))
    with Launches() as counted:
        found = proposal_utils.suppress_proposals(
            candidates, scores_of_levels, sizes, 0.5, 60, min_box_size, training=False
        )
    assert on_cpu or counted.waits.total() == 2
    for i, instances in enumerate(found):
        boxes_of_image = Boxes(candidates[i][finite[i]])
        boxes_of_image.clip(sizes[i])
        large = boxes_of_image.nonempty(min_box_size)
        of_image = boxes_of_image[large].tensor, scores[i][finite[i]][large]
        keep = batched_nms(*of_image, levels[finite[i]][large], 0.5)[:60]
        torch.testing.assert_close(instances.proposal_boxes.tensor, of_image[0][keep])
        torch.testing.assert_close(instances.objectness_logits, of_image[1][keep])


@pytest.mark.parametrize("on_cpu", [True, False])
def test_boxes_of_other_levels_and_images_suppress_nothing(monkeypatch, on_cpu):
    monkeypatch.setattr(proposal_utils, "is_on_cpu", lambda tensor: on_cpu)
    height, width = SIZE
    whole = torch.tensor([0.0, 0.0, width, height]).expand(2, 2, 4)  # of two images and levels
    scores = list(torch.rand(2, 2).split(1, dim=1))
    found = proposal_utils.suppress_proposals(whole, scores, [SIZE] * 2, 0.0, 9, 0.0, True)
    assert [len(of_image) for of_image in found] == [2, 2]


@pytest.mark.parametrize("on_cpu", [True, False])
def test_a_batch_with_numbers_that_are_not_finite_is_refused_in_training(monkeypatch, on_cpu):
    monkeypatch.setattr(proposal_utils, "is_on_cpu", lambda tensor: on_cpu)
    boxes, scores = random_boxes(2)[None], torch.tensor([[0.0, torch.nan]])
    arguments = (boxes, list(scores.split(1, dim=1)), [SIZE], 0.5, 10, 0.0)
    with pytest.raises(FloatingPointError, match=r"feature levels \[1\]"):
        proposal_utils.suppress_proposals(*arguments, training=True)
    (dropped,) = proposal_utils.suppress_proposals(*arguments, training=False)
    assert len(dropped) == 1


def test_polygons_that_are_chosen_later_are_those_that_are_chosen_now():
    polygons = [[torch.rand(8) * 50 + k] for k in range(6)]
    masks, rows = PolygonMasks(polygons), torch.tensor([4, 1, 1, 5, 0])
    later = masks._choose(rows)._choose(torch.tensor([3, 0, 2]))
    now = masks[rows][torch.tensor([3, 0, 2])]
    joined, expected = PolygonMasks.cat([later, later]), PolygonMasks.cat([now, now])
    assert len(later) == 3 and [p[0].tolist() for p in later] == [p[0].tolist() for p in now]
    boxes = random_boxes(6)
    torch.testing.assert_close(
        joined.crop_and_resize(boxes, 14), expected.crop_and_resize(boxes, 14)
    )
    torch.testing.assert_close(later.area(), now.area())


def test_deferred_scalars_are_read_with_their_iteration_and_scope():
    storage = EventStorage()
    with storage.name_scope("stage0"), Launches():
        storage.put_deferred(torch.tensor([3, 4]), lambda values: {"mean": sum(values) / 2})
    storage.iter = 5
    storage.put_deferred(torch.tensor([1.0]), lambda values: {})
    assert storage.latest() == {"stage0/mean": (3.5, 0)}
    for _ in range(1000):  # a process that writes nothing keeps no more than this
        storage.put_deferred(torch.zeros(1), lambda values: {"zero": values[0]})
    assert storage._deferred == [] and storage.latest()["zero"] == (0.0, 5)


def test_the_warning_of_the_matcher_comes_with_the_log(caplog):
    quality = torch.tensor([[0.0, 0.0], [0.5, 0.2]])
    with EventStorage() as storage:
        Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)(quality)
        assert not caplog.records
        storage.latest()
    assert "1 of 2 ground truths" in caplog.text


def test_nobody_waits_for_what_is_sent_to_a_gpu(monkeypatch):
    gt = ground_truth(3)
    gt.gt_masks = BitMasks(torch.rand(3, *SIZE) > 0.5)
    sent, to = [], torch.Tensor.to

    def recorded(tensor, *args, **kwargs):
        if args[:1] == (torch.bool,):  # not a copy between devices
            return to(tensor, *args, **kwargs)
        sent.append((args, kwargs))
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", recorded)
    gpu = torch.device("cuda")
    gt.to(gpu)
    assert sent == [((), {"device": gpu, "non_blocking": True})] * 3  # boxes, classes, masks


def test_a_loader_pins_the_tensors_of_instances(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: pinned.append(x.shape) or x)
    gt = ground_truth(3)
    gt.gt_masks = BitMasks(torch.rand(3, *SIZE) > 0.5)
    gt.polygons = PolygonMasks([[np.zeros(6)]] * 3)
    sample = {"image": torch.zeros(3, *SIZE), "instances": gt, "file_name": "1.jpg"}
    (copy,) = pin_memory([sample])
    assert pinned == [(3, *SIZE), (3, 4), (3,), (3, *SIZE)]  # image, boxes, classes, masks
    found, fields = copy["instances"], gt.get_fields()
    assert found is not gt and found.image_size == SIZE and list(found.get_fields()) == list(fields)
    assert torch.equal(found.gt_boxes.tensor, gt.gt_boxes.tensor)
    assert torch.equal(found.gt_masks.tensor, gt.gt_masks.tensor)
