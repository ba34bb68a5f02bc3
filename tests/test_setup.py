"""Versions, the public CI and the map for contributors say what is true of the project."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
OLDEST = (3, 11)

# What a python of another version does with `-c CODE NAME`.
IMPOSTOR = """#!/bin/sh
exec {python} -c '
import sys
sys.version, sys.version_info, code = "{version} (main)", ({tuple}), sys.argv[2]
sys.argv = sys.argv[2:]
exec(code)' "$@"
"""


def make_setup(tmp_path: Path, version: str) -> subprocess.CompletedProcess:
    """Run `make setup` with a `python3` on the PATH that pretends to be of this version."""
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    numbers = ", ".join(version.split("."))
    python.write_text(IMPOSTOR.format(python=sys.executable, version=version, tuple=numbers))
    python.chmod(0o755)
    # without what the `make` tells its children that runs these tests, as `make test` does
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "setup", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        env={**environment, "PATH": f"{python.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("version", ["3.10.13", "2.7.18"])
def test_make_setup_refuses_an_older_python_in_one_line_and_makes_nothing(version, tmp_path):
    result = make_setup(tmp_path, version)
    assert result.returncode == 2
    assert not result.stdout
    line, of_make = result.stderr.splitlines()
    assert line == (
        f"mimdet needs Python 3.11 or newer, and python3 is {version}; name another one: "
        "make setup PYTHON=python3.13"
    )
    assert of_make.startswith("make: *** ")
    assert not (tmp_path / "venv").exists()


def test_the_oldest_python_is_the_same_everywhere():
    dotted, digits = ".".join(map(str, OLDEST)), "".join(map(str, OLDEST))
    lite = tomllib.loads((ROOT / "detectron2-lite/pyproject.toml").read_text())
    assert lite["project"]["requires-python"] == f">={dotted}"
    assert f'python_requires=">={dotted}"' in (ROOT / "setup.py").read_text()
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    assert ruff["target-version"] == f"py{digits}"
    assert f"sys.version_info >= {OLDEST}" in (ROOT / "Makefile").read_text()
    assert re.search(rf"Python {dotted}, .* and `make`", (ROOT / "README.md").read_text())


def test_the_public_ci_runs_the_oldest_and_the_newest_of_what_is_promised():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert set(workflow["jobs"]) == {"lint", "test", "demo"}
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    assert matrix == {"python": ["3.11", "3.13"], "torch": ["oldest", "newest"]}
    steps = workflow["jobs"]["test"]["steps"]
    file, test = re.search(r"--deselect=(\S+)::(\w+)", steps[-1]["env"]["DESELECT"]).groups()
    assert f"def {test}(" in (ROOT / file).read_text()
    pinned = yaml.dump(steps)
    packaging = (ROOT / "setup.py").read_text()
    for name in ("torch", "torchvision"):
        oldest = re.search(rf'"{name}>=([\d.]+)"', packaging)[1]
        assert f"{name}==.*/{name}=={oldest}.0/" in pinned


def test_the_checks_before_a_commit_have_the_pinned_style_checker():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (revision,) = (repo["rev"] for repo in hooks if "ruff" in repo["repo"])
    assert f"ruff=={revision.removeprefix('v')}\n" in (ROOT / "requirements.txt").read_text()


def test_the_map_for_contributors_names_every_folder_and_module():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = {cell for row in re.findall(r"^\| (`.+?) \|", text, re.M) for cell in row.split(", ")}
    package = ROOT / "mimdet"
    parts = [path for path in package.iterdir() if path.is_dir() or path.suffix == ".py"]
    names = {path.name for path in parts} - {"__init__.py", "__pycache__"}
    assert {f"`mimdet/{name}`" for name in names} == {c for c in table if "mimdet/" in c}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    folders = {line.split("/")[0] for line in tracked.splitlines() if "/" in line}
    visible = {name for name in folders if not name.startswith(".")}
    assert {f"`{name}`" for name in visible - {"mimdet"}} <= table
