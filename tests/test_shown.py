"""Strings of strangers' files never reach the terminal or a log as they are."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from toy_runs import TINY, load_script, train_net

from mimdet.shown import shown

# Colours, a new title of the window, the beginning of the line, a line that claims to be another
# one, letters written backwards, half a character, and without end.
HOSTILE = (
    "\x1b[31mred",
    "a\x1b]0;title\x07",
    "ok\r\b\b",
    "x\nERROR: all files are lost",
    "\u202etac\u2066",
    "\ud800",
    "\x9b31m\x7f\0",
    "long" * 2500,
)
# all of Unicode's control characters but the line break, and what turns writing round
FORBIDDEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def check(output: str) -> None:
    assert output
    assert not FORBIDDEN.findall(output)
    assert "\nERROR: all files" not in output
    assert "long" * 200 not in output


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_cut_and_without_control_characters(text):
    check(shown(text))
    check(shown({"a": [text]}))
    assert len(shown(text)) <= 100 and "\n" not in shown(text)


def test_a_number_of_any_length_and_scripts_with_joiners_are_shown():
    assert shown(10**6000) == "a number of 19,932 bits"
    assert shown("می\u200cشود") == "می\u200cشود"
    assert shown("猫　犬") == "猫　犬"


@pytest.fixture(scope="module")
def hostile_root(toy_root, tmp_path_factory):
    """The toy dataset with such names of classes."""
    root = tmp_path_factory.mktemp("hostile") / "data"
    shutil.copytree(toy_root, root)
    for split in ("train", "val"):
        path = root / f"annotations/instances_{split}.json"
        content = json.loads(path.read_text())
        names = iter(HOSTILE)
        for category in content["categories"]:
            category["name"] = next(names)
        path.write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("name", HOSTILE)
def test_the_checker_and_preflight_tell_of_hostile_names(name, hostile_root, tmp_path, capfd):
    content = json.loads((hostile_root / "annotations/instances_val.json").read_text())
    content["images"][0]["file_name"] = name
    content["categories"][0]["name"] = name
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SystemExit):
        load_script("tools/check_dataset.py").main([str(path), str(hostile_root / "val")])
    out, err = capfd.readouterr()
    check(out + err)
    assert ("characters" in out) != ("JSON is malformed" in out)  # as half a character is


def test_nor_does_training_evaluation_inspection_or_prediction(hostile_root, tmp_path, capfd):
    folder = tmp_path / "run"
    train_net(
        *TINY,
        *(f"toy.root={hostile_root}", f"train.output_dir={folder}", "train.max_iter=1"),
        *("dataloader.train.dataset.name=hostile_train", "dataloader.train.num_workers=0"),
        "dataloader.test.dataset.name=hostile_val",
    )
    out, err = capfd.readouterr()
    assert "AP" in out + err and "?[31mred" in out + err
    check(out + err)
    check((folder / "log.txt").read_text())

    checkpoint = torch.load(folder / "model_final.pth", weights_only=True)
    checkpoint["card"]["classes"] = list(HOSTILE[: len(checkpoint["card"]["classes"])])
    checkpoint["card"]["versions"] = {HOSTILE[0]: HOSTILE[3], HOSTILE[7]: HOSTILE[7]}
    checkpoint |= {name: name for name in HOSTILE}
    torch.save(checkpoint, tmp_path / "hostile.pth")
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(images / "a.png")
    (images / "b\x1b[31m\n.png").write_bytes(b"no picture")
    load_script("tools/inspect_checkpoint.py").main([str(tmp_path / "hostile.pth")])
    load_script("tools/predict.py").main(
        [str(tmp_path / "hostile.pth"), str(images), "--output", str(tmp_path / "found")]
    )
    out, err = capfd.readouterr()
    assert "?[31mred" in out and "files could not be read, first" in out
    check(out + err)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_tensors_that_no_module_has_are_refused(name, tmp_path, capfd):
    path = tmp_path / "a.pth"
    torch.save({"model": {"a": torch.ones(3), name: torch.ones(3)}}, path)
    with pytest.raises(SystemExit):
        load_script("tools/inspect_checkpoint.py").main([str(path)])
    out, err = capfd.readouterr()
    check(out + err)
    assert "a tensor whose name is longer than 500 or has control characters" in err
