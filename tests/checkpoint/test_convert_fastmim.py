"""FastMIM's names there and back, and what classifiers and detectors take from a file."""

import logging
from dataclasses import replace

import pytest
import torch
from golden_models import load
from timm import create_model
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from mimdet.checkpoint.convert import detect_source
from mimdet.checkpoint.convert.fastmim import from_native, is_fastmim, to_native
from mimdet.checkpoint.convert.match import match
from mimdet.checkpoint.convert.swin_table import interpolate_rel_pos_table
from mimdet.checkpoint.start import StartingWeights, load_starting_weights
from mimdet.checkpoint.strict import StrictCheckpointer
from mimdet.layers.pos_embed import interpolate_pos_embed, interpolate_rel_pos_bias
from mimdet.modeling.backbone.cmt import CMT, CMTClassifier
from mimdet.modeling.backbone.mimdet import MIMDetDecoder, MIMDetEncoder
from mimdet.modeling.backbone.swin import PaddedSwin
from mimdet.modeling.backbone.timm_backbone import TimmBackbone
from mimdet.modeling.classifier import ImageClassifier
from mimdet.pretraining.fastmim import FastMIM
from mimdet.pretraining.mae import MAE, ViTEncoder
from mimdet.pretraining.targets import HOGTarget

KEYS = load("pretraining/keys_fastmim.json.gz")
COMPUTED = (".relative_position_index", ".attn_mask")

SWIN = dict(embed_dim=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8))
PVT = dict(embed_dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), num_heads=(1, 2, 3, 4))
CMT_ = dict(embed_dims=(8, 16, 32, 64), depths=(1, 1, 2, 1), stem_channels=8)
VIT = dict(embed_dim=48, depth=2, num_heads=4)


def pretraining_model(family: str) -> FastMIM:
    """A tiny FastMIM at 128 pixels."""
    if family == "vit":
        return FastMIM(ViTEncoder(128, 16, **VIT), HOGTarget(), decoder_depth=1)
    encoder = {
        "swin": lambda: SwinTransformer(img_size=128, window_size=4, **SWIN),
        "pvtv2": lambda: PyramidVisionTransformerV2(**PVT),
        "cmt": lambda: CMT(128, out_features=("c5",), final_norm=True, **CMT_),
    }[family]()
    if family != "cmt":
        encoder = TimmBackbone(encoder, ("c5",), norm="final")
    return FastMIM(encoder, HOGTarget(), decoder_depth=1)


def classifier(family: str, **changes) -> ImageClassifier:
    """A tiny classifier at 224 pixels."""
    network = {
        "vit": lambda: create_model("vit_base_patch16_224", global_pool="avg", **VIT, **changes),
        "swin": lambda: SwinTransformer(**SWIN, **changes),
        "pvtv2": lambda: PyramidVisionTransformerV2(**PVT, **changes),
        "cmt": lambda: CMTClassifier(head_channels=16, **CMT_, **changes),
    }[family]()
    return ImageClassifier(network)


def mae(**changes) -> MAE:
    arguments = dict(img_size=64, decoder_embed_dim=32, decoder_depth=1, decoder_num_heads=4)
    return MAE(**(arguments | VIT | changes))


FAMILIES = ("vit", "swin", "pvtv2", "cmt")


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def file_of(model: nn.Module, path) -> str:
    torch.save({"model": model.state_dict()}, path)
    return str(path)


def start(module: nn.Module, path: str) -> nn.Module:
    """Start a classifier or a detector's Swin as the configs of this repository do."""
    if isinstance(module, TimmBackbone):
        entry = StartingWeights(path, to="model")
    else:
        new = ["head.*", "fc_norm.*", "_fc.*", "_bn.*"]
        options = dict(allow_missing=new, leave=["norm.*"], tables="geometric")
        entry = StartingWeights(path, to="network", **options)
    load_starting_weights(module, [entry])
    return module


# --- Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", sorted(KEYS))
def test_every_name_of_the_release_is_converted_there_and_back(record):
    shapes = KEYS[record]["state_dict"]
    theirs = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    is_ours_already = record == "pretrain/mim_cmt_small"  # the same names
    assert is_fastmim(theirs) != is_ours_already
    ours = to_native(theirs)
    assert not is_fastmim(ours)
    back = from_native(ours)
    assert back.keys() == {name for name in theirs if not name.endswith(COMPUTED)}
    assert all(back[name] is theirs[name] for name in back)


def test_our_models_have_the_converted_names(family):
    for model in (pretraining_model(family), classifier(family)):
        ours = model.state_dict()
        theirs = from_native(ours)
        converted = to_native(theirs)
        assert converted.keys() == ours.keys()
        assert all(converted[name] is ours[name] for name in ours)


def test_the_table_of_sources_knows_the_release():
    assert detect_source(from_native(classifier("swin").state_dict())).name == "fastmim"
    assert detect_source(classifier("swin").state_dict()) is None
    assert detect_source(mae().state_dict()) is None


def test_a_classifier_of_the_release_is_evaluated_as_it_is(family, tmp_path):
    before, model = classifier(family), classifier(family)
    torch.save({"model": from_native(before.state_dict()), "epoch": 99}, tmp_path / "theirs.pth")
    StrictCheckpointer(model).load(str(tmp_path / "theirs.pth"))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before.state_dict()[name]), name


def test_a_name_without_a_row_is_refused():
    theirs = from_native(classifier("pvtv2").state_dict())
    with pytest.raises(
        ValueError, match=r"row in the table of fastmim \(pvtv2\), but 1 .*: extra.w"
    ):
        to_native({**theirs, "extra.weight": torch.zeros(1)})


def test_another_architecture_is_refused():
    with pytest.raises(ValueError, match="must hold a ViT, Swin, PVTv2 or CMT.*layer4.weight"):
        to_native({"layer4.weight": torch.zeros(1)})


# --- What starts from a file ----------------------------------------------------------------------


@pytest.mark.parametrize("naming", ["ours", "release"])
def test_a_classifier_starts_from_a_pretraining_file(family, naming, tmp_path, caplog):
    before = pretraining_model(family)
    weights = before.state_dict() if naming == "ours" else from_native(before.state_dict())
    torch.save({"model": weights}, tmp_path / "pretraining.pth")
    model = classifier(family, num_classes=10)
    initial = {name: v.clone() for name, v in model.state_dict().items()}
    with caplog.at_level(logging.INFO, logger="mimdet"):
        start(model, str(tmp_path / "pretraining.pth"))
    encoder = before.encoder.state_dict()
    heads = ("head", "fc_norm", "norm.", "_fc", "_bn")
    for name, value in model.state_dict().items():
        bare = name.removeprefix("network.")
        source = encoder.get(bare, encoder.get(f"model.{bare}"))
        if bare.startswith(heads):
            assert torch.equal(value, initial[name]), name
        elif bare == "pos_embed":
            torch.testing.assert_close(value, interpolate_pos_embed(source, (14, 14)))
        elif bare.endswith("bias_table"):
            torch.testing.assert_close(value, interpolate_rel_pos_table(source, 7, "geometric"))
        elif bare.startswith("relative_pos_"):
            torch.testing.assert_close(value, interpolate_rel_pos_bias(source, value.shape[1:]))
        else:
            assert torch.equal(value, source), name
    resized = {"vit": "pos_embed resized", "pvtv2": "tensors loaded;"}
    assert resized.get(family, "resized") in caplog.text
    assert "network from" in caplog.text and "decoder_blocks.0" in caplog.text


@pytest.mark.parametrize("naming", ["ours", "release"])
@pytest.mark.parametrize("kind", ["classifier", "pretraining"])
def test_a_swin_detector_starts_from_a_classifier_and_from_a_pretraining_file(
    kind, naming, tmp_path
):
    before = classifier("swin") if kind == "classifier" else pretraining_model("swin")
    weights = before.state_dict() if naming == "ours" else from_native(before.state_dict())
    torch.save(weights, tmp_path / "swin.pth")
    backbone = TimmBackbone(PaddedSwin(**SWIN), norm="fresh")
    start(backbone, str(tmp_path / "swin.pth"))
    prefix = "network." if kind == "classifier" else "encoder.model."
    theirs = {n.removeprefix(prefix): v for n, v in before.state_dict().items()}
    for name, value in backbone.model.state_dict().items():
        expected = theirs[name]
        if kind == "pretraining" and name.endswith("bias_table"):
            expected = interpolate_rel_pos_table(expected, 7, "bicubic")
        torch.testing.assert_close(value, expected, msg=name)
    assert all((getattr(backbone, f"norm_c{k}").weight == 1).all() for k in range(2, 6))


def test_a_classifier_starts_from_mae_and_from_timm(tmp_path):
    before = mae()
    model = start(classifier("vit"), file_of(before, tmp_path / "mae.pth"))
    assert torch.equal(model.network.blocks[1].mlp.fc1.weight, before.blocks[1].mlp.fc1.weight)
    timm_model = create_model("vit_base_patch16_224", **VIT)
    model = start(classifier("vit"), file_of(timm_model, tmp_path / "timm.pth"))
    assert torch.equal(model.network.pos_embed, timm_model.pos_embed)


def test_a_head_of_as_many_classes_is_taken_and_another_is_not(tmp_path):
    path = file_of(classifier("pvtv2"), tmp_path / "classifier.pth")
    weights = torch.load(path, weights_only=True)["model"]
    same, other = classifier("pvtv2"), classifier("pvtv2", num_classes=7)
    assert torch.equal(start(same, path).network.head.weight, weights["network.head.weight"])
    before = other.network.head.weight.clone()
    assert torch.equal(start(other, path).network.head.weight, before)


def test_mimdets_encoder_starts_from_fastmims_vit_and_its_decoder_says_why_not(tmp_path):
    path = file_of(pretraining_model("vit"), tmp_path / "fastmim.pth")
    sizes = dict(img_size=64, embed_dim=48)
    model = nn.ModuleDict(
        {
            "encoder": MIMDetEncoder(depth=2, num_heads=4, **sizes),
            "decoder": MIMDetDecoder(decoder_embed_dim=32, depth=1, num_heads=4, **sizes),
        }
    )
    encoder = StartingWeights(path, to="encoder", allow_missing=["patch_embed.*"])
    decoder = StartingWeights(path, to="decoder")
    message = (
        "must hold MAE's decoder for decoder, but it is a file of FastMIM.*"
        "train.starting_weights.1.from_scratch=True"
    )
    with pytest.raises(ValueError, match=message):
        load_starting_weights(model, [encoder, decoder])
    load_starting_weights(model, [encoder, replace(decoder, from_scratch=True)])
    weights = torch.load(path, weights_only=True)["model"]
    ours = model["encoder"].blocks[0].attn.qkv.weight
    assert torch.equal(ours, weights["encoder.blocks.0.attn.qkv.weight"])


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [f for f in FAMILIES if f != "swin"])
def test_a_file_of_another_architecture_is_refused(other, tmp_path):
    path = file_of(pretraining_model(other), tmp_path / "other.pth")
    message = (
        r"does not fit network \(train.starting_weights.0.path\): the file lacks \d+ .*"
        "it is of another architecture or depth"
    )
    with pytest.raises(ValueError, match=message):
        start(classifier("swin"), path)


def test_a_deeper_encoder_is_refused(tmp_path):
    path = file_of(mae(depth=3), tmp_path / "deep.pth")
    with pytest.raises(
        ValueError, match=r"encoder blocks that the model lacks \(12 \(blocks.2.attn"
    ):
        start(classifier("vit"), path)


def test_a_wider_encoder_is_refused(tmp_path):
    path = file_of(mae(embed_dim=96), tmp_path / "wide.pth")
    message = (
        r"has shape \(1, 1, 96\) in the file and \(1, 1, 48\) in the model.*another model size"
    )
    with pytest.raises(ValueError, match=message):
        start(classifier("vit"), path)


def test_match_reports_every_name_once():
    file = {
        n.removeprefix("encoder.model."): v
        for n, v in pretraining_model("swin").state_dict().items()
    }
    part = classifier("swin").network.state_dict()
    matched, report = match(file, part, allow_missing=["head.*"], leave=["norm.*"])
    assert sorted([*report.loaded, *report.resized, *report.initial]) == sorted(part)
    assert matched.keys() == {*report.loaded, *report.resized}
    assert len(report.resized) == 8  # a table in each block
