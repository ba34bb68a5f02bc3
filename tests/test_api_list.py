"""detectron2-lite/API.md against what lite has and what this repository imports."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.lite

REPOSITORY = Path(__file__).parents[1]
FOLDERS = ("mimdet", "configs", "tools")


def listed() -> dict[str, set[str]]:
    """Module -> its names, from headings and first columns of tables, and from the last list."""
    names: dict[str, set[str]] = {}
    for line in (REPOSITORY / "detectron2-lite/API.md").read_text().splitlines():
        if heading := re.fullmatch(r"## `([\w.]+)`", line):
            module = heading[1]
            assert module not in names, f"{module} has two headings"
            names[module] = set()
        elif line.startswith("| `"):
            cells = line.strip("|").split("|")
            assert len(cells) == 3, line
            found = re.findall(r"`(\w+)`", cells[0])
            assert not names[module] & {*found}, f"listed twice: {line}"
            names[module].update(found)
        elif item := re.fullmatch(r"- `([\w.]+)`: (.+)", line):
            names[item[1]] = {*re.findall(r"`(\w+)`", item[2])}
    return names


LISTED = listed()


def product_files() -> list[Path]:
    files = [path for name in FOLDERS for path in (REPOSITORY / name).rglob("*.py")]
    return [REPOSITORY / "lazyconfig_train_net.py", *files]


def uses(source: str) -> Iterator[tuple[str, str]]:
    """(module, name) of every name of detectron2 that a file imports or takes from a module."""
    modules = {}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "detectron2":
            for alias in node.names:
                yield node.module, alias.name
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            modules.update({alias.asname: alias.name for alias in node.names if alias.asname})
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id, "")
            if module in LISTED:  # else an attribute of a class or of another library
                yield module, node.attr


def exports(module: ModuleType) -> set[str]:
    """The public names of a module that says which they are, or of a package, modules left out."""
    if not hasattr(module, "__path__"):
        return {*getattr(module, "__all__", ())}
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }


def is_listed(module: str, name: str) -> bool:
    return name in LISTED.get(module, ()) or f"{module}.{name}" in LISTED


@pytest.mark.parametrize("module", sorted(LISTED))
def test_every_listed_name_can_be_imported(module):
    imported = importlib.import_module(module)
    assert LISTED[module], f"{module} has no names"
    assert not [name for name in LISTED[module] if not hasattr(imported, name)]


@pytest.mark.lite
@pytest.mark.parametrize("module", sorted(LISTED))
def test_every_name_that_a_listed_module_exports_is_listed(module):
    internal = {"atomic_write", "load_coco_api"}  # for lite's own files
    missing = exports(importlib.import_module(module)) - LISTED[module] - internal
    assert not missing, f"write rows for {sorted(missing)} below the heading {module}"


@pytest.mark.parametrize(
    "path", product_files(), ids=lambda path: str(path.relative_to(REPOSITORY))
)
def test_everything_imported_from_detectron2_is_listed(path):
    missing = [
        f"{module}.{name}" for module, name in uses(path.read_text()) if not is_listed(module, name)
    ]
    assert not missing, f"write rows for {missing} into detectron2-lite/API.md"


@pytest.mark.parametrize(
    "source, used",
    [
        ("from detectron2.layers import cat as c", ("detectron2.layers", "cat")),
        ("def f():\n    from detectron2 import data", ("detectron2", "data")),
        (
            "import detectron2.data.transforms as T\nT.Gone()",
            ("detectron2.data.transforms", "Gone"),
        ),
        ("from detectron2.utils import comm\ncomm.gone()", ("detectron2.utils.comm", "gone")),
    ],
)
def test_the_check_sees_a_use_in_every_form(source, used):
    assert used in [*uses(source)]
