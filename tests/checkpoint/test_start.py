"""The list of starting weights: what an entry may say, and how a wrong one is refused."""

import pytest
import torch
from golden_models import fill
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mimdet.checkpoint.start import StartingWeights, load_starting_weights


def encoder(blocks: int = 1, bias: bool = True) -> nn.Module:
    """Something with the names of a ViT."""
    module = nn.Module()
    module.blocks = nn.ModuleList()
    for _ in range(blocks):
        block = nn.Module()
        block.attn = nn.Module()
        block.attn.qkv = nn.Linear(4, 12, bias)
        module.blocks.append(block)
    return module


def model() -> nn.ModuleDict:
    neck = nn.ModuleDict({"proj": nn.Linear(4, 4)})
    return nn.ModuleDict({"body": encoder(), "neck": neck, "twin": encoder()})


@pytest.fixture
def path(tmp_path):
    torch.save({"model": fill(encoder()).state_dict()}, tmp_path / "file.pth")
    return str(tmp_path / "file.pth")


def key_of(key: str) -> str:
    """As in configs whose entries take their path from `mae_checkpoint`."""
    return "mae_checkpoint.path" if key.endswith(".path") else key


def refused(match: str, *entries: StartingWeights, error: type = ValueError) -> None:
    """The entries are refused, and nothing is loaded."""
    start = model()
    before = {name: value.clone() for name, value in start.state_dict().items()}
    with pytest.raises(error, match=match):
        load_starting_weights(start, entries, key_of)
    assert all(torch.equal(before[name], v) for name, v in start.state_dict().items())


def test_one_file_may_start_several_parts(path):
    start = model()
    load_starting_weights(start, [StartingWeights(path, "body"), StartingWeights(path, "twin")])
    for part in (start["body"], start["twin"]):
        assert torch.equal(part.blocks[0].attn.qkv.weight, torch.load(path)["model"][NAME])


NAME = "blocks.0.attn.qkv.weight"


def test_a_part_that_the_model_lacks_is_refused_with_the_nearest_one(path):
    message = r"starting_weights.1.to must name a part of the model, got 'bodi'.* one is 'body'"
    refused(message, StartingWeights(None, "nowhere"), StartingWeights(path, "bodi"))


@pytest.mark.parametrize("other", ["body", "body.blocks.0", ""])
def test_two_entries_for_one_part_are_refused(path, other):
    message = (
        r"can start from one file only, but train.starting_weights.0 is for 'body' and "
        rf"train.starting_weights.1 for '{other}'; remove one"
    )
    refused(message, StartingWeights(path, "body"), StartingWeights(path, other))


def test_a_missing_file_is_refused_by_the_key_that_names_it(tmp_path):
    entry = StartingWeights(str(tmp_path / "none.pth"), "body")
    refused(r"no checkpoint .*none.pth \(mae_checkpoint.path\)", entry, error=FileNotFoundError)


def test_a_file_that_does_not_fit_is_refused_by_both_keys(path):
    message = (
        r"file.pth does not fit neck \(mae_checkpoint.path\): the file lacks 2 \(proj.weight, "
        r".*`allow_missing` must name what is new .*\(train.starting_weights.0\)"
    )
    refused(message, StartingWeights(path, "neck"))


def test_an_unknown_format_is_refused_with_those_there_are(path):
    message = r"train.starting_weights.0.format must be 'auto' or one of .'beit', 'mae', 'fastmim'"
    refused(message, StartingWeights(path, "body", format="dino"))


def test_a_file_of_another_format_than_the_config_says_is_refused(path):
    message = r"file.pth must be of the format 'beit', but its names are those of 'mae' \(train"
    refused(message, StartingWeights(path, "body", format="beit"))


def test_an_unknown_way_to_resize_tables_is_refused(path):
    message = "train.starting_weights.0.tables must be one of .*, got 'nearest'"
    refused(message, StartingWeights(path, "body", tables="nearest"))


def test_a_map_that_is_not_square_must_be_given(tmp_path):
    file, start = nn.Module(), nn.ModuleDict({"body": nn.Module()})
    file.pos_embed = nn.Parameter(torch.ones(1, 9, 4))
    start["body"].pos_embed = nn.Parameter(torch.zeros(1, 24, 4))
    torch.save(file.state_dict(), tmp_path / "file.pth")
    entry = dict(path=str(tmp_path / "file.pth"), to="body")
    with pytest.raises(ValueError, match="position table of the model .* got 24 slots.* `grid`"):
        load_starting_weights(start, [StartingWeights(**entry)])
    load_starting_weights(start, [StartingWeights(**entry, grid=(4, 6))])
    torch.testing.assert_close(start["body"].pos_embed.data, torch.ones(1, 24, 4))


def test_what_may_be_missing_may_also_have_another_shape_and_what_is_left_is_not_taken(path):
    start = nn.ModuleDict({"body": encoder()})
    attn = start["body"].blocks[0].attn
    attn.qkv = nn.Linear(4, 15)
    before = attn.qkv.bias.clone()
    entry = dict(path=path, to="body")
    with pytest.raises(ValueError, match=r"qkv.weight has shape \(12, 4\) .* \(15, 4\) in the mod"):
        load_starting_weights(start, [StartingWeights(**entry)])
    load_starting_weights(start, [StartingWeights(**entry, allow_missing=["*.qkv.*"])])
    assert torch.equal(attn.qkv.bias, before)
    attn.qkv = nn.Linear(4, 12)
    before = attn.qkv.bias.clone()
    load_starting_weights(start, [StartingWeights(**entry, leave=["*.bias"])])
    assert torch.equal(attn.qkv.bias, before)
    assert torch.equal(attn.qkv.weight, torch.load(path)["model"][NAME])


def test_a_model_of_timm_starts_from_its_own_kind_and_a_vit_does_not(tmp_path):
    options = {"img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2}
    dinov2 = VisionTransformer(**options, init_values=1.0)
    torch.save(dinov2.state_dict(), tmp_path / "a.pth")
    entries = [StartingWeights(path=str(tmp_path / "a.pth"), to="")]
    load_starting_weights(VisionTransformer(**options, init_values=1.0, num_classes=0), entries)
    with pytest.raises(ValueError, match="a part of a model can start from .* layer scale"):
        load_starting_weights(VisionTransformer(**options, num_classes=0), entries)
