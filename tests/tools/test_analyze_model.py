"""The tool that prints parameters and operations."""

import pytest
from config_files import path_of
from toy_runs import load_script

CONFIG = str(path_of("mask_rcnn_mpvit_tiny_1x"))
WIDE = "model.backbone.bottom_up.mlp_ratios=[4,4,4,4]"


def run(*arguments: str) -> None:
    load_script("tools/analyze_model.py").main([*arguments])


def row(output: str, name: str) -> list[str]:
    (line,) = (line for line in output.splitlines() if line.split(" ")[0] == name)
    return line.split()[1:]


def test_the_published_figure_is_printed_with_what_it_counts(capsys):
    run(CONFIG, "--size", "800", "1280", WIDE)
    output = capsys.readouterr().out
    assert row(output, "all") == ["28,019,824", "216.530", "215.771"]  # published: 28M, 216G
    assert row(output, "roi_heads.mask_head")[1:] == ["52.986", "52.986"]
    assert row(output, "attention") == ["0.759"]
    assert "One image of 800x1280, 1000 proposals, 100 detections." in output
    assert "Not counted: element-wise functions" in output


def test_depth_says_how_many_levels_are_listed(capsys):
    run(CONFIG, "--depth", "1", "--size", "64", "64")
    output = capsys.readouterr().out
    assert row(output, "backbone") and "backbone.bottom_up" not in output


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["missing.py"], "missing.py"),
        ([CONFIG, "model.no_such_key=1"], "there is no 'model.no_such_key'"),
        ([CONFIG, "model.backbone.bottom_up.name=huge"], "no MPViT of the size 'huge'"),
        ([CONFIG, "--size", "0", "64"], "--size must be two positive numbers, got [0, 64]"),
    ],
)
def test_bad_input_ends_with_a_message(arguments, message, capsys):
    with pytest.raises(SystemExit):
        run(*arguments)
    assert message in capsys.readouterr().err
