"""What the two distributions are called, need and refuse."""

import re
import runpy
import site
import subprocess
import sys
import types
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def run_setup_of_lite(monkeypatch, *folders: Path) -> list[dict]:
    """Run lite's setup.py as for an environment of these folders -> the calls of `setup`."""
    calls = []
    stub = types.SimpleNamespace(setup=lambda **options: calls.append(options))
    monkeypatch.setitem(sys.modules, "setuptools", stub)
    monkeypatch.setattr(site, "getsitepackages", lambda: list(map(str, folders)))
    monkeypatch.setattr(site, "getusersitepackages", lambda: str(folders[0] / "none"))
    runpy.run_path(str(REPOSITORY / "detectron2-lite/setup.py"))
    return calls


def test_no_distribution_here_is_called_or_needs_detectron2():
    for name in ("setup.py", "detectron2-lite/pyproject.toml", "requirements.txt"):
        text = (REPOSITORY / name).read_text()
        # `detectron2 = [...]` is a key: the files of the package, which is called so.
        pattern = r'^ *(name = )?"?detectron2(?! = \[)(["<>=~!;\[ ]|$)'
        assert not re.search(pattern, text, re.MULTILINE), name


def test_lite_is_built_where_there_is_no_other_detectron2(monkeypatch, tmp_path):
    (tmp_path / "detectron2_lite-0.6.dist-info").mkdir()
    assert run_setup_of_lite(monkeypatch, tmp_path) == [{}]


@pytest.mark.parametrize("file", ["detectron2-0.6.dist-info/METADATA", "detectron2.egg-link"])
def test_lite_is_refused_beside_another_detectron2(file, monkeypatch, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("Metadata-Version: 2.1\nName: detectron2\nVersion: 0.6\n")
    with pytest.raises(SystemExit) as refused:
        run_setup_of_lite(monkeypatch, tmp_path / "first", tmp_path)
    message = str(refused.value)
    assert re.search(f"so does .*{re.escape(str(tmp_path))}.*: an environment holds one", message)
    assert message.endswith("pip uninstall detectron2")


def test_without_a_detectron2_the_first_import_of_it_says_what_to_do():
    code = "import mimdet; print('imported'); import detectron2.config"
    command = [sys.executable, "-S", "-c", code]  # -S: without installed packages
    run = subprocess.run(command, cwd=REPOSITORY, env={}, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "imported\n")
    assert "mimdet needs Detectron2, which is not installed. Either of two" in run.stderr
