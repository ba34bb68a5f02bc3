"""One training step of each tiny detector against the published code's (golden/README.md)."""

import numpy as np
import pytest
import torch
from golden_models import CONFIGS, GOLDEN, fill, image, load
from torch import nn

from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

CASES = sorted(path.name.removesuffix(".json.gz") for path in (GOLDEN / "steps").glob("*.json.gz"))


@pytest.mark.parametrize("name", CASES)
def test_a_training_step_equals_the_published_one(name):
    case = load(f"steps/{name}.json.gz")
    model = detector(case).train()
    torch.manual_seed(case["manual_seed"])
    with EventStorage() as storage:
        losses = model(inputs(case))
    assert torch.rand(1).item() == pytest.approx(case["next_random_number"], rel=1e-6)
    assert {key: storage.latest()[key][0] for key in case["logged"]} == case["logged"]

    total = sum(losses.values())
    rtol = 5e-4 if name.startswith("mpvit") else 1e-4
    found = {key: loss.item() for key, loss in losses.items()}
    assert found == pytest.approx(case["losses"], rel=rtol)
    assert total.item() == pytest.approx(case["total"], rel=rtol)

    total.backward()
    assert_gradients(model, case)
    assert_running_statistics(model, case["running"])


def test_every_system_with_its_own_forward_pass_in_training_is_compared():
    assert {name.split("_")[0] for name in CASES} == {"benchmarking", "mimdet", "mpvit", "vitdet"}
    assert len(CASES) == 10


def detector(case: dict) -> nn.Module:
    """The filled detector of a case."""
    cfg = LazyConfig.load(str(CONFIGS / case["config"]))
    LazyConfig.apply_overrides(cfg, [f"{key}={value}" for key, value in case["overrides"].items()])
    model = instantiate(cfg.model)
    image_counts = {
        name: buffer.clone()
        for name, buffer in model.named_buffers()
        if name.endswith("fed_loss_cls_weights")
    }
    fill(model).load_state_dict(image_counts, strict=False)
    return model


def inputs(case: dict) -> list[dict]:
    """The batch of a case."""
    batch = []
    for k, (size, objects) in enumerate(zip(case["image_sizes"], case["objects"], strict=True)):
        height, width = size
        target = Instances((height, width))
        target.gt_boxes = Boxes(torch.tensor([x["bbox"] for x in objects]))
        target.gt_classes = torch.tensor([x["category"] for x in objects])
        if case["masks"]:
            target.gt_masks = PolygonMasks(
                [[np.array(polygon) for polygon in x["polygons"]] for x in objects]
            )
        pixels = image(case["image_index_first"] + k, height, width)
        batch.append(dict(image=pixels, height=height, width=width, instances=target))
    return batch


def assert_gradients(model: nn.Module, case: dict) -> None:
    """Norms within 2 % of themselves or 0.1 % of that of all gradients together."""
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert {name for name, g in gradients.items() if g is None} == set(case["no_grad"])
    norms = {name: g.double().norm().item() for name, g in gradients.items() if g is not None}
    total = case["total_grad_l2"]
    assert np.linalg.norm(list(norms.values())) == pytest.approx(total, rel=1e-3)
    assert norms == pytest.approx(case["grad_l2"], rel=2e-2, abs=1e-3 * total)


def assert_running_statistics(model: nn.Module, expected: dict[str, list[float]]) -> None:
    """Sum and mean of |x| of each running mean and variance, and of RetinaNet's normaliser."""
    found = {n: b.double() for n, b in model.named_buffers() if n.split(".")[-1].startswith("runn")}
    if "loss_normalizer" in expected:
        found["loss_normalizer"] = torch.tensor([model.loss_normalizer], dtype=torch.float64)
    assert found.keys() == expected.keys()
    for name, (total, magnitude) in expected.items():
        x = found[name]
        assert abs(x.sum().item() - total) <= 1e-3 * x.numel() * magnitude, name
        assert x.abs().mean().item() == pytest.approx(magnitude, rel=1e-3), name
