"""The detector that hands the ImageList to its backbone."""

import pycocotools.mask as mask_util
import pytest
import torch
from golden_models import CONFIGS, fill, image

from detectron2 import modeling
from detectron2.config import LazyConfig, instantiate
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.modeling import detector_postprocess
from detectron2.structures import Boxes, ImageList, Instances, PolygonMasks, ROIMasks
from detectron2.utils.events import EventStorage
from mimdet.modeling.meta_arch import GeneralizedRCNNImageListForward
from mimdet.modeling.postprocessing import image_masks, lsj_postprocess

SIZES = [(64, 96), (96, 64)]
LOSSES = ["loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"]


def detector(**changes) -> GeneralizedRCNNImageListForward:
    cfg = LazyConfig.load(str(CONFIGS / "toy" / "mimdet_mask_rcnn_fpn_sr_0p5_toy.py"))
    cfg.model.backbone.bottom_up.sample_ratio = 1.0
    cfg.model.roi_heads.box_predictor.test_score_thresh = 0.0
    cfg.model.roi_heads.box_predictor.test_topk_per_image = 7
    cfg.model.update(changes)
    return fill(instantiate(cfg.model)).eval()


@pytest.fixture(scope="module")
def tiny() -> GeneralizedRCNNImageListForward:
    return detector(paste_masks=True)


@pytest.fixture
def model(tiny) -> GeneralizedRCNNImageListForward:
    tiny.lsj_postprocess = False
    return tiny.eval()


def inputs(**keys) -> list[dict]:
    return [dict(image=image(k, *size), **keys) for k, size in enumerate(SIZES)]


def ground_truth(size: tuple[int, int]) -> Instances:
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.tensor([[8.0, 8, 40, 32], [20, 24, 60, 60]]))
    instances.gt_classes = torch.tensor([0, 3])
    corners = [[x0, y0, x1, y0, x1, y1, x0, y1] for x0, y0, x1, y1 in instances.gt_boxes]
    instances.gt_masks = PolygonMasks([[torch.stack(c).numpy()] for c in corners])
    return instances


@torch.no_grad()
def infer(model: GeneralizedRCNNImageListForward, *arguments, **keys):
    return model.inference(*arguments, **keys)


def assert_same(actual: Instances, expected: Instances) -> None:
    assert actual.image_size == expected.image_size
    assert torch.equal(actual.pred_boxes.tensor, expected.pred_boxes.tensor)
    for name in ("scores", "pred_classes", "pred_masks"):
        assert torch.equal(actual.get(name), expected.get(name)), name


def test_training_returns_the_losses_of_all_heads_and_reaches_the_backbone(model):
    batch = [dict(x, instances=ground_truth(size)) for x, size in zip(inputs(), SIZES, strict=True)]
    with EventStorage():
        losses = model.train()(batch)
    assert list(losses) == LOSSES
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
    sum(losses.values()).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    model.zero_grad()
    assert without == []


def test_the_backbone_receives_the_padded_batch_with_the_true_sizes(model):
    received = []
    handle = model.backbone.register_forward_pre_hook(lambda _, args: received.extend(args))
    infer(model, inputs())
    handle.remove()
    (images,) = received
    assert isinstance(images, ImageList)
    assert images.tensor.shape == (2, 3, 96, 96)
    assert images.image_sizes == SIZES
    assert not images.tensor[0, :, 64:].any()


def test_calling_in_evaluation_is_inference(model):
    with torch.no_grad():
        called = model(inputs())
    for one, other in zip(called, infer(model, inputs()), strict=True):
        assert_same(one["instances"], other["instances"])


def test_without_postprocessing_results_are_those_of_the_networks_input(model):
    raw = infer(model, inputs(height=200, width=300), do_postprocess=False)
    assert [r.image_size for r in raw] == SIZES
    assert all(len(r) and r.pred_masks.shape == (len(r), 1, 28, 28) for r in raw)
    done = infer(model, inputs(height=200, width=300))
    for one, other in zip(done, raw, strict=True):
        assert_same(one["instances"], detector_postprocess(other, 200, 300))


def test_output_size_is_that_of_the_image_by_default(model):
    results = [x["instances"] for x in infer(model, inputs())]
    assert [r.image_size for r in results] == SIZES
    assert [r.pred_masks.shape[1:] for r in results] == SIZES


def test_given_boxes_get_the_masks_that_detection_gives_them(model):
    found = infer(model, inputs(), do_postprocess=False)
    given = []
    for one in found:
        boxes = Instances(one.image_size, pred_boxes=one.pred_boxes, pred_classes=one.pred_classes)
        given.append(boxes)
    results = infer(model, inputs(), given, do_postprocess=False)
    for one, other in zip(results, found, strict=True):
        assert torch.equal(one.pred_boxes.tensor, other.pred_boxes.tensor)
        torch.testing.assert_close(one.pred_masks, other.pred_masks)


def test_given_boxes_are_postprocessed_too(model):
    given = [
        Instances(size, pred_boxes=Boxes(torch.tensor([[8.0, 8, 40, 32]])), pred_classes=labels)
        for size, labels in zip(SIZES, torch.tensor([[1], [2]]), strict=True)
    ]
    results = infer(model, inputs(height=128, width=192), given)
    assert results[0]["instances"].pred_boxes.tensor.tolist() == [[16, 16, 80, 64]]
    assert results[0]["instances"].pred_masks.shape == (1, 128, 192)


@pytest.mark.parametrize("keys", [{}, {"height": 60, "width": 120}])
def test_lsj_postprocessing_leads_results_back_by_one_factor(model, keys):
    raw = infer(model, inputs(), do_postprocess=False)
    model.lsj_postprocess = True
    for k, (one, other) in enumerate(zip(infer(model, inputs(**keys)), raw, strict=True)):
        output = (keys["height"], keys["width"]) if keys else SIZES[k]
        assert_same(one["instances"], lsj_postprocess(other, *output))


def test_lsj_postprocessing_is_off_by_default():
    cfg = LazyConfig.load(str(CONFIGS / "toy" / "mimdet_mask_rcnn_fpn_sr_0p5_toy.py"))
    del cfg.model.lsj_postprocess
    with torch.device("meta"):
        assert instantiate(cfg.model).lsj_postprocess is False


# ------------------------------------------------------- masks that stay in the frames of boxes


@pytest.mark.lite
@pytest.mark.parametrize("lsj", [False, True])
def test_the_masks_of_a_config_stay_in_the_frames_of_their_boxes_and_are_encoded_equally(tiny, lsj):
    model = detector(lsj_postprocess=lsj)
    tiny.eval().lsj_postprocess = lsj
    keys = dict(height=150, width=220)
    for kept, pasted in zip(infer(model, inputs(**keys)), infer(tiny, inputs(**keys)), strict=True):
        kept, pasted = kept["instances"], pasted["instances"]
        assert isinstance(kept.pred_masks, ROIMasks) and len(kept) == len(pasted) > 0
        assert torch.equal(image_masks(kept), pasted.pred_masks)
        rows = instances_to_coco_json(kept, 1)
        assert rows == instances_to_coco_json(pasted, 1)
        assert any(mask_util.area(row["segmentation"]) for row in rows)


def test_masks_are_pasted_where_detectron2_has_no_choice(monkeypatch, tiny):
    """As upstream, whose evaluators read masks of the image alone."""
    original = modeling.GeneralizedRCNN.__init__

    def upstreams(self, *, backbone, proposal_generator, roi_heads, pixel_mean, pixel_std, **more):
        parts = dict(backbone=backbone, proposal_generator=proposal_generator, roi_heads=roi_heads)
        assert set(more) <= {"input_format", "vis_period"}
        original(self, **parts, pixel_mean=pixel_mean, pixel_std=pixel_std, **more)

    monkeypatch.setattr(modeling.GeneralizedRCNN, "__init__", upstreams)
    tiny.eval()
    for lsj in (False, True):
        tiny.lsj_postprocess = lsj
        found = infer(detector(lsj_postprocess=lsj), inputs())
        for one, other in zip(found, infer(tiny, inputs()), strict=True):
            assert_same(one["instances"], other["instances"])
