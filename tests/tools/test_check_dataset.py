"""The script that lists the problems of a dataset."""

import json

import pytest
from toy_runs import load_script


def run(*argv):
    load_script("tools/check_dataset.py").main([str(arg) for arg in argv])


def test_a_good_dataset_ends_with_success(toy_root, capsys):
    json_file = toy_root / "annotations/instances_val.json"
    run(json_file, toy_root / "val")
    assert capsys.readouterr().out == f"{json_file}: 0 problems\n"


def test_problems_are_printed_and_make_the_exit_status_1(toy_root, tmp_path, capsys):
    content = json.loads((toy_root / "annotations/instances_val.json").read_text())
    content["annotations"][0]["bbox"] = [1, 2, -3, 4]
    content["images"][0]["file_name"] = "lost.jpg"
    (tmp_path / "val.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "val.json", toy_root / "val", "--no-decode")
    assert caught.value.code == 1
    *problems, last = capsys.readouterr().out.splitlines()
    assert last == f"{tmp_path / 'val.json'}: 2 problems"
    assert "annotations have a bbox without area (1: annotation" in problems[0]
    assert "image files do not exist (1: image" in problems[1] and "lost.jpg" in problems[1]


def test_a_missing_annotation_file_is_a_mistake_in_the_command(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "none.json", tmp_path)
    assert caught.value.code == 2
    assert "none.json does not exist" in capsys.readouterr().err
