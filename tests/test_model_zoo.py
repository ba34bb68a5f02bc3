"""MODEL_ZOO.md says of every config what the head of its file says, which other tests hold."""

import re
from pathlib import Path

import pytest
from config_files import REPOSITORY, SYSTEMS, head_of, parametrize

ZOO = (REPOSITORY / "MODEL_ZOO.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in ZOO.splitlines()
    if line.startswith("| `")
]
PUBLISHED = [p for p in SYSTEMS if p.parent.name not in ("toy", "baselines")]
SEGMENTORS = [p for p in PUBLISHED if p.stem.startswith("upernet")]
_AP = r"Published \(not reproduced here\): ([\d.]+) box AP(?:, ([\d.]+) mask AP)?"


def cells_behind(stem: str) -> list[str]:
    """The cells of a config's row from its own on."""
    (row,) = (row for row in ROWS if f"`{stem}`" in row)
    return row[row.index(f"`{stem}`") + 1 :]


def counted(path: Path) -> str:
    return re.search(r"Counted here: ([\d,]+)\s+parameters", head_of(path))[1]


@parametrize(PUBLISHED)
def test_the_zoo_has_the_counted_parameters_of_every_config(path):
    numbers = [cell for cell in cells_behind(path.stem) if re.fullmatch(r"\d[\d,]*", cell)]
    assert numbers[0] == counted(path)


def test_the_zoo_has_the_counted_parameters_of_the_baselines():
    text = ZOO.split("## Baselines")[1]
    paths = [p for p in SYSTEMS if p.parent.name == "baselines"]
    assert {counted(path) for path in paths} == set(re.findall(r"\d+,\d{3},\d{3}", text))


@parametrize(
    [p for p in PUBLISHED if p.parent.name not in ("pretrain", "finetune") and p not in SEGMENTORS]
)
def test_the_zoo_has_the_published_ap_of_every_detector(path):
    published = re.search(_AP, head_of(path).replace("\n", " "))
    wanted = [ap or "–" for ap in published.groups()] if published else ["–", "–"]
    cells = [cell for cell in cells_behind(path.stem) if re.fullmatch(r"\d\d\.\d|–", cell)]
    assert cells == wanted


@parametrize([p for p in PUBLISHED if p.parent.name == "finetune"])
def test_the_zoo_has_the_published_accuracy_of_every_classifier(path):
    published = re.search(r"Published \(not reproduced here\): ([\d.]+) top-1", head_of(path))
    assert cells_behind(path.stem)[1] == published[1]


@parametrize(SEGMENTORS)
def test_the_zoo_has_the_published_miou_of_every_segmentor(path):
    published = re.search(r"Published \(not reproduced here\): mIoU ([\d.]+)", head_of(path))
    assert cells_behind(path.stem)[0] == published[1]


def test_the_zoo_knows_no_other_config():
    named = {name for row in ROWS for cell in row for name in re.findall(r"^`(\w+)`$", cell)}
    assert named == {path.stem for path in PUBLISHED}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("`"))
def test_nothing_in_the_zoo_is_called_reproduced(row):
    assert row[-1] == "no"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"configs/\w+/\w+\.py", ZOO))))
def test_configs_of_released_files_exist(path):
    assert (REPOSITORY / path).exists()
