"""What the command lines of all scripts have in common."""

import pytest
from omegaconf import OmegaConf

from mimdet.command_line import (
    add_overrides,
    mistakes_in_one_line,
    overrides_last,
    tool_parser,
)


@pytest.mark.parametrize(
    "error, line",
    [
        (FileNotFoundError("there is no checkpoint a.pth"), "there is no checkpoint a.pth"),
        (KeyError("there is no 'model.x'"), "there is no 'model.x'"),
        (ValueError("sizes must agree:\n  3 and 4"), "sizes must agree: 3 and 4"),
        (ImportError("no file b.py"), "no file b.py"),
        (ValueError(), "ValueError()"),
    ],
)
def test_an_error_that_the_user_can_mend_ends_the_program_with_one_line(error, line, capsys):
    parser = tool_parser("Help.")
    with pytest.raises(SystemExit) as caught, mistakes_in_one_line(parser):
        raise error
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"{parser.prog}: error: {line}\n"


def test_a_key_that_a_config_lacks_is_said_in_one_line(capsys):
    cfg = OmegaConf.create({"model": {}}, flags={"struct": True})
    with pytest.raises(SystemExit), mistakes_in_one_line(tool_parser("Help.")):
        _ = cfg.model.backbone
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.backbone" in line


@pytest.mark.parametrize("error", [RuntimeError, AssertionError, TypeError])
def test_a_fault_of_the_code_keeps_its_traceback(error):
    with pytest.raises(error), mistakes_in_one_line(tool_parser("Help.")):
        raise error


def test_overrides_of_a_tool_stand_before_and_after_flags():
    parser = tool_parser("Help.")
    parser.add_argument("--depth", type=int)
    add_overrides(parser)
    args = parser.parse_intermixed_args(["a.b=1", "--depth", "3", "+c=2"])
    assert (args.depth, args.opts) == (3, ["a.b=1", "+c=2"])


@pytest.mark.parametrize(
    "arguments, moved",
    [
        (["a.b=1", "--resume", "+c={x: 1}"], ["--resume", "a.b=1", "+c={x: 1}"]),
        (["~a=1", "++b.0=2", "--eval-only"], ["--eval-only", "~a=1", "++b.0=2"]),
        (["--config-file", "runs/lr=1/c.py", "a=1"], ["--config-file", "runs/lr=1/c.py", "a=1"]),
        (["--dist-url", "tcp://h:1?x=2", "a=1"], ["--dist-url", "tcp://h:1?x=2", "a=1"]),
        (["--num-gpus=2", "a=1"], ["--num-gpus=2", "a=1"]),
        (["a=1", "--num-gpus=2"], ["--num-gpus=2", "a=1"]),
    ],
)
def test_overrides_go_behind_flags_and_their_values(arguments, moved):
    assert overrides_last(arguments) == moved
