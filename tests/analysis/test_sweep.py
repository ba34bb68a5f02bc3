import json
from pathlib import Path

import pytest
from toy_runs import CONFIG

from mimdet.analysis.sweep import check, is_finished, plan

OUT = Path("out")


def test_a_sweep_is_every_combination_and_the_last_key_changes_fastest():
    settings = plan(["optimizer.lr=1e-3,1e-4", "train.max_iter=9", "a.b=x,y,z"], OUT)
    assert [setting.name for setting in settings] == [
        *("lr=1e-3, b=x", "lr=1e-3, b=y", "lr=1e-3, b=z"),
        *("lr=1e-4, b=x", "lr=1e-4, b=y", "lr=1e-4, b=z"),
    ]
    assert settings[1].folder == OUT / "lr_1e-3__b_y"
    assert settings[1].arguments(seed=2) == [
        *("optimizer.lr=1e-3", "train.max_iter=9", "a.b=y", "train.seed=2"),
        "train.output_dir=out/lr_1e-3__b_y/seed_2",
    ]


@pytest.mark.parametrize(
    "override, values",
    [
        ("k=[0.25,1.0],0.5", ["[0.25,1.0]", "0.5"]),
        ("k={a:1,b:[2,3]},{}", ["{a:1,b:[2,3]}", "{}"]),
        ("k='a,b',\"c,[d\"", ["'a,b'", '"c,[d"']),
        ("k=null,a=b", ["null", "a=b"]),
    ],
)
def test_commas_in_brackets_and_quotes_part_no_values(override, values):
    assert [s.overrides for s in plan([override], OUT)] == [[f"k={value}"] for value in values]


def test_keys_that_end_alike_are_told_by_their_whole_names():
    names = [setting.name for setting in plan(["+a.lr=1,2", "b.lr=3,4"], OUT)]
    assert names[0] == "a.lr=1, b.lr=3"


def test_odd_folders_are_quoted_for_the_grammar_of_overrides():
    (first, _) = plan(["k=a/b,c d"], Path("my runs"))
    assert first.arguments(0)[-1] == "train.output_dir='my runs/k_a_b/seed_0'"


@pytest.mark.parametrize(
    "overrides, message",
    [
        ([], "needs a key with several values, key=a,b,c, and got none"),
        (["a=1"], "and got a=1"),
        (["a=1,2", "a=3"], "each key of a sweep must stand once, and a is there twice"),
        (["a=1,,2"], "between two commas of a sweep there must be a value, got a=1,,2"),
        (["a=1,1"], "must be unlike, and two are those of a_1"),
        (["a=1,2", "train.seed=3"], "train.seed is set by the sweep: --seeds is the flag for it"),
        (["a=1,2", "train.output_dir=o"], "--output is the flag for it"),
    ],
)
def test_what_is_no_sweep_is_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        plan(overrides, OUT)


def test_the_config_is_asked_before_the_first_run():
    check(plan(["optimizer.lr=1e-3,1e-4"], Path("odd, folder's")), CONFIG)
    with pytest.raises(KeyError, match="the nearest one is 'optimizer.lr'"):
        check(plan(["optimizer.lrr=1e-3,1e-4"], OUT), CONFIG)
    with pytest.raises(ValueError, match="optimizer.lr"):
        check(plan(["optimizer.lr=1e-3,fast"], OUT), CONFIG)


def test_a_run_is_finished_when_its_record_says_so(tmp_path):
    assert not is_finished(tmp_path)
    (tmp_path / "model_final.pth").touch()
    assert not is_finished(tmp_path)  # killed in its last evaluation
    (tmp_path / "results.json").touch()
    assert is_finished(tmp_path)
    for outcome in ("failed", "finished"):
        record = {"starts": [{"outcome": "finished"}, {"outcome": outcome}]}
        (tmp_path / "run.json").write_text(json.dumps(record))
        assert is_finished(tmp_path) == (outcome == "finished")
