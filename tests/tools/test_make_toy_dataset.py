"""The tool that writes the toy dataset, through its command line."""

import json
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools/make_toy_dataset.py"
main = runpy.run_path(str(SCRIPT))["main"]


def test_dataset_of_the_wanted_size_and_seed_is_written_once(tmp_path, capsys):
    root = tmp_path / "new/toy"
    arguments = [str(root), "--num-train", "2", "--num-val", "1", "--seed", "3"]
    main(arguments)
    spec = "ToyDataset(num_train=2, num_val=1, seed=3)"
    assert capsys.readouterr().out == f"{root}: {spec} written\n"
    assert len(list((root / "train").iterdir())) == 2
    assert len(list((root / "val").iterdir())) == 1
    assert json.loads((root / "toy.json").read_text())["seed"] == 3
    main(arguments)
    assert capsys.readouterr().out == f"{root}: {spec} is already there\n"


@pytest.mark.parametrize(
    "options, message",
    [
        (["--num-train", "0"], "needs at least one image per split"),
        (["--num-val", "0"], "needs at least one image per split"),
        (["--seed", "-1"], "must be at least 0"),
        (["--num-train", "many"], "invalid int value"),
    ],
)
def test_impossible_dataset_ends_the_tool_with_a_message(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as e:
        main([str(tmp_path / "toy"), *options])
    assert e.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_folder_with_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(SystemExit) as e:
        main([str(tmp_path)])
    assert e.value.code == 2
    assert "choose another folder" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_help_shows_the_defaults_by_an_example(capsys):
    with pytest.raises(SystemExit) as e:
        main(["--help"])
    assert e.value.code == 0
    example = "python tools/make_toy_dataset.py output/toy --num-train 600 --num-val 100 --seed 0"
    assert example in capsys.readouterr().out
