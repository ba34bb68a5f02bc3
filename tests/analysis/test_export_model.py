"""Trained models as files for other programs."""

import contextlib
import json
import shutil
import types

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from toy_runs import load_script

from detectron2.config import LazyConfig, instantiate
from mimdet.analysis import export_model
from mimdet.analysis.export_model import compare
from mimdet.analysis.onnx_detector import FixedSizeDetector
from mimdet.checkpoint.card import Card
from mimdet.checkpoint.file import read_checkpoint
from mimdet.checkpoint.strict import StrictCheckpointer
from mimdet.config import load_config

SIZE = (64, 96)
LOW = "+model.test_score_thresh=0.005"  # an untrained RetinaNet finds nothing of 0.05
ALL_TOKENS = "model.backbone.bottom_up.sample_ratio=1.0"
DETECTORS = {
    "mimdet_mask_rcnn_fpn_sr_0p5_toy": ([ALL_TOKENS], SIZE),
    "mask_rcnn_mpvit_tiny_toy": ([], SIZE),
    "retinanet_mpvit_tiny_toy": (
        ["+model.test_score_thresh=0.005"],
        SIZE,
    ),  # untrained ones are low
    "benchmarking_mask_rcnn_toy": ([], (128, 128)),
    "vitdet_cascade_mask_rcnn_toy": ([], (128, 128)),
}


def build(name):
    torch.manual_seed(0)
    cfg = load_config(f"toy/{name}", DETECTORS[name][0])
    return instantiate(cfg.model).eval()


@pytest.mark.parametrize("name", DETECTORS)
def test_the_form_for_export_detects_what_the_model_does(name):
    model, size = build(name), DETECTORS[name][1]
    image = 255 * torch.rand(3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        inputs = {"image": image, "height": size[0], "width": size[1]}
        expected = model([inputs])[0]["instances"]
        found = FixedSizeDetector(model, size)(image)
    count = len(expected)
    assert count > 10 and int((found[1] > 0).sum()) == count
    torch.testing.assert_close(found[0][:count], expected.pred_boxes.tensor, rtol=0, atol=1e-4)
    torch.testing.assert_close(found[1][:count], expected.scores, rtol=0, atol=1e-6)
    assert torch.equal(found[2][:count], expected.pred_classes)
    if expected.has("pred_masks"):
        masks = getattr(expected.pred_masks, "tensor", expected.pred_masks)
        torch.testing.assert_close(found[3][:count], masks.view_as(found[3][:count]))
    assert not found[1][count:].any()


def test_a_difference_is_seen():
    model = build("retinanet_mpvit_tiny_toy")
    detector = FixedSizeDetector(model, SIZE)
    images = [255 * torch.rand(3, *SIZE)]
    with torch.no_grad():
        outputs = [output.numpy() for output in detector(images[0])]
    assert compare(detector, lambda image: outputs, images).holds
    moved = [outputs[0] + np.float32(0.5), *outputs[1:]]
    assert compare(detector, lambda image: moved, images).boxes == pytest.approx(0.5, 1e-4)
    others = [*outputs[:2], outputs[2] + 1]
    assert compare(detector, lambda image: others, images).unmatched > 10
    strangers = [*outputs[:2], np.full_like(outputs[2], 99)]  # without a partner, nothing differs
    in_turn = iter([moved, strangers])
    both = compare(detector, lambda image: next(in_turn), images * 2)
    assert both.unmatched and both.boxes == pytest.approx(0.5, 1e-4)
    fewer = [outputs[0], np.where(np.arange(len(outputs[1])) < 5, outputs[1], 0), outputs[2]]
    assert not compare(detector, lambda image: fewer, images).holds


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, toy_root):
    """An untrained RetinaNet, which is the quickest to export."""
    folder = tmp_path_factory.mktemp("retinanet")
    cfg = load_config(
        "toy/retinanet_mpvit_tiny_toy",
        [f"toy.root={toy_root}", LOW],
    )
    torch.manual_seed(0)
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    card = Card((folder / "config.yaml").read_text(), ["a", "b", "c", "d"], [1, 2, 3, 9])
    StrictCheckpointer(instantiate(cfg.model), str(folder), card=card).save("model")
    return str(folder / "model.pth")


def export(*words):
    load_script("tools/export.py").main(list(map(str, words)))


@pytest.fixture(scope="module")
def exported(checkpoint, toy_root, tmp_path_factory):
    """An ONNX file; it takes long to make."""
    output = tmp_path_factory.mktemp("exported") / "model.onnx"
    export(checkpoint, output, "--images", toy_root / "val", "--num-images", 2, "--size", *SIZE)
    return output


def test_an_onnx_file_computes_the_same_and_tells_its_classes(exported):
    assert [path.name for path in exported.parent.iterdir()] == ["model.onnx"]
    loaded = onnx.load(exported)
    assert {node.domain for node in loaded.graph.node} <= {"", "ai.onnx"}  # standard operators
    metadata = {entry.key: entry.value for entry in loaded.metadata_props}
    assert json.loads(metadata["classes"]) == ["a", "b", "c", "d"]
    assert json.loads(metadata["category_ids"]) == [1, 2, 3, 9]
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    assert [i.shape for i in session.get_inputs()] == [[3, *SIZE]]
    assert [o.name for o in session.get_outputs()] == ["boxes", "scores", "classes"]


class Exported:
    """What `torch.onnx.export` returns, made from a file."""

    def __init__(self, file):
        self.file = file
        self.model = types.SimpleNamespace(metadata_props={})

    def save(self, path):
        shutil.copy(self.file, path)


@pytest.mark.parametrize("tolerance, files", [(0.1, ["model.onnx"]), (-1.0, [])])
def test_a_file_stays_only_if_the_results_are_equal(
    tolerance, files, exported, checkpoint, toy_root, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **options: Exported(exported))
    monkeypatch.setattr(export_model, "BOX_TOLERANCE", tolerance)
    with contextlib.nullcontext() if files else pytest.raises(SystemExit):
        export(checkpoint, tmp_path / "model.onnx", "--images", toy_root / "val", "--size", *SIZE)
    out, error = capsys.readouterr()
    assert (
        "computes what PyTorch does. 6 images, " in out
        if files
        else ("must compute what PyTorch does, within -1.0 pixels" in error)
    )
    assert [path.name for path in tmp_path.iterdir()] == files


@pytest.mark.parametrize(
    "words, message",
    [
        (["model.onnx"], "give some by --images"),
        (["model.tflite"], "must end in .onnx or .safetensors"),
        (["none/model.onnx", "--images", "{val}", "--size", "64", "96"], "there is no folder"),
        (["model.onnx", "--images", "{val}", "--size", "60", "96"], "must be multiples of 32"),
        (["model.onnx", "--images", "{val}", "--size", "0", "96"], "--size must be two positive"),
        (["model.onnx", "--images", "{val}", "--num-images", "0"], "--num-images must be 1 or"),
    ],
)
def test_what_cannot_be_exported_is_refused(words, message, checkpoint, toy_root, tmp_path, capsys):
    words = [word.format(val=toy_root / "val") for word in words]
    with pytest.raises(SystemExit) as ended:
        export(checkpoint, tmp_path / words[0], *words[1:])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_safetensors_hold_the_weights_and_the_card(checkpoint, tmp_path, capsys):
    export(checkpoint, tmp_path / "weights.safetensors")
    (tmp_path / "other").touch()  # who may read other files may read this one
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1
    weights = read_checkpoint(checkpoint, "the test")["model"]
    with safe_open(tmp_path / "weights.safetensors", "pt") as file:
        assert {*file.keys()} == {*weights}
        assert all(torch.equal(file.get_tensor(name), weights[name]) for name in weights)
        assert json.loads(file.metadata()["card"])["classes"] == ["a", "b", "c", "d"]
