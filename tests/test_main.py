"""The command `mimdet`, its subcommands and configs that are found by name."""

import gc
import runpy
import sys
from pathlib import Path

import pytest

from mimdet import __main__ as command
from mimdet.__main__ import main
from mimdet.find_config import find_config

REPOSITORY = Path(__file__).parents[1]
TOY = "toy/mimdet_mask_rcnn_fpn_sr_0p5_toy"


@pytest.fixture(autouse=True)
def arguments(monkeypatch, tmp_path):
    """Let `main` set sys.argv, and run in a folder that is not the clone."""
    monkeypatch.setattr(sys, "argv", ["mimdet"])
    monkeypatch.chdir(tmp_path)


def refused(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_without_words_every_subcommand_is_listed_with_what_it_does(capsys):
    main([])
    lines = capsys.readouterr().out.splitlines()
    assert "  train        Train any config, or resume." in lines
    toy = "Write the toy dataset: shapes of four classes in COCO format, and as label maps."
    assert f"  toy          {toy}" in lines
    scripts = {path.stem for path in (REPOSITORY / "tools").glob("*.py")} - {"demo"}
    assert sum(line.startswith("  ") for line in lines) == len(scripts) + len(["train", "eval"])


def test_a_word_that_is_no_subcommand_is_refused_with_the_list(capsys):
    error = refused(capsys, "chek")
    assert error.startswith("mimdet: error: 'chek' is no subcommand\n\nusage: mimdet")
    assert "\n  check " in error


def test_a_subcommand_is_its_script_and_calls_itself_by_its_own_name(capsys, tmp_path):
    error = refused(capsys, "check", "none.json", str(tmp_path))
    assert error.startswith("mimdet check: error: ") and "none.json does not exist" in error
    with pytest.raises(SystemExit) as ended:
        main(["check", "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0 and "mimdet check mine/train.json mine/images" in text
    assert "tools/" not in text


def test_eval_is_train_with_eval_only(capsys):
    error = refused(capsys, "eval", "--config-file", TOY)
    assert error.splitlines()[-1] == (
        "mimdet eval: error: --eval-only needs the weights to evaluate: "
        "train.init_checkpoint=MODEL.pth"
    )


@pytest.mark.parametrize(
    "name", [TOY, f"{TOY}.py", f"configs/{TOY}.py", TOY.removeprefix("toy/"), f"configs/{TOY}"]
)
def test_a_config_is_found_by_name_from_any_folder(name):
    assert Path(find_config(name)) == REPOSITORY / f"configs/{TOY}.py"


def test_a_file_of_that_name_comes_first(tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / f"{TOY}.py").touch()
    assert find_config(f"{TOY}.py") == f"{TOY}.py"


@pytest.mark.parametrize(
    "name, near",
    [
        ("toy/mimdet_mask_rcnn_fpn_sr_0p5", TOY),
        ("toy/mimdet_mask_rcn_fpn_sr_0p5_toy.py", TOY),
        ("mimdet_mask_rcnn_fpn_sr_0p05_toy", TOY),
        ("mimdet/toy/mimdet_mask_rcnn_fpn_sr_0p5_toy", TOY),
    ],
)
def test_of_a_mistyped_name_the_nearest_are_named_first(name, near):
    with pytest.raises(FileNotFoundError, match=f"own are .*{near}"):
        find_config(name)


def test_common_parts_are_no_configs():
    with pytest.raises(FileNotFoundError):
        find_config("common/train")


def froze() -> bool:
    """Whether the collector leaves out what was there when it began again; it takes all back."""
    count = gc.get_freeze_count()
    gc.unfreeze()
    return count > 0


def test_no_garbage_is_looked_for_while_a_subcommand_is_imported(monkeypatch):
    enabled = []

    def note() -> None:
        enabled.append(gc.isenabled())

    monkeypatch.setattr(command, "_script", lambda name: (note(), (note, []))[1])
    gc.unfreeze()
    main(["check"])
    assert enabled == [False, True] and froze()


@pytest.mark.parametrize("name, freezes", [("__mp_main__", True), ("imported", False)])
def test_nor_while_a_rank_imports_the_script(name, freezes):
    gc.unfreeze()
    runpy.run_path(str(REPOSITORY / "lazyconfig_train_net.py"), run_name=name)
    assert gc.isenabled() and froze() == freezes
