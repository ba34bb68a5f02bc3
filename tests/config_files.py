"""The config files, and what tests of them have in common."""

import ast
from functools import partial
from pathlib import Path

import pytest
import torch
from golden_models import CONFIGS
from omegaconf import OmegaConf
from torch import nn

from detectron2.config import LazyConfig, instantiate
from detectron2.utils.registry import locate

REPOSITORY = CONFIGS.parent
FILES = sorted(set(CONFIGS.rglob("*.py")) - set((CONFIGS / "common").rglob("*.py")))


def path_of(stem: str) -> Path:
    """The config file of that name."""
    (path,) = (p for p in FILES if p.stem == stem)
    return path


def alias_target(path: Path) -> Path | None:
    """The file that `path` imports when it does nothing else."""
    body = ast.parse(path.read_text()).body
    statements = [s for s in body if not isinstance(s, ast.Expr)]
    if len(statements) == 1 and isinstance(statements[0], ast.ImportFrom):
        return path.with_name(f"{statements[0].module}.py")
    return None


def head_of(path: Path) -> str:
    """The docstring of a file."""
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def load_stem(stem: str):
    """The config of a file, by its name without folder and ending."""
    return LazyConfig.load(str(path_of(stem)))


def build_on_meta(cfg) -> nn.Module:
    """The model of a config, without memory for its weights."""
    with torch.device("meta"):
        return instantiate(cfg.model)


def state_dict_rows(model: nn.Module) -> dict[str, list]:
    """name -> [shape, dtype, "param" or "buffer", whether it is trained]."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    rows = {}
    for name, value in model.state_dict().items():
        kind = "param" if name in parameters else "buffer"
        trained = name in parameters and parameters[name].requires_grad
        rows[name] = [list(value.shape), str(value.dtype).removeprefix("torch."), kind, trained]
    return rows


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Number of all parameters and of those that are trained."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


def plain(node):
    """A config as plain values, with callables instead of their names."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node)
    if isinstance(node, dict):
        target = node.get("_target_")
        known = {"_target_": locate(target)} if isinstance(target, str) else {}
        return {key: plain(value) for key, value in (node | known).items()}
    if isinstance(node, partial):  # two of them are never equal
        return [node.func, node.args, node.keywords]
    return [plain(value) for value in node] if isinstance(node, list | tuple) else node


def parametrize(paths):
    """A test for each of these files, named after it."""
    paths = sorted(paths)
    return pytest.mark.parametrize("path", paths, ids=[p.stem for p in paths])


SYSTEMS = [p for p in FILES if not alias_target(p)]
ALIASES = [p for p in FILES if alias_target(p)]
