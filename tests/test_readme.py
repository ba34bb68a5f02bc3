"""Every command of README and config heads is one that the scripts take."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import toy_runs

from detectron2.config import LazyConfig

ROOT = Path(__file__).parents[1]
TOY = "configs/toy/mimdet_mask_rcnn_fpn_sr_0p5_toy.py"
PLACEHOLDERS = {"CONFIG": TOY, "PORT": "29500"}


def commands(path: Path) -> list[str]:
    """The indented `python ...` commands of a file, continued lines joined."""
    text = path.read_text().replace("\\\n", " ")
    return re.findall(r"^ {4}(python \S+\.py .*)$", text, flags=re.MULTILINE)


def documented() -> list:
    files = [ROOT / "README.md", *sorted((ROOT / "configs").rglob("*.py"))]
    return [
        pytest.param(f, c, id=f"{f.name}-{k}") for f in files for k, c in enumerate(commands(f))
    ]


@pytest.mark.parametrize("path, command", documented())
def test_a_documented_command_is_accepted(path, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name, value in {**PLACEHOLDERS, "(the same)": str(path)}.items():
        command = re.sub(rf"(?<=\s){re.escape(name)}(?=\s|$)", value, command)
    _, script, *arguments = shlex.split(command)
    assert (ROOT / script).is_file()
    if script == "lazyconfig_train_net.py":
        toy_runs.load_script(script).parse_args(arguments)


@pytest.mark.parametrize(
    "tool, shown", [("analyze_model", "roi_heads"), ("print_param_groups", "weight decay")]
)
def test_a_tool_runs_as_the_readme_says(tool, shown, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (command,) = (c for c in commands(ROOT / "README.md") if f"tools/{tool}.py" in c)
    _, script, *arguments = shlex.split(command)
    toy_runs.load_script(script).main(arguments)
    assert shown in capsys.readouterr().out


def test_the_config_for_own_data_in_the_readme_loads(tmp_path):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    path = tmp_path / "configs" / "mimdet" / "mine.py"
    path.write_text(code)
    cfg = LazyConfig.load(str(path))
    assert cfg.dataloader.train.dataset.name == "mine_train"
    assert cfg.model.roi_heads.mask_head.num_classes == 12
    assert "mae_checkpoint" in cfg


def test_paths_named_in_the_readme_exist():
    text = (ROOT / "README.md").read_text()
    for path in re.findall(r"`((?:configs|tools|tests|docs)/[\w./-]+\.\w+)`", text):
        assert (ROOT / path).exists() or path == "configs/mimdet/mine.py", path
