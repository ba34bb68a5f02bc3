"""The ratio dial from a checkpoint to its page."""

import json
import re

import pytest
from toy_runs import CONFIG, isolated, load_script

tool = load_script("tools/ratio.py")


def run(*words) -> None:
    with isolated():
        tool.main([*map(str, words), "--device", "cpu"])


def test_a_checkpoint_gets_a_curve_on_the_images_of_a_folder(trained, toy_root, tmp_path, capsys):
    words = [trained / "model_final.pth", "--data", toy_root, "--output", tmp_path / "out"]
    words += ["--ratios", 1, 0.5, "--seeds", 2, "--rounds", 2, "--size", 64, 96]
    run(*words, "--max-seconds", 1000)
    shown = capsys.readouterr().out
    assert re.search(r"ratio +box AP +mask AP +time per image +peak memory\n +0.5 .* ± ", shown)
    assert "Within 17 min for an image use ratio " in shown
    data = json.loads((tmp_path / "out/ratio.json").read_text())
    half, full = data["points"]
    assert (half["ratio"], full["ratio"]) == (0.5, 1.0)
    # The run's own evaluation, of the same images: with half of the tokens, by seed 0.
    results = json.loads((trained / "results.json").read_text())
    for task in ("bbox", "segm"):
        assert half["AP"][task]["of_seeds"][0] == results[task]["AP"]
        assert len(full["AP"][task]["of_seeds"]) == 1
    assert data["timed"] == {**data["timed"], "size": [64, 96], "images": 6, "rounds": 2}
    assert data["settings"]["sampler"] == "random"
    page = (tmp_path / "out/ratio.html").read_text()
    assert page.count("<svg") == 4 and "at 64×96 pixels" in page

    with pytest.raises(SystemExit) as ended:
        run(*words[:5], "--ratios", 1, "--seeds", 1, "--rounds", 1, "--max-seconds", 1e-6)
    assert ended.value.code == 1
    assert "No ratio takes 0.001 ms or less for an image: the fastest" in capsys.readouterr().out
    # nothing is overwritten
    assert json.loads((tmp_path / "out/ratio.1.json").read_text()) == data


def test_a_config_is_timed_with_random_weights(tmp_path, capsys):
    words = ["--output", tmp_path, "--ratios", 0.25, 1, "--rounds", 1]
    run(CONFIG, *words, "--size", 64, 64, "+model.backbone.bottom_up.sampler=stratified")
    data = json.loads((tmp_path / "ratio.json").read_text())
    assert data["dataset"] is None and [point["AP"] for point in data["points"]] == [{}, {}]
    assert all(point["seconds"] > 0 for point in data["points"])
    assert data["settings"]["sampler"] == "stratified"
    assert "AP" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(CONFIG, *words)
    assert "say at which size to time (--size)" in capsys.readouterr().err
