"""The script that converts checkpoints."""

import re

import pytest
import torch
from golden_models import load
from mmdet_weights import filled
from toy_runs import load_script


def run(*argv):
    load_script("tools/convert_checkpoint.py").main([str(arg) for arg in argv])


@pytest.fixture
def theirs(tmp_path):
    """The path of a small detector under the names of the unofficial ViTDet."""
    shapes = load("vitdet/keys_unofficial_vit_base.json.gz")
    weights = filled({name: [min(n, 4) for n in shape] for name, shape in shapes.items()})
    torch.save({"state_dict": weights}, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth"


def test_file_is_converted_there_and_back_with_a_report(theirs, tmp_path, capsys):
    run(theirs, tmp_path / "ours.pth")
    run(tmp_path / "ours.pth", tmp_path / "back.pth", "--to", "vitdet_mmdet")
    before = torch.load(theirs, weights_only=True)["state_dict"]
    after = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all("249 tensors" in line for line in lines)


def test_renames_drops_and_the_source_can_be_given(theirs, tmp_path):
    weights = torch.load(theirs, weights_only=True)["state_dict"] | {"ema": torch.ones(1)}
    torch.save({f"detector.{name}": value for name, value in weights.items()}, theirs)
    source = ("--from", "vitdet_mmdet")
    changes = ("--rename", r"^detector\.", "", "--drop", "ema")
    run(theirs, tmp_path / "ours.pth", *source, *changes)
    assert len(torch.load(tmp_path / "ours.pth", weights_only=True)["model"]) == 249


@pytest.mark.parametrize(
    "argv, message",
    [
        (["none.pth", "ours.pth"], "no checkpoint .*none.pth"),
        (["theirs.pth", "theirs.pth"], "theirs.pth must not exist, or be another file"),
        (["theirs.pth", "ours.pth", "--to", "other"], "invalid choice: 'other'"),
        (["theirs.pth", "ours.pth", "--rename", "fpn1", "fpn9"], "must be of a known source"),
        (["theirs.pth", "ours.pth", "--rename", "fpn2", "fpn9"], "2 have none: backbone.fpn9.0"),
    ],
)
def test_mistakes_end_with_status_2_and_write_nothing(theirs, tmp_path, capsys, argv, message):
    argv = [tmp_path / arg if arg.endswith(".pth") else arg for arg in argv]
    with pytest.raises(SystemExit) as caught:
        run(*argv)
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert not output.out
    assert re.search(message, output.err)
    assert [p.name for p in tmp_path.iterdir()] == ["theirs.pth"]
