"""The command that says what a checkpoint is."""

import argparse

import pytest
import torch
from pretraining_models import tiny_mae
from toy_runs import load_script

main = load_script("tools/inspect_checkpoint.py").main


def test_it_says_what_the_file_is_and_what_it_holds_besides(tmp_path, capsys):
    weights = tiny_mae().state_dict()
    trainer = {"iteration": 6, "hooks": {"EMA": dict(weights)}}
    content = {"model": weights, "trainer": trainer, "iteration": 6}
    torch.save(content | {"args": argparse.Namespace(lr=0.1)}, tmp_path / "a.pth")
    main([str(tmp_path / "a.pth")])
    numbers = sum(value.numel() for value in weights.values())
    first, remedy, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{tmp_path}/a.pth is a full MAE checkpoint of ViT of width ")
    assert "mae_checkpoint.path=FILE" in remedy
    assert rest == [
        f"{len(weights)} tensors, {numbers:,} numbers ({len(weights)} of float32)",
        f"their moving average (EMA): {len(weights)} tensors",
        "besides: trainer, iteration 6, args",
    ]


def test_a_bare_state_dict_has_nothing_besides(tmp_path, capsys):
    torch.save({"a": torch.ones(2), "b": torch.ones(3, dtype=torch.float16)}, tmp_path / "a.pth")
    main([str(tmp_path / "a.pth")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("a.pth is of no system that is known here (2 tensors: a, b, ...)")
    assert lines[2:] == ["2 tensors, 5 numbers (1 of float32, 1 of float16)"]


@pytest.mark.parametrize(
    "content, what", [(b"<html>", "a web page"), (b"", "empty"), (b"PK\x03\x04", "cut short")]
)
def test_a_wrong_file_ends_in_one_line(content, what, tmp_path, capsys):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(SystemExit) as exit:
        main([str(tmp_path / "a.pth")])
    assert exit.value.code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error:" in x]
    assert f"but it is {what}" in line
