"""StrictCheckpointer: loads everything or says why not, and takes over position grids."""

import logging
from argparse import Namespace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_models import fill
from timm import create_model
from torch import nn

from detectron2.structures import ImageList
from mimdet.checkpoint.convert import Source
from mimdet.checkpoint.strict import StrictCheckpointer
from mimdet.modeling.backbone.benchmarking import BenchmarkingViTDet
from mimdet.modeling.backbone.mimdet import MIMDetBackbone, MIMDetDecoder, MIMDetEncoder
from mimdet.modeling.backbone.vitae import PlainViTAE
from mimdet.modeling.backbone.vitdet import ViT
from mimdet.modeling.classifier import ImageClassifier
from mimdet.pretraining.fastmim import FastMIM
from mimdet.pretraining.mae import MAE, ViTEncoder
from mimdet.pretraining.targets import PixelTarget


def two_layers(classes: int = 4) -> nn.ModuleDict:
    return fill(nn.ModuleDict({"body": nn.Linear(3, 5), "head": nn.Linear(5, classes)}))


def detector(img_size: int = 32, kind: str = "conv") -> nn.Module:
    """Something with a tiny MIMDet backbone under the names of a detector."""
    encoder = MIMDetEncoder(img_size, embed_dim=32, depth=1, num_heads=4)
    decoder = MIMDetDecoder(
        img_size, embed_dim=32, decoder_embed_dim=16, depth=1, num_heads=4, fill=kind
    )
    bottom_up = MIMDetBackbone(encoder, decoder, 1.0)
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.bottom_up = fill(bottom_up)
    return model.eval()


def features(model: nn.Module) -> dict[str, torch.Tensor]:
    tensor = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.backbone.bottom_up(ImageList(tensor, [(64, 96)]))


def saved(model: nn.Module, folder, **entries) -> str:
    """The path of a checkpoint of `model`, with entries added, or removed where they are None."""
    state_dict = model.state_dict() | entries
    path = folder / "model.pth"
    torch.save({"model": {n: v for n, v in state_dict.items() if v is not None}}, path)
    return str(path)


def emptied(model: nn.Module) -> nn.Module:
    for value in model.state_dict().values():
        value.zero_()
    return model


def assert_same_state(model: nn.Module, other: nn.Module) -> None:
    expected = other.state_dict()
    assert model.state_dict().keys() == expected.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name


class Counter:
    """A checkpointable."""

    def __init__(self, value: int):
        self.value = value

    def state_dict(self) -> dict:
        return {"value": self.value}

    def load_state_dict(self, state: dict) -> None:
        self.value = state["value"]


def test_what_is_saved_is_loaded_with_what_lies_beside_it(tmp_path):
    StrictCheckpointer(detector(), str(tmp_path), counter=Counter(7)).save("model_1", iteration=1)
    model, counter = emptied(detector()), Counter(0)
    checkpointer = StrictCheckpointer(model, str(tmp_path), counter=counter)
    assert checkpointer.resume_or_load("", resume=True)["iteration"] == 1
    assert_same_state(model, detector())
    assert counter.value == 7


def test_names_with_the_prefix_of_parallel_training_are_loaded(tmp_path):
    state_dict = {f"module.{name}": v for name, v in two_layers().state_dict().items()}
    torch.save({"model": state_dict}, tmp_path / "model.pth")
    model = emptied(two_layers())
    StrictCheckpointer(model).load(str(tmp_path / "model.pth"))
    assert_same_state(model, two_layers())


def test_a_bare_state_dict_is_loaded(tmp_path):
    torch.save(two_layers().state_dict(), tmp_path / "model.pth")
    model = emptied(two_layers())
    StrictCheckpointer(model).load(str(tmp_path / "model.pth"))
    assert_same_state(model, two_layers())


def test_an_empty_path_loads_nothing():
    model = two_layers()
    assert StrictCheckpointer(model).load("") == {}
    assert_same_state(model, two_layers())


# --- differences ----------------------------------------------------------------------------------


def test_a_parameter_that_the_checkpoint_lacks_is_refused_before_anything_is_loaded(tmp_path):
    path, model = saved(two_layers(), tmp_path, **{"head.bias": None}), emptied(two_layers())
    with pytest.raises(ValueError) as error:
        StrictCheckpointer(model).load(path)
    assert "1 parameters that the checkpoint lacks:" in str(error.value)
    assert "  head.bias" in str(error.value)
    assert "train.allow_missing" in str(error.value)
    assert not any(value.any() for value in model.state_dict().values())


def test_a_parameter_that_the_model_lacks_is_refused(tmp_path):
    path = saved(two_layers(), tmp_path, **{"neck.weight": torch.zeros(3)})
    message = r"1 parameters that the model lacks:\s+neck.weight\s+.*train.allow_unexpected"
    with pytest.raises(ValueError, match=message):
        StrictCheckpointer(two_layers()).load(path)


def test_a_parameter_of_another_shape_is_refused_with_both_shapes(tmp_path):
    message = (
        r"2 parameters of another shape:\s+head.bias: \(6,\) in the checkpoint, \(4,\) in the "
        r"model\s+head.weight: \(6, 5\) in the checkpoint, \(4, 5\) in the model"
    )
    with pytest.raises(ValueError, match=message):
        StrictCheckpointer(two_layers()).load(saved(two_layers(classes=6), tmp_path))


def test_all_kinds_of_differences_are_told_at_once_and_long_lists_are_cut(tmp_path):
    extra = {f"extra.{k}": torch.zeros(1) for k in range(11)}
    path = saved(two_layers(classes=6), tmp_path, **{"body.bias": None}, **extra)
    with pytest.raises(ValueError) as error:
        StrictCheckpointer(two_layers()).load(path)
    message = str(error.value)
    for part in ("1 parameters that the checkpoint lacks", "2 parameters of another shape"):
        assert part in message
    assert "11 parameters that the model lacks" in message
    assert message.count("extra.") == 8
    assert "... and 3 more" in message


def test_allowed_missing_parameters_keep_their_value_and_the_rest_is_loaded(tmp_path):
    path, model = saved(two_layers(), tmp_path, **{"head.bias": None}), emptied(two_layers())
    StrictCheckpointer(model, allow_missing=["head.*"]).load(path)
    assert not model["head"].bias.any()
    assert torch.equal(model["head"].weight, two_layers()["head"].weight)
    assert torch.equal(model["body"].weight, two_layers()["body"].weight)


def test_allowed_parameters_of_another_shape_keep_their_value(tmp_path):
    path, model = saved(two_layers(classes=6), tmp_path), emptied(two_layers())
    StrictCheckpointer(model, allow_missing=["head.*"]).load(path)
    assert not model["head"].weight.any()
    assert torch.equal(model["body"].weight, two_layers()["body"].weight)


def test_allowed_unexpected_parameters_are_passed_over(tmp_path):
    path = saved(two_layers(), tmp_path, **{"neck.weight": torch.zeros(3)})
    model = emptied(two_layers())
    StrictCheckpointer(model, allow_unexpected=["neck.*"]).load(path)
    assert_same_state(model, two_layers())


def test_an_allow_list_excuses_only_the_names_that_match(tmp_path):
    path = saved(two_layers(), tmp_path, **{"head.bias": None, "body.bias": None})
    with pytest.raises(ValueError, match=r"1 parameters that the checkpoint lacks:\s+body.bias"):
        StrictCheckpointer(two_layers(), allow_missing=["head.*"]).load(path)


def by_heuristics(folder, classes: int = 4, **entries) -> str:
    """A checkpoint of the layers under shorter names, to be matched by their ends."""
    state_dict = two_layers(classes).state_dict() | entries
    short = {name.replace("body.", "y."): v for name, v in state_dict.items() if v is not None}
    torch.save({"model": short}, folder / "short.pth")
    return f"{folder / 'short.pth'}?matching_heuristics=True"


def test_names_that_are_matched_by_their_ends_must_be_complete_too(tmp_path):
    model = emptied(nn.ModuleDict({"net": two_layers()}))
    path = by_heuristics(tmp_path, **{"head.bias": None})
    StrictCheckpointer(model, allow_missing=["net.head.bias", "net.body.*"]).load(path)
    assert torch.equal(model["net"]["head"].weight, two_layers()["head"].weight)
    with pytest.raises(ValueError, match=r"that the checkpoint lacks:\s+.*net.head.bias"):
        StrictCheckpointer(model, allow_missing=["net.body.*"]).load(path)


def test_what_has_another_shape_is_no_match_by_its_end(tmp_path):
    model = nn.ModuleDict({"net": two_layers()})
    with pytest.raises(ValueError, match=r"that the checkpoint lacks:\s+net.head.bias"):
        StrictCheckpointer(model, allow_missing=["net.body.*"]).load(by_heuristics(tmp_path, 6))


def test_buffers_that_old_versions_saved_are_passed_over(tmp_path):
    old = {
        "proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(3, 4),
        "pixel_mean": torch.zeros(3, 1, 1),
        "pixel_std": torch.zeros(3, 1, 1),
    }
    model = emptied(two_layers())
    StrictCheckpointer(model).load(saved(two_layers(), tmp_path, **old))
    assert_same_state(model, two_layers())


# --- MIMDet's own -------------------------------------------------------------------------------


@pytest.mark.parametrize("own, other", [("mask", "conv"), ("conv", "mask")])
def test_a_checkpoint_of_the_other_fill_is_refused_even_if_its_names_are_allowed(
    tmp_path, own, other
):
    path = saved(detector(kind=other), tmp_path)
    strict = StrictCheckpointer(detector(kind=own), allow_missing=["*"], allow_unexpected=["*"])
    with pytest.raises(ValueError, match=f"by fill='{own}', the checkpoint .* fill='{other}'"):
        strict.load(path)


@pytest.mark.parametrize("img_size", [32, 128])
def test_a_model_of_another_grid_takes_the_checkpoints_tables_and_gives_its_outputs(
    tmp_path, caplog, img_size
):
    source = detector(img_size=64)
    scale_tables(source)
    model = detector(img_size=img_size)
    before = features(model)  # fills the cache of resized tables
    with caplog.at_level(logging.INFO, logger="mimdet"):
        StrictCheckpointer(model).load(saved(source, tmp_path))
    assert_same_state(model, source)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert [name.split(".")[-1] for name in frozen] == ["pos_embed", "decoder_pos_embed"]
    slots = (img_size // 16) ** 2 + 1
    assert f"pos_embed takes the checkpoint's grid: 17 slots instead of {slots}" in caplog.text
    after, expected = features(model), features(source)
    assert all(torch.equal(after[name], expected[name]) for name in expected)
    assert not torch.equal(before["c4"], after["c4"])


def test_a_table_of_the_same_grid_is_the_checkpoints_and_not_a_cached_one(tmp_path):
    source, model = detector(), detector()
    scale_tables(source)
    features(model)
    StrictCheckpointer(model).load(saved(source, tmp_path))
    assert torch.equal(features(model)["c4"], features(source)["c4"])


def scale_tables(model: nn.Module) -> None:
    """Give a model tables that no other model is built with."""
    for name, value in model.state_dict().items():
        if name.endswith("pos_embed"):
            value.mul_(2)


def test_a_table_of_another_width_is_refused(tmp_path):
    name = "backbone.bottom_up.encoder.pos_embed"
    path = saved(detector(), tmp_path, **{name: torch.zeros(1, 17, 48)})
    with pytest.raises(ValueError, match=rf"{name}: \(1, 17, 48\) .*, \(1, 5, 32\) in the model"):
        StrictCheckpointer(detector()).load(path)


_VIT = dict(embed_dim=32, depth=4, num_heads=4)
_BLOCKS = dict(window_size=2, window_block_indexes=[0, 1, 2])
# of every system one that is built for square images of a side, with a position table for them
FIXED_GRIDS = {
    "benchmarking": lambda side: BenchmarkingViTDet(img_size=side, window_size=2, **_VIT),
    "benchmarking, frozen": lambda side: BenchmarkingViTDet(
        img_size=side, window_size=2, freeze_pos_embed=True, **_VIT
    ),
    "vitdet": lambda side: ViT(img_size=64, pretrain_img_size=side, **_VIT, **_BLOCKS),
    "vitae": lambda side: PlainViTAE(
        img_size=64, pretrain_img_size=side, pcm_groups=8, **_VIT, **_BLOCKS
    ),
    "mae": lambda side: MAE(
        img_size=side, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2, **_VIT
    ),
    "fastmim": lambda side: FastMIM(
        ViTEncoder(side, **_VIT), PixelTarget(16), 32, img_size=side, stride=16, decoder_depth=1
    ),
    "classifier": lambda side: ImageClassifier(
        create_model("vit_base_patch16_224", img_size=side, **_VIT)
    ),
}


@pytest.mark.parametrize("system", FIXED_GRIDS)
def test_a_table_of_another_grid_is_refused_where_the_grid_is_fixed(tmp_path, system):
    model = FIXED_GRIDS[system](64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"(?s)another shape:.*pos_embed: \(1, .*, 32\)") as error:
        StrictCheckpointer(model).load(saved(FIXED_GRIDS[system](128), tmp_path))
    assert "mae_checkpoint" not in str(error.value)  # the file is of this model, not of another
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_mae_file_as_init_checkpoint_gets_the_hint(tmp_path):
    mae = {"cls_token": torch.zeros(1, 1, 32), "blocks.0.attn.qkv.weight": torch.zeros(96, 32)}
    mae["decoder_pred.bias"] = torch.zeros(768)
    torch.save({"model": mae}, tmp_path / "mae.pth")
    hint = "the checkpoint is a full MAE checkpoint.*; start .* with mae_checkpoint.path=FILE"
    with pytest.raises(ValueError, match=hint):
        StrictCheckpointer(detector()).load(str(tmp_path / "mae.pth"))


def test_a_refused_checkpoint_leaves_the_position_tables_as_they_were(tmp_path):
    model = detector(img_size=32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path = saved(detector(img_size=64), tmp_path, surplus=torch.zeros(1))
    with pytest.raises(ValueError, match="surplus"):
        StrictCheckpointer(model).load(path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_position_table_that_may_be_missing_keeps_its_grid(tmp_path):
    model = detector(img_size=32)
    before = model.get_parameter("backbone.bottom_up.encoder.pos_embed").clone()
    path = saved(detector(img_size=64), tmp_path)
    StrictCheckpointer(model, allow_missing=["*.encoder.pos_embed"]).load(path)
    assert torch.equal(model.get_parameter("backbone.bottom_up.encoder.pos_embed"), before)
    assert model.get_parameter("backbone.bottom_up.decoder.decoder_pos_embed").shape[1] == 17


# --- other people's names -------------------------------------------------------------------------


def theirs(state_dict: dict) -> dict:
    return {f"their_{name}": value for name, value in state_dict.items()}


@pytest.fixture
def their_source(monkeypatch):
    """A source whose names begin with "their_"."""
    source = Source(
        "theirs",
        lambda names: "their_head.bias" in names,
        lambda names: {name.removeprefix("their_"): value for name, value in names.items()},
    )
    monkeypatch.setattr("mimdet.checkpoint.convert.SOURCES", (source,))


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda names: names,
        lambda names: {"model": names},
        lambda names: {"state_dict": names, "meta": {"epoch": 24, "CLASSES": ("cat", "dog")}},
    ],
)
def test_known_names_of_others_are_converted(tmp_path, caplog, their_source, wrapped, prefix):
    names = {prefix + n: v for n, v in theirs(two_layers().state_dict()).items()}
    torch.save(wrapped(names), tmp_path / "model.pth")
    model = emptied(two_layers())
    with caplog.at_level(logging.INFO, logger="mimdet"):
        StrictCheckpointer(model).load(str(tmp_path / "model.pth"))
    assert_same_state(model, two_layers())
    assert "names of theirs, which are converted" in caplog.text


def test_a_converted_checkpoint_must_fit_all_the_same(tmp_path, their_source):
    names = theirs(two_layers().state_dict())
    del names["their_body.bias"]
    torch.save({"state_dict": names, "meta": {}}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"the checkpoint lacks:\s+body.bias"):
        StrictCheckpointer(two_layers()).load(str(tmp_path / "model.pth"))


@pytest.mark.parametrize("content", [{"a": 1}, {"model": 3}, {"model": {"a": 1}}, [1]])
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"model.pth is not a checkpoint.*\(train.init_checkpoint"):
        StrictCheckpointer(two_layers()).load(str(tmp_path / "model.pth"))


# --- files with more than weights, and files that are none ----------------------------------------


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "state_dict_ema"])
def test_weights_are_loaded_from_any_wrapper_whatever_harmless_is_beside_them(tmp_path, wrapper):
    content = {wrapper: two_layers().state_dict(), "best": np.float64(1.5)}
    content |= {"date": datetime(2022, 1, 2), "folder": Path("a"), "args": Namespace(lr=0.1)}
    torch.save(content, tmp_path / "model.pth")
    model = emptied(two_layers())
    StrictCheckpointer(model).load(str(tmp_path / "model.pth"))
    assert_same_state(model, two_layers())


def test_a_file_that_is_none_is_named_with_the_key(tmp_path):
    (tmp_path / "model.pth").write_text("<html>")
    with pytest.raises(ValueError, match=r"\(train.init_checkpoint\), but it is a web page"):
        StrictCheckpointer(two_layers()).load(str(tmp_path / "model.pth"))
