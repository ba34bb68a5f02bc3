"""MPViT's released names: classifiers, and position encodings under several names."""

import logging

import pytest
import torch
from config_files import build_on_meta, load_stem
from golden_models import fill, load, names_sha256

from detectron2.config import instantiate
from mimdet.checkpoint.convert import detect_source
from mimdet.checkpoint.convert.mpvit import (
    add_aliases,
    convert_mpvit_classification,
    has_aliases,
    is_mpvit_classification,
    merge_aliases,
)
from mimdet.checkpoint.convert_file import convert_file
from mimdet.checkpoint.strict import StrictCheckpointer

PREFIX = "backbone.bottom_up.backbone."
DETECTORS = ["tiny_retinanet", "xs_mask_rcnn", "base_retinanet", "small_cascade_mask_rcnn"]


def toy_detector() -> torch.nn.Module:
    return instantiate(load_stem("retinanet_mpvit_tiny_toy").model)


def classifier_of(detector: torch.nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    """What the release's classifier file holds of a backbone: all aliases, and a head."""
    own = {n: v for n, v in detector.state_dict().items() if n.startswith(PREFIX)}
    names = {prefix + n.removeprefix(PREFIX): v for n, v in add_aliases(own).items()}
    return {**names, f"{prefix}cls_head.cls.weight": torch.zeros(1000, 216)}


@pytest.mark.parametrize("case", DETECTORS)
def test_with_aliases_the_names_are_those_of_the_released_detector(case):
    size, detector = case.split("_", 1)
    golden = load(f"keys/mpvit_{case}.json.gz")
    schedule = "ms_3x" if "cascade" in case else "1x"
    model = build_on_meta(load_stem(f"{detector}_mpvit_{size}_{schedule}"))
    names = {name: name for name in model.state_dict()}  # names stand for values
    aliased = add_aliases(names)
    assert names_sha256(aliased) == golden["names_sha256"]
    kinds = {name: kind for name, _, _, kind, _ in golden["entries"]}
    for name, stands_for in aliased.items():
        assert kinds[name] == f"alias of {stands_for}" or name == stands_for, name


def test_aliases_go_and_come_back():
    ours = fill(toy_detector()).state_dict()
    theirs = add_aliases(ours)
    assert has_aliases(theirs) and not has_aliases(ours)
    back = merge_aliases(dict(reversed(theirs.items())))  # in any order
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], value) for name, value in ours.items())


def test_a_released_detector_loads_to_the_same_outputs_with_and_without_aliases(tmp_path):
    trained = fill(toy_detector()).eval()
    torch.save({"model": trained.state_dict()}, tmp_path / "ours.pth")
    convert_file(str(tmp_path / "ours.pth"), str(tmp_path / "theirs.pth"), to="mpvit")
    assert len(torch.load(tmp_path / "theirs.pth")["model"]) > len(trained.state_dict())
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for file in ("ours.pth", "theirs.pth"):
        model = toy_detector().eval()
        StrictCheckpointer(model).load(str(tmp_path / file))
        with torch.no_grad():
            for name, feature in model.backbone(images).items():
                assert torch.equal(feature, trained.backbone(images)[name])


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_classifier_starts_the_whole_backbone_and_nothing_else(prefix, tmp_path, caplog):
    theirs = classifier_of(fill(toy_detector()), prefix)
    torch.save({"model": theirs}, tmp_path / "classifier.pth")
    model = toy_detector()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    allowed = load_stem("retinanet_mpvit_tiny_1x").train.allow_missing
    with caplog.at_level(logging.INFO, logger="mimdet"):
        StrictCheckpointer(model, allow_missing=allowed).load(str(tmp_path / "classifier.pth"))
    assert "mpvit_classification" in caplog.text
    for name, value in model.state_dict().items():
        source = theirs[prefix + name.removeprefix(PREFIX)] if PREFIX in name else before[name]
        assert torch.equal(value, source), name


def test_an_incomplete_classifier_is_refused(tmp_path):
    theirs = classifier_of(fill(toy_detector()))
    del theirs["stem.1.conv.weight"]
    torch.save(theirs, tmp_path / "classifier.pth")
    allowed = load_stem("retinanet_mpvit_tiny_1x").train.allow_missing
    with pytest.raises(ValueError, match=f"{PREFIX}stem.1.conv.weight"):
        StrictCheckpointer(toy_detector(), allow_missing=allowed).load(
            str(tmp_path / "classifier.pth")
        )


@pytest.mark.parametrize(
    "change, message",
    [
        # the released T has 2, the T of the paper's table 4
        ({"mlp_ratios": [4, 4, 4, 4]}, r"fc1.weight: \(128, 64\) in the checkpoint, \(256, 64\)"),
        ({"name": "mpvit_xsmall"}, r"conv.weight: \(96, 192, 1, 1\) in .*, \(128, 192, 1, 1\) in"),
    ],
)
def test_a_checkpoint_of_another_width_is_refused_with_both_shapes(change, message, tmp_path):
    torch.save({"model": fill(toy_detector()).state_dict()}, tmp_path / "tiny.pth")
    cfg = load_stem("retinanet_mpvit_tiny_toy").model
    cfg.backbone.bottom_up.update(change)
    cfg.backbone.top_block.in_channels = 216 if "mlp_ratios" in change else 256
    with pytest.raises(ValueError, match=message):
        StrictCheckpointer(instantiate(cfg)).load(str(tmp_path / "tiny.pth"))


def test_names_of_others_are_not_taken_for_mpvits():
    ours = toy_detector().state_dict()
    assert detect_source(ours) is None
    assert detect_source(add_aliases(ours)).name == "mpvit"
    assert not is_mpvit_classification(add_aliases(ours))
    assert detect_source(classifier_of(toy_detector())).name == "mpvit_classification"


def test_encodings_that_differ_between_blocks_are_refused():
    theirs = add_aliases(toy_detector().state_dict())
    name = f"{PREFIX}mhca_stages.0.mhca_blks.0.MHCA_layers.0.cpe.proj.bias"
    theirs[name] = theirs[name] + 1
    with pytest.raises(ValueError, match=f"{name} differs from .*mhca_blks.0.cpe.proj.bias"):
        merge_aliases(theirs)


def test_a_classifier_with_other_parts_is_refused():
    theirs = {**classifier_of(toy_detector()), "neck.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match="but it holds neck.weight too"):
        convert_mpvit_classification(theirs)
