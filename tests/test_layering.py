"""Who may import whom, read from the source without running it."""

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

_EVERYWHERE = {"torch", "timm", "einops", "numpy", "fvcore"}
_BELOW_ANALYSIS = {
    f"mimdet.{part}"
    for part in (
        *("layers", "modeling", "pretraining", "checkpoint", "solver", "data", "evaluation"),
        *("engine", "report", "config", "command_line", "shown", "progress", "whole_files"),
    )
}

# part -> what it may import besides the standard library and itself
ALLOWED = {
    "mimdet": {"mimdet.analysis.predictor"},  # once it is asked for
    "mimdet.whole_files": set(),
    "mimdet.shown": set(),
    "mimdet.progress": {"tqdm"},
    "mimdet.layers": _EVERYWHERE,
    "mimdet.modeling": _EVERYWHERE
    | {"mimdet.layers", "detectron2.modeling", "detectron2.layers", "detectron2.structures"}
    | {"detectron2.utils.events"},  # which iteration it is, as Detectron2's own models ask
    "mimdet.pretraining": _EVERYWHERE | {"mimdet.layers"},  # backbones only through the contract
    # files at addresses are kept where Detectron2 keeps them
    "mimdet.checkpoint": _EVERYWHERE
    | {"mimdet.layers.pos_embed", "mimdet.layers.rel_pos", "mimdet.whole_files", "mimdet.shown"}
    | {"detectron2.checkpoint", "detectron2.utils.file_io"},
    "mimdet.solver": _EVERYWHERE | {"detectron2.solver"},
    # ranks; instances; pictures, run-length masks and polygons; annotation files
    "mimdet.data": _EVERYWHERE
    | {"detectron2.data", "detectron2.structures", "detectron2.utils"}
    | {"PIL", "pycocotools", "shapely", "msgspec", "yaml"}
    | {"mimdet.whole_files", "mimdet.shown", "mimdet.progress", "mimdet.yaml_check"},
    # preflight compares config, data and files before anything is built
    "mimdet.engine": _EVERYWHERE
    | {"detectron2.engine", "detectron2.utils", "detectron2.config", "detectron2.data"}
    | {"detectron2.evaluation.COCOEvaluator"}
    | {"mimdet.data", "mimdet.checkpoint", "mimdet.evaluation", "mimdet.config", "omegaconf"}
    | {"mimdet.whole_files", "mimdet.shown", "mimdet.progress", "mimdet.report", "tqdm"}
    | {"mimdet.layers.block.Block"}  # what may be compiled
    | {"detectron2.structures.ImageList"},  # images without content
    "mimdet.evaluation": _EVERYWHERE
    | {"detectron2.evaluation", "detectron2.utils"}
    | {"detectron2.__version__", "mimdet.__version__", "mimdet.whole_files"},
    "mimdet.analysis": _EVERYWHERE
    | _BELOW_ANALYSIS
    | {"detectron2", "omegaconf", "PIL", "torchvision"}
    | {"mimdet.report"}  # the files of a run
    | {"av", "supervision", "safetensors"},  # extras
    # a report can be made where there is neither torch nor Detectron2
    "mimdet.report": {"numpy", "pycocotools", "PIL", "jinja2", "markupsafe", "yaml"}
    | {"mimdet.whole_files", "mimdet.progress"},
    "mimdet.config": {
        "mimdet.find_config",
        "mimdet.trusted",
        "mimdet.yaml_check",
        "detectron2.config",
        "omegaconf",
        "hydra",
        "cloudpickle",
        "yaml",
    },
    "mimdet.command_line": {"omegaconf", "mimdet.whole_files"},
    # the command lists its subcommands, and says what is missing, where nothing is installed
    "mimdet.installed": set(),
    "mimdet.find_config": {"mimdet.installed"},
    "mimdet.trusted": {"omegaconf"},
    "mimdet.yaml_check": {"mimdet.trusted", "yaml"},
    "mimdet.__main__": {"mimdet.installed"},
    "configs": _EVERYWHERE | {"mimdet", "detectron2", "omegaconf"},
    "tools": _EVERYWHERE | {"mimdet", "detectron2", "omegaconf", "torchvision", "PIL"},
    "lazyconfig_train_net": _EVERYWHERE | {"mimdet", "detectron2", "omegaconf"},
    "detectron2": {
        *("torch", "torchvision", "fvcore", "iopath", "omegaconf", "hydra", "pycocotools"),
        *("numpy", "PIL", "shapely", "faster_coco_eval"),
        # what the libraries above bring along
        *("cloudpickle", "tabulate", "termcolor", "yaml"),
    },
}

ROOTS = {
    "mimdet": REPOSITORY / "mimdet",
    "configs": REPOSITORY / "configs",
    "tools": REPOSITORY / "tools",
    "detectron2": REPOSITORY / "detectron2-lite/detectron2",
}


def modules() -> dict[str, Path]:
    """Dotted name -> file of all product code."""
    found = {"lazyconfig_train_net": REPOSITORY / "lazyconfig_train_net.py"}
    for root, folder in ROOTS.items():
        for path in folder.rglob("*.py"):
            names = path.relative_to(folder).with_suffix("").parts
            found[".".join([root, *(n for n in names if n != "__init__")])] = path
    return found


def part_of(name: str) -> str:
    """The row of the table to which a dotted name belongs; of mimdet its first two components."""
    first, *rest = name.split(".")
    return ".".join([first, *rest[:1]]) if first == "mimdet" else first


def imports(name: str, path: Path) -> Iterator[str]:
    """Dotted names that a file imports, as far as `from x import y` tells: `x.y`."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def is_inside(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def violations(name: str, path: Path) -> list[str]:
    part = part_of(name)
    return [
        f"{name} imports {imported}"
        for imported in imports(name, path)
        if imported.split(".")[0] not in sys.stdlib_module_names
        and not any(is_inside(imported, allowed) for allowed in {part, *ALLOWED[part]})
    ]


MODULES = modules()


def test_every_part_has_a_row_in_the_table():
    assert len(MODULES) > 100
    assert {part_of(name) for name in MODULES} <= ALLOWED.keys()


@pytest.mark.parametrize("part", sorted({part_of(name) for name in MODULES}))
def test_part_imports_only_what_its_row_lists(part):
    files = {name: path for name, path in MODULES.items() if part_of(name) == part}
    found = [v for name, path in files.items() for v in violations(name, path)]
    assert not found, "\n".join(found)


def test_parts_of_mimdet_do_not_import_in_circles():
    graph: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        used = {part_of(i) for i in imports(name, path) if is_inside(i, "mimdet")}
        graph.setdefault(part_of(name), set()).update(used - {part_of(name)})
    order = list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names a circle
    assert order.index("mimdet.layers") < order.index("mimdet.modeling")


def test_modules_of_mimdet_do_not_import_in_circles():
    names = [name for name in MODULES if is_inside(name, "mimdet")]
    graph = {
        name: {
            max((n for n in names if is_inside(i, n)), key=len)
            for i in imports(name, MODULES[name])
            if is_inside(i, "mimdet")
        }
        for name in names
    }
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("script", ["tools", "lazyconfig_train_net"])
def test_scripts_are_imported_by_nothing(script):
    found = [n for n, path in MODULES.items() for i in imports(n, path) if is_inside(i, script)]
    assert not found


def test_configs_are_imported_only_by_configs():
    users = {
        part_of(name)
        for name, path in MODULES.items()
        if any(is_inside(i, "configs") for i in imports(name, path))
    }
    assert users == {"configs"}


def test_relative_imports_of_configs_name_files():
    for name, path in MODULES.items():
        for imported in imports(name, path):
            if is_inside(imported, "configs"):
                assert imported.rpartition(".")[0] in MODULES, f"{name} imports {imported}"
                assert path.stem.isidentifier()


def test_lite_knows_neither_mimdet_nor_timm():
    for name, path in MODULES.items():
        if is_inside(name, "detectron2"):
            assert not {"mimdet", "timm"} & {i.split(".")[0] for i in imports(name, path)}, name


@pytest.mark.parametrize("text", ["sys.path", "detectron2.__version__"])
def test_nothing_but_lite_touches_the_import_path_or_asks_for_the_provider(text):
    for name, path in MODULES.items():
        nodes = ast.walk(ast.parse(path.read_text()))
        used = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
        assert is_inside(name, "detectron2") or text not in used, name


@pytest.mark.parametrize(
    "source, imported",
    [
        ("import mimdet.modeling.meta_arch", "mimdet.modeling.meta_arch"),
        ("import mimdet.data.toy as t", "mimdet.data.toy"),
        ("from mimdet import data", "mimdet.data"),
        ("from ..data import toy", "mimdet.data.toy"),
        ("from .. import data", "mimdet.data"),
        ("def f():\n    import tools", "tools"),
        ("if True:\n    from detectron2.data import build", "detectron2.data.build"),
        ("import mimdet", "mimdet"),
    ],
)
def test_the_check_sees_an_import_in_every_form(source, imported, tmp_path):
    path = tmp_path / "block.py"
    path.write_text(source)
    assert violations("mimdet.layers.block", path) == [f"mimdet.layers.block imports {imported}"]


@pytest.mark.parametrize(
    "source", ["from . import attention", "from mimdet.layers.attention import A", "import json"]
)
def test_the_check_lets_a_part_import_itself_and_the_standard_library(source, tmp_path):
    path = tmp_path / "block.py"
    path.write_text(source)
    assert violations("mimdet.layers.block", path) == []
