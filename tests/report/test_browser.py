"""The report in a real browser: a silent console, and everything is drawn and readable."""

import json
import shutil

import browser
import detection_files
import numpy as np
import pytest
from PIL import Image

from mimdet.report.compare_page import make_comparison
from mimdet.report.models import find_models
from mimdet.report.page import make_report
from mimdet.report.run_files import DETECTIONS

WIDTHS = (400, 1600)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with everything that a report can show."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    truth, results = detection_files.random_case()
    truth["image_root"] = str(folder / "images")
    truth["categories"][0]["name"] = "a class with a name that is longer than most, in words"
    for image in truth["images"]:
        pixels = rng.integers(0, 256, (detection_files.SIDE, detection_files.SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / image["file_name"])
    (folder / "instances_truth.json").write_text(json.dumps(truth))
    (folder / "coco_instances_results.json").write_text(json.dumps(results))
    lines = [
        {"iteration": k, "total_loss": 3 / (k + 1), "loss_cls": 1 / (k + 1), "loss_mask": 0.5}
        | {"lr": 1e-4 * k, "grad_norm": 5.0, "[metric]images_per_second": 3.0, "time": 1.0}
        | {"seconds/forward": 0.5, "seconds/data": 0.1, "memory/process_gib": 1.5}
        for k in range(50)
    ]
    lines += [{"iteration": k, "bbox/AP": float(k), "bbox/AP50": 1.5 * k} for k in (20, 50)]
    (folder / "metrics.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    classes = {f"AP-{c['name']}": 10.0 for c in truth["categories"]}
    (folder / "results.json").write_text(json.dumps({"bbox": {"AP": 12.0, **classes}}))
    start = {"kind": "training", "command": "mimdet train " + "x" * 300, "outcome": "finished"}
    start |= {"plan": ["3 classes"], "warnings": ["few"], "problems": [], "started": "2020-01-01"}
    (folder / "run.json").write_text(json.dumps({"starts": [start] * 2}))
    images = rng.integers(0, 256, (4, 64, 64, 3), np.uint8)
    kept = {"image_0": images[0], "kept_0": rng.random((4, 4)) < 0.5, "tokens_0": np.array([4, 4])}
    np.savez(folder / "kept_tokens_training.npz", **kept)
    painted = {"images": images, "reconstructions": images, "removed": images[..., 0] < 128}
    np.savez(folder / "reconstructions_0000009.npz", **painted)
    return folder


def test_everything_is_drawn_and_readable_at_both_widths(run, tmp_path):
    page = make_report(run)
    assert page.stat().st_size < 5e6
    found, console = browser.look_at(page, tmp_path, *WIDTHS)
    assert console == []
    worst = len(json.loads((run / "report.json").read_text())["detections"]["worst"]["images"])
    assert worst == 11
    for width in WIDTHS:
        seen = found[str(width)]
        assert seen["broken"] == [] and seen["empty"] == 0
        assert seen["pictures"] == worst + 1 + 3  # and tokens, and rows of reconstructions
        assert seen["charts"] == 8
        assert seen["overflow"] == 0
        assert seen["smallest_text"] >= 9  # pixels


def test_a_comparison_is_drawn_and_readable_at_both_widths(run, tmp_path):
    other = tmp_path / "with_fewer_detections"
    shutil.copytree(run, other)
    results = json.loads((run / DETECTIONS).read_text())
    (other / DETECTIONS).write_text(json.dumps(results[::3]))
    page, _ = make_comparison(find_models([run, other]), tmp_path / "compared", resamples=20)
    found, console = browser.look_at(page, tmp_path, *WIDTHS)
    assert console == []
    data = json.loads((page.parent / "compare.json").read_text())
    assert set(data["tasks"]) == {"bbox", "segm"}
    images = data["tasks"]["bbox"]["pairs"][0]["images"]
    for width in WIDTHS:
        seen = found[str(width)]
        assert seen["broken"] == [] and seen["empty"] == 0
        assert seen["pictures"] == len(images) == 6
        assert seen["charts"] == 3  # loss, learning rate, box AP
        assert seen["overflow"] == 0
        assert seen["smallest_text"] >= 9  # pixels


def test_the_test_sees_what_is_wrong_with_a_page(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        '<body><div style="width:900px">x</div><img src="data:image/png;base64,AAAA">'
        '<svg class="chart" viewBox="0 0 1000 9"><text font-size="5" y="5">a</text></svg>'
        "<script>console.error('oh')</script></body>"
    )
    found, console = browser.look_at(page, tmp_path, 400)
    assert any("oh" in line for line in console)
    seen = found["400"]
    assert len(seen["broken"]) == 1 and seen["overflow"] > 0 and seen["smallest_text"] < 9
