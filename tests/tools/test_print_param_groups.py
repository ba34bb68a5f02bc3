"""The script that prints parameter groups."""

import pytest
from config_files import path_of
from toy_runs import load_script

CONFIG = str(path_of("benchmarking_mask_rcnn_toy"))


def run(*argv: str) -> None:
    load_script("tools/print_param_groups.py").main(["--config-file", *argv])


def test_groups_of_a_config_are_printed_with_overrides_applied(capsys):
    run(CONFIG, "optimizer.lr=0.25", "model.backbone.bottom_up.freeze_pos_embed=True")
    header, *groups, total, rest = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["group", "lr", "factor"]
    assert [group.split()[:4] for group in groups] == [
        ["0", "0.25", "1", "0.1"],
        ["1", "0.25", "1", "0"],
    ]
    assert total.split()[0] == "all"
    assert rest.split() == ["none", "0", "0", "0", "1", "8,192", "backbone.bottom_up.pos_embed"]


def test_names_are_printed_when_asked_for(capsys):
    run(CONFIG, "--names")
    assert "\n    backbone.bottom_up.blocks.7.mlp.fc2.bias\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, message",
    [
        (["nothing.py"], "nothing.py"),
        ([CONFIG, "optimizer.rate=1"], "no 'optimizer.rate'"),
        ([CONFIG, "model.backbone.bottom_up.depth=6"], "depth must be a multiple of 4"),
    ],
)
def test_a_mistake_in_the_command_is_said_in_one_line(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
