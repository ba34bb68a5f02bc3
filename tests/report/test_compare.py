"""Comparisons of run folders: settings that differ, verdicts, the page and the table."""

import json

import pytest
from detection_files import random_case, results_of, truth_of

from mimdet.report.compare import compare
from mimdet.report.compare_page import make_comparison, page_of, table_of
from mimdet.report.differences import config_differences, protocol_differences
from mimdet.report.models import Model, find_models
from mimdet.report.run_files import DETECTIONS, TRUTH

BOX, OTHER = (10, 10, 60, 60), (100, 100, 60, 60)
CASE = random_case(0)
PROTOCOL = {
    "weights": {"kind": "raw", "file": None, "iteration": 9},
    "sample_ratio": 0.5,
    "evaluator": {"COCOEvaluator": {"dataset_name": "val"}},
    "versions": {"torch": "2"},
}
CONFIG = """
model: {_target_: !!python/name:torch.nn.Linear '', lr: %s}
train: {output_dir: %s, seed: 0, sizes: [1, 2]}
"""


def run_in(folder, truth=CASE[0], results=CASE[1], ap=20.0, protocol=PROTOCOL, lr=0.1):
    """A run's folder with the files that a comparison reads."""
    folder.mkdir(parents=True)
    of_boxes = {**truth, "image_root": str(folder)}
    content = {"bbox": {"AP": ap, "AP-cat": 1.0}, "seconds_per_batch": 0.5, "protocol": protocol}
    for name, value in ((TRUTH, of_boxes), (DETECTIONS, results), ("results.json", content)):
        (folder / name).write_text(json.dumps(value))
    lines = [{"iteration": k, "total_loss": 2.0 - k / 10, "lr": lr} for k in range(10)]
    lines.append({"iteration": 9, "bbox/AP": ap})
    (folder / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    (folder / "config.yaml").write_text(CONFIG % (lr, folder))
    return folder


def without_masks(entries):
    return [{k: v for k, v in entry.items() if k != "segmentation"} for entry in entries]


def test_a_run_and_its_copy_are_alike_and_no_difference_is_shown(tmp_path):
    models = find_models([run_in(tmp_path / "a"), run_in(tmp_path / "b")])
    data = compare(models, resamples=20)
    assert data["protocol"] == {"is_known": True, "is_alike": True, "rules": [], "more": []}
    assert data["config"] == []
    for found in data["tasks"].values():
        pair = found["pairs"][0]
        assert (pair["first"], pair["second"], pair["images"]) == ("a", "b", [])
        assert pair["AP"] == {"value": 0, "low": 0, "high": 0, "verdict": "no difference shown"}
    assert set(data["tasks"]) == {"bbox", "segm"}
    assert "no difference shown" in table_of(data)


def test_a_better_run_is_higher_and_the_images_tell_where(tmp_path):
    truth = truth_of([[(0, BOX)], [(0, BOX), (1, OTHER)], [(1, OTHER)]])
    hit = [(0, BOX, 0.9)], [(0, BOX, 0.9), (1, OTHER, 0.8)], [(1, OTHER, 0.7)]
    poor = [(0, BOX, 0.9)], [(0, OTHER, 0.9)], []
    runs = [
        run_in(tmp_path / name, truth, results_of(found), ap)
        for name, found, ap in (("poor", poor, 20.0), ("good", hit, 100.0))
    ]
    data = compare(find_models(runs), resamples=100)
    found = data["tasks"]["bbox"]
    assert found["pairs"][0]["AP"]["value"] > 0
    assert found["pairs"][0]["classes"][1]["value"] == pytest.approx(100)  # of dogs, none was found
    images = found["pairs"][0]["images"]
    assert [entry["first"]["image_id"] for entry in images] == [2, 3]
    assert [entry["change"] for entry in images] == [-3, -1]  # two misses and a false alarm; a miss
    assert images[0]["first"]["misses"] == 2 and images[0]["second"]["misses"] == 0
    assert [row["AP"] for row in found["classes"]][1] == pytest.approx([0, 100])


def test_unlike_protocols_are_told_first_and_versions_are_no_rule(tmp_path):
    other = {**PROTOCOL, "sample_ratio": 1.0, "versions": {"torch": "3"}}
    models = find_models([run_in(tmp_path / "a"), run_in(tmp_path / "b", protocol=other, lr=0.2)])
    data = compare(models, resamples=5)
    assert data["protocol"]["rules"] == [{"setting": "sample_ratio", "values": [0.5, 1.0]}]
    assert [row["setting"] for row in data["protocol"]["more"]] == ["versions.torch"]
    assert data["config"] == [{"setting": "model.lr", "values": [0.1, 0.2]}]
    assert table_of(data).startswith("NOT EVALUATED ALIKE: sample_ratio is 0.5 | 1.0\n")
    page = page_of(data)
    assert page.index("sample_ratio") < page.index("What the images show</h2>")
    assert "<b>No.</b>" in page


def test_seeds_are_one_model_with_mean_and_deviation(tmp_path):
    for seed, ap in ((0, 10.0), (1, 14.0), (10, 12.0)):
        run_in(tmp_path / "many" / f"seed_{seed}", ap=ap)
    models = find_models([run_in(tmp_path / "one", ap=11.0), tmp_path / "many"])
    assert [run.name for run in models[1].runs] == ["seed_0", "seed_1", "seed_10"]
    data = compare(models, resamples=5)
    of_many = data["models"][1]["metrics"]["bbox/AP"]
    assert of_many == {"mean": 12, "deviation": 2, "count": 3}
    assert data["curves"]["bbox/AP"] == [[(9, 11)], [(9, 12)]]
    row = next(line for line in table_of(data).splitlines() if line.startswith("many"))
    assert row.split("  ")[0] == "many (3 seeds)" and "12.0 ± 2.0" in row
    assert data["tasks"]["bbox"]["pairs"][0]["seed_deviation"] is None  # one has a single seed


def test_a_mean_of_fewer_seeds_than_there_are_says_so(tmp_path):
    one = run_in(tmp_path / "one")
    many = [run_in(tmp_path / "many" / f"seed_{seed}") for seed in (0, 1)]
    (many[1] / "results.json").unlink()
    data = compare(find_models([one, tmp_path / "many"]), resamples=5)
    assert "20.0 (of 1)" in table_of(data) and "20.0 (of 1)" in page_of(data)
    assert table_of(data).count("(of 1)") == 2  # AP and time


def test_seeds_that_were_not_evaluated_alike_have_no_mean(tmp_path):
    one = run_in(tmp_path / "one")
    for seed, ratio in ((0, 0.5), (1, 1.0)):
        protocol = {**PROTOCOL, "sample_ratio": ratio, "versions": {"torch": str(seed)}}
        run_in(tmp_path / "many" / f"seed_{seed}", protocol=protocol)
    with pytest.raises(ValueError, match=r"sample_ratio is 0\.5 in .*seed_0 and 1\.0 in .*seed_1"):
        compare(find_models([one, tmp_path / "many"]))


def test_what_the_seeds_do_to_a_difference_stands_beside_it(tmp_path):
    truth = truth_of([[(0, BOX)]])
    hit, miss = results_of([[(0, BOX, 0.9)]]), results_of([[(0, OTHER, 0.9)]])
    for name, of_seeds in (("a", (hit, miss)), ("b", (hit, hit))):
        for seed, results in enumerate(of_seeds):
            run_in(tmp_path / name / f"seed_{seed}", truth, results)
    data = compare(find_models([tmp_path / "a", tmp_path / "b"]), resamples=5)
    pair = data["tasks"]["bbox"]["pairs"][0]
    # 100 and 0 deviate by 100 / sqrt(2), 100 and 100 not at all
    assert pair["seed_deviation"] == pytest.approx(70.71, abs=0.01)
    assert "+50.00 AP" in table_of(data) and "± 70.71 by the seeds" in table_of(data)


def test_what_cannot_be_compared_image_by_image_says_why(tmp_path):
    first, second = run_in(tmp_path / "a"), run_in(tmp_path / "b", truth_of([[], []]), [])
    data = compare(find_models([first, second]))
    assert data["tasks"] == {} and "was scored against other objects than" in data["why_not"]
    (second / TRUTH).write_text("[1]")
    data = compare(find_models([second, first]))
    assert "has no whole instances_truth.json" in data["why_not"]
    (second / TRUTH).unlink()
    data = compare(find_models([first, second]))
    assert "evaluations leave there: evaluate anew" in data["why_not"]
    (second / DETECTIONS).unlink()
    data = compare(find_models([first, second]))
    assert f"has no {DETECTIONS}" in data["why_not"]
    assert "No comparison image by image" in table_of(data)
    assert "There is no comparison image by image" in page_of(data)


def test_runs_without_results_are_compared_by_their_curves(tmp_path):
    folders = [run_in(tmp_path / name) for name in "ab"]
    for folder in folders:
        (folder / "results.json").unlink()
        (folder / DETECTIONS).unlink()
    data = compare(find_models(folders))
    assert not data["protocol"]["is_known"]
    assert "That is not known" in page_of(data) and "no run has results" in table_of(data)


def test_masks_are_compared_where_the_truth_has_them(tmp_path):
    truth = {**CASE[0], "annotations": without_masks(CASE[0]["annotations"])}
    models = find_models([run_in(tmp_path / name, truth) for name in "ab"])
    assert set(compare(models, resamples=2)["tasks"]) == {"bbox"}
    (tmp_path / "truth.json").write_text(json.dumps(CASE[0]))
    data = compare(models, tmp_path / "truth.json", resamples=2)
    assert set(data["tasks"]) == {"bbox", "segm"}
    with pytest.raises(FileNotFoundError, match="the truth must be in .*lost.json"):
        compare(models, tmp_path / "lost.json")
    (tmp_path / "truth.json").write_text("half")
    with pytest.raises(ValueError, match="the truth must be JSON, and .*truth.json is not"):
        compare(models, tmp_path / "truth.json")
    (tmp_path / "b" / DETECTIONS).write_text("[half")
    with pytest.raises(ValueError, match=f"the detections must be JSON, and .*b/{DETECTIONS}"):
        compare(models)


def test_page_and_json_are_written_and_names_are_escaped(tmp_path):
    runs = [run_in(tmp_path / name) for name in ("<b>a", "b")]
    page, _ = make_comparison(find_models(runs), tmp_path / "new" / "folder", resamples=2)
    assert sorted(path.name for path in page.parent.iterdir()) == ["compare.html", "compare.json"]
    text = page.read_text()
    assert "&lt;b&gt;a" in text and "<b>a" not in text
    assert json.loads((page.parent / "compare.json").read_text())["format"] == 1
    for word in ("<script", "http://", "https://", "src="):
        assert word not in text


def test_models_have_short_names_that_are_unlike(tmp_path):
    for name in ("x/run", "y/run", "z"):
        (tmp_path / name).mkdir(parents=True)
    names = [m.name for m in find_models([tmp_path / "x/run", tmp_path / "y/run"])]
    assert names == ["x/run", "y/run"]
    assert find_models([tmp_path / "x/run", tmp_path / "z"])[1] == Model("z", [tmp_path / "z"])


def test_folders_that_are_none_or_too_few_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="needs folders of runs, and .*lost is none"):
        find_models([tmp_path, tmp_path / "lost"])
    with pytest.raises(ValueError, match="two or more folders of runs, each once"):
        find_models([tmp_path])
    with pytest.raises(ValueError, match="two or more folders of runs, each once"):
        find_models([tmp_path, tmp_path])


def test_settings_are_compared_leaf_by_leaf_and_nothing_of_a_config_is_executed(tmp_path):
    hostile = f"a: !!python/object/apply:os.mkdir ['{tmp_path}/made']\nb: [{{c: 1}}, {{c: 2}}]"
    rows = config_differences([hostile, "b: [{c: 1}, {c: 3}]", "{}"])
    assert not (tmp_path / "made").exists()
    assert [row["setting"] for row in rows] == ["a", "b.0.c", "b.1.c"]
    assert rows[2]["values"] == [2, 3, None]


@pytest.mark.parametrize("config", ["", "{not yaml", "- 1", "a: !other b"])
def test_settings_are_not_known_where_a_config_cannot_be_read(config, tmp_path):
    assert config_differences(["a: 1", config]) is None
    runs = [run_in(tmp_path / name) for name in "ab"]
    (runs[1] / "config.yaml").write_text(config)
    assert "They are not known" in page_of(compare(find_models(runs), resamples=2))


def test_a_config_that_stands_for_more_than_it_holds_is_not_unfolded():
    lines = [
        "a0: &a0 [1, 1]",
        *(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 40)),
    ]
    assert config_differences(["\n".join(lines), "{}"]) is None


def test_a_run_without_a_protocol_differs_in_every_rule():
    rules, _ = protocol_differences([PROTOCOL, None])
    assert {"setting": "sample_ratio", "values": [0.5, None]} in rules
