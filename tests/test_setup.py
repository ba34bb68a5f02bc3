"""What is said about Python is said alike everywhere, and an older one is refused in one line."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

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
    return subprocess.run(
        ["make", "setup", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"},
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
