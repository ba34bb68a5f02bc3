import json

import pytest
from toy_runs import load_script


def test_runs_are_compared_and_the_table_printed(tmp_path, capsys):
    for name, ap in (("first", 10.0), ("second", 20.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps({"bbox": {"AP": ap}}))
    runs = [str(tmp_path / name) for name in ("first", "second")]
    load_script("tools/compare.py").main([*runs, "--output", str(tmp_path / "out")])
    lines = capsys.readouterr().out.splitlines()
    assert "second    20.0               –" in lines
    assert lines[-1] == str(tmp_path / "out" / "compare.html")
    assert (tmp_path / "out" / "compare.html").is_file()


def test_resamples_must_be_many(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        load_script("tools/compare.py").main(["a", "b", "--resamples", "99"])
    assert caught.value.code == 2
    assert "--resamples must be at least 100" in capsys.readouterr().err
