"""The page of a run: one file that needs nothing else, made without torch."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mimdet.report.page import make_report

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path):
    """A run of ten iterations with two evaluations and results."""
    folder = tmp_path / "my run"
    folder.mkdir()
    lines = [{"iteration": k, "total_loss": 2.0 / (k + 1), "lr": 0.1} for k in range(10)]
    lines += [{"iteration": k, "bbox/AP": float(k), "bbox/AP50": 2.0 * k} for k in (4, 9)]
    (folder / "metrics.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    results = {"bbox": {"AP": 12.34, "APl": None}, "protocol": {"sample_ratio": 0.5}}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_the_page_needs_nothing_else(run):
    page = make_report(run).read_text()
    assert not re.search(r"<script|<link(?! rel=\"icon\" href=\"data:,\")|@import|https?:", page)
    assert "default-src 'none'" in page
    assert "12.3" in page and "sample_ratio" in page
    data = json.loads((run / "report.json").read_text())
    assert data["format"] == 1 and data["name"] == "my run"


def test_what_comes_from_a_run_is_text(run):
    hostile = "<script>alert(1)</script>"
    start = {"kind": hostile, "command": hostile, "plan": [hostile], "error": hostile}
    (run / "run.json").write_text(json.dumps({"starts": [start, start]}))
    results = {hostile: {hostile: 1.0, f"AP-{hostile}": 1.0}, "protocol": {hostile: hostile}}
    (run / "results.json").write_text(json.dumps(results))
    (run / "config.yaml").write_text(hostile)
    assert "<script" not in make_report(run).read_text()


def test_a_report_needs_neither_torch_nor_detectron2(run):
    code = (
        "import sys; sys.modules |= dict.fromkeys(('torch', 'detectron2', 'timm'));"
        "from mimdet.report.page import make_report; print(make_report(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, run], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_file()


def test_damaged_files_cost_their_part_of_the_page_alone(run):
    for name in ("kept_tokens_training.npz", "reconstructions_0000009.npz", "instances_truth.json"):
        (run / name).write_text("[1]")
    (run / "coco_instances_results.json").write_text("[1]")
    page = make_report(run).read_text()
    assert "12.3" in page and "could not be analysed" in page


def test_a_report_in_another_folder_leaves_that_of_the_run_alone(run, tmp_path):
    before = sorted(run.iterdir())
    page = make_report(run, tmp_path / "elsewhere/reports")
    assert page.parent == tmp_path / "elsewhere/reports" and page.is_file()
    assert sorted(run.iterdir()) == before
