"""Wheels of both distributions, installed into a new environment, work without the clone."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import own_folders
import pytest
from toy_runs import TINY

REPOSITORY = Path(__file__).parents[1]
CONFIG = "toy/mimdet_mask_rcnn_fpn_sr_0p5_toy"


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess:
    # without PYTHONPATH, by which the clone could be found
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(cwd)}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)


def build(source: Path, wheels: Path) -> None:
    """Build in a copy, because building leaves files in the folder of the source."""
    copy = wheels / f"source_{source.name}"
    ignored = shutil.ignore_patterns(".*", "output", "build", "*.egg-info", "tests", "__pycache__")
    shutil.copytree(source, copy, ignore=ignored)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir")
    built = run(sys.executable, "-m", "pip", "wheel", *options, wheels, copy, cwd=wheels)
    assert built.returncode == 0, built.stdout + built.stderr


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A new environment with both wheels; what they need it takes from the one of the tests."""
    root = tmp_path_factory.mktemp("wheel")
    wheels = root / "wheels"
    wheels.mkdir()
    for source in (REPOSITORY / "detectron2-lite", REPOSITORY):
        build(source, wheels)
    assert (
        run(sys.executable, "-m", "venv", "--without-pip", root / "venv", cwd=root).returncode == 0
    )
    python = root / "venv/bin/python"
    (packages,) = (root / "venv").glob("lib/python*/site-packages")
    # Behind the new packages, and without its own .pth files, which would bring the clone.
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index")
    installed = run(*pip, *wheels.glob("*.whl"), cwd=root)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    return root


def test_the_command_trains_on_own_images_and_predicts_in_any_folder(environment, tmp_path):
    mimdet = environment / "venv/bin/mimdet"
    truth = own_folders.sparse_ids(tmp_path / "own")
    overrides = [word for word in TINY if ".dataset.name=" not in word]
    overrides += ["train.max_iter=2", "train.report=True"]
    words = ("--config-file", CONFIG, "--data", "own", *overrides)
    trained = run(mimdet, "train", *words, cwd=tmp_path)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    printed = trained.stdout + trained.stderr
    assert str(REPOSITORY / "configs") not in printed and str(REPOSITORY / "mimdet") not in printed
    assert (tmp_path / "output/own/report.html").stat().st_size > 20_000  # the wheel has templates
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    checkpoint = tmp_path / "output/own/model_final.pth"
    images = truth.parents[1] / "val2017"
    words = (checkpoint, images, "--output", "found", "--score", 0, "--device", "cpu")
    predicted = run(mimdet, "predict", *words, cwd=elsewhere)
    assert predicted.returncode == 0, predicted.stdout + predicted.stderr
    found = json.loads((elsewhere / "found/predictions.json").read_text())
    assert {(entry["category_id"], entry["category_name"]) for entry in found} <= {
        (7, "blue"),
        (900, "red"),
    }
    assert found and len(list((elsewhere / "found").glob("*.jpg"))) == len(list(images.iterdir()))


def test_the_wheel_holds_every_config_and_tool_and_no_test(environment):
    (packages,) = (environment / "venv").glob("lib/python*/site-packages")
    for folder in ("configs", "tools"):
        own = {p.relative_to(REPOSITORY) for p in (REPOSITORY / folder).rglob("*.py")}
        assert {
            p.relative_to(packages / "mimdet") for p in (packages / "mimdet" / folder).rglob("*.py")
        } == own
    assert not list(packages.glob("tests*"))
