"""What the documents tell a reader to type is accepted: commands by their parsers, keys by configs.

`documents.py` collects it; every problem is one line with the document and the words.
"""

import atexit
import contextlib
import copy
import dataclasses
import fnmatch
import functools
import importlib
import importlib.util
import inspect
import io
import re
import shutil
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from config_files import FILES, REPOSITORY
from documents import Document, Override, documents
from omegaconf import DictConfig, OmegaConf
from toy_runs import load_script

from detectron2.config import LazyConfig
from detectron2.utils.registry import locate
from mimdet.__main__ import _TOOLS, _TRAINING
from mimdet.analysis.param_groups import param_groups_of_config
from mimdet.analysis.sweep import plan
from mimdet.config import AUTO, SWITCHES, apply_overrides
from mimdet.data.toy import ToyDataset, make_toy_dataset
from mimdet.find_config import find_config

DOCUMENTS = documents()
TRAIN_NET = "lazyconfig_train_net.py"
# Programs of others, whose words are not ours to check.
FOREIGN = {"git", "cd", "rm", "pip"}


# --- Keys and values ------------------------------------------------------------------------------


@functools.cache
def config(path: Path) -> DictConfig:
    """The config of a file; not to be changed."""
    return LazyConfig.load(str(path))


@functools.cache
def keys_of(path: Path) -> frozenset[str]:
    def walk(node: Any, prefix: str) -> Iterator[str]:
        if isinstance(node, list):
            node = dict(enumerate(node))
        for name, value in node.items() if isinstance(node, dict) else ():
            yield f"{prefix}{name}"
            yield from walk(value, f"{prefix}{name}.")

    return frozenset(walk(OmegaConf.to_container(config(path)), ""))


def is_of_the_kind(value: Any, default: Any) -> bool:
    """Whether `value` may stand where a config has `default`."""
    if value is None or default is None or OmegaConf.is_dict(default) or callable(default):
        return True  # an option that is off, and a part that may give way to anything
    if OmegaConf.is_list(default) or isinstance(default, list | tuple):
        return OmegaConf.is_list(value) or isinstance(value, list | tuple)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def is_parameter(cfg: DictConfig, key: str) -> bool:
    """Whether what the config calls at the parent of `key` takes an argument of that name."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent)
    target = node.get("_target_") if OmegaConf.is_dict(node) else None
    target = locate(target) if isinstance(target, str) else target
    parameters = inspect.signature(target).parameters if target else {}
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


RANGES = {"model.backbone.bottom_up.sample_ratio"}  # keys that take [lowest, highest] too


def refusal(override: Override, path: Path) -> str | None:
    """Why the config of this file does not take the override; None if it does."""
    cfg = config(path)
    if override.is_new:
        return None if is_parameter(cfg, override.key) else f"nothing reads {override.key}"
    if "." not in override.key:  # the last part of a key
        ends = [key for key in keys_of(path) if key.endswith(f".{override.key}")]
        whole = [dataclasses.replace(override, key=key) for key in ends]
        reasons = [refusal(o, path) for o in whole] or [f"no key ends in {override.key}"]
        return None if None in reasons else reasons[0]
    if not fnmatch.filter(keys_of(path), override.key):
        return f"there is no {override.key}"
    if override.value is None:
        return None
    try:
        changed = apply_overrides(copy.deepcopy(cfg), [override.text])
    except (KeyError, ValueError) as e:
        return str(e.args[0])
    before, after = (OmegaConf.select(c, override.key) for c in (cfg, changed))
    if override.key in RANGES and OmegaConf.is_list(after):
        after, _ = after  # the lowest and the highest
    if override.key.endswith(SWITCHES) and before == AUTO:
        before = True  # what "auto" stands for
    if not is_of_the_kind(after, before):
        return f"{override.text} must be like {before!r}, it is a {type(after).__name__}"
    return None


def refused_by_all(override: Override, configs: list[Path]) -> str | None:
    """Why no one of the configs takes the override; None if one does."""
    reasons = []
    for path in configs:
        reasons.append(refusal(override, path))
        if reasons[-1] is None:
            return None
    # of a config that has the key, if there is one
    return min(reasons, key=lambda reason: reason.startswith("there is no"))


# --- Commands -------------------------------------------------------------------------------------


class Parsed(BaseException):
    """Ends a program when it has read its command line; its own `except` does not catch this."""


def stopping(parse: Callable[..., Namespace]) -> Callable:
    def method(*args, **kwargs):
        raise Parsed(parse(*args, **kwargs))

    return method


@functools.cache
def own_data() -> Path:
    """What stands for a reader's own data."""
    root = Path(tempfile.mkdtemp()) / "data"
    make_toy_dataset(root, ToyDataset(num_train=4, num_val=2))
    atexit.register(shutil.rmtree, root.parent)
    return root


def arguments_of(program: str, words: list[str]) -> Namespace:
    """What a script or a module of ours reads from its command line, or SystemExit."""
    is_script = program.endswith(".py")
    module = load_script(program) if is_script else importlib.import_module(program)
    if program == TRAIN_NET:
        if "--data" in words:
            words[words.index("--data") + 1] = str(own_data())
        return module.parse_args(words)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("parse_args", "parse_intermixed_args"):
            patch.setattr(ArgumentParser, name, stopping(getattr(ArgumentParser, name)))
        with pytest.raises(Parsed) as parsed:
            module.main(words)
    return parsed.value.args[0]


def refusal_of_python(program: str, words: list[str]) -> str | None:
    """Why a script or module of ours does not take these words; None if it does."""
    if program.endswith(".py") and not (REPOSITORY / program).is_file():
        return f"there is no {program}"
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            arguments = vars(arguments_of(program, words))
    except SystemExit:
        return printed.getvalue().splitlines()[-1]
    texts = arguments.get("opts", ())
    if program == "tools/sweep.py":  # each of its values is an override
        settings = plan(texts, Path("output"))
        texts = dict.fromkeys(text for setting in settings for text in setting.overrides)
    overrides = [_override(text) for text in texts]
    path = find_config(arguments.get("config_file") or arguments["config"]) if overrides else ""
    reasons = (refusal(override, REPOSITORY / path) for override in overrides)
    return next((reason for reason in reasons if reason), None)


def _override(text: str) -> Override:
    key, _, value = text.partition("=")
    return Override(key.removeprefix("+"), value, is_new=key.startswith("+"))


def refusal_of_make(words: list[str]) -> str | None:
    """Why the Makefile has not such a target or variable; None if it has."""
    makefile = (REPOSITORY / "Makefile").read_text()
    (targets,) = re.findall(r"^\.PHONY: (.+)$", makefile, flags=re.MULTILINE)
    variables = re.findall(r"\$\((\w+)\)", makefile)
    unknown = [w for w in words if w.partition("=")[0] not in {*targets.split(), *variables}]
    return f"the Makefile has no {unknown[0]}" if unknown else None


def script_of(subcommand: str) -> tuple[str | None, list[str]]:
    """The script of a subcommand of `mimdet`, and the words that it begins with."""
    if subcommand in _TRAINING:
        return TRAIN_NET, _TRAINING[subcommand][0]
    tool = _TOOLS.get(subcommand)
    return tool and f"tools/{tool}.py", []


def refusal_of_command(command: list[str]) -> str | None:
    """Why a command does not work; None if it does, or is a command of others."""
    program, *words = command
    if program == "torchrun":
        first = next(n for n, word in enumerate(words) if word.endswith(".py"))
        return refusal_of_python(words[first], words[first + 1 :])
    if program == "make":
        return refusal_of_make(words)
    if program == "mimdet":
        script, fixed = script_of(words[0])
        return refusal_of_python(script, [*fixed, *words[1:]]) if script else f"no {words[0]}"
    if program == "python" and words[0] != "-m":
        return refusal_of_python(words[0], words[1:])
    if program == "python" and words[1].startswith("benchmarks."):
        return refusal_of_python(words[1], words[2:])
    if program == "python":
        return None if importlib.util.find_spec(words[1]) else f"there is no module {words[1]}"
    return None if program in FOREIGN else f"{program} is no program that documents may use"


# --- The documents --------------------------------------------------------------------------------


def problems(document: Document) -> list[str]:
    """All that a reader of the document would type in vain."""
    commands = [(" ".join(c), refusal_of_command(c)) for c in document.commands()]
    overrides = [(o.text, refused_by_all(o, document.configs)) for o in document.overrides()]
    return [f"{document.name}: {w}: {why}" for w, why in commands + overrides if why]


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_what_a_document_says_to_type_is_accepted(document):
    assert not problems(document), "\n".join(problems(document))


def test_the_documents_are_found():
    names = {document.name for document in DOCUMENTS}
    assert {"README.md", "CONTRIBUTING.md", "configs/vitdet/README.md", TRAIN_NET} <= names
    assert {f"tools/{path.name}" for path in (REPOSITORY / "tools").glob("*.py")} <= names
    assert {str(path.relative_to(REPOSITORY)) for path in FILES} <= names
    assert sum(len(document.commands()) for document in DOCUMENTS) > 120
    assert sum(len(document.overrides()) for document in DOCUMENTS) > 120


def changed(override: Override) -> Override:
    return dataclasses.replace(override, key=f"{override.key.removesuffix('*')}_mistyped")


@pytest.mark.parametrize(
    "document", [d for d in DOCUMENTS if d.overrides()], ids=lambda document: document.name
)
def test_a_mistyped_key_of_a_document_is_noticed(document):
    for override in {changed(override) for override in document.overrides()}:
        if not override.is_new:  # what takes any keyword takes this one too
            assert refused_by_all(override, document.configs), override


VITDET = "configs/vitdet/mask_rcnn_vitdet_b_100ep.py"


@pytest.mark.parametrize(
    "text, problem",
    [
        ("`model.backbone.net.attn_implementation`", "there is no model.backbone.net.attn_impl"),
        ("`model.backbone.net.img_sise=512`", "there is no model.backbone.net.img_sise"),
        ("`model.backbone.net.img_size=large`", "img_size must be a whole number, got"),
        ("`model.backbone.net.use_rel_pos=1`", "use_rel_pos must be true or false, got 1"),
        ("`train.max_iter` and `.max_iters`", "there is no train.max_iters"),
        ("`+model.backbone.net.no_such_argument=1`", "nothing reads"),
        ("`no_such_key=1`", "no key ends in no_such_key"),
        ("    train.seeds=1", "there is no train.seeds"),
        (f"    python lazyconfig_train_net.py --config-file {VITDET} train.seeds=1", "train.seed"),
        (
            f"    python lazyconfig_train_net.py --config-file {VITDET} train.seed=x",
            "train.seed must be",
        ),
        (f"    python lazyconfig_train_net.py --config-file {VITDET} --gpus 2", "--gpus"),
        ("    python lazyconfig_train_net.py --config-file configs/lost.py", "configs/lost.py"),
        ("    torchrun lazyconfig_train_net.py --config-file configs/lost.py", "configs/lost.py"),
        (f"    python tools/analyze_model.py {VITDET} --deep 3", "--deep"),
        (f"    python tools/analyze_model.py {VITDET} --depth 3 train.seeds=1", "train.seed"),
        (
            "    python tools/convert_checkpoint.py A.pth B.pth --to paddleseg",
            "invalid choice: 'paddleseg'",
        ),
        ("    python tools/lost.py", "there is no tools/lost.py"),
        ("`python -m benchmarks.run --only lost`", "invalid choice: 'lost'"),
        ("`python -m json.lost`", "there is no module json.lost"),
        ("    make everything", "the Makefile has no everything"),
        ("    make test VENVS=DIR", "the Makefile has no VENVS=DIR"),
    ],
)
def test_what_would_not_work_is_noticed(text, problem):
    document = Document(REPOSITORY / "configs/vitdet/README.md", text)
    (found,) = problems(document)
    assert problem in found


# --- Python in the documents ----------------------------------------------------------------------


def names_in(document: Document) -> dict[str, Any]:
    """What the modules that a document names define, and what every config may use."""
    modules = re.findall(r"`(mimdet(?:\.\w+)+)`", document.text)
    found = {"partial": functools.partial}
    for module in modules:
        if importlib.util.find_spec(module):
            found |= vars(importlib.import_module(module))
    return found


ASSIGNMENTS = [(d, a) for d in DOCUMENTS for a in d.assignments()]


@pytest.mark.parametrize("document, statement", ASSIGNMENTS, ids=lambda x: getattr(x, "name", ""))
def test_a_statement_for_a_config_of_ones_own_gives_an_optimizer(document, statement):
    cfg = copy.deepcopy(config(document.configs[0]))
    key, _, value = statement.partition("=")
    OmegaConf.update(cfg, key.strip(), eval(value, names_in(document)), force_add=True)
    groups, rest = param_groups_of_config(cfg)
    assert len(groups) > 2 and rest.parameters is not None


def own_configs() -> list:
    """The Python blocks of the documents: each is a config that stands beside others."""
    return [
        pytest.param(document, code, id=document.name)
        for document in DOCUMENTS
        if document.path.suffix == ".md"
        for code in re.findall(r"```python\n(.*?)```", document.text, re.DOTALL)
    ]


def load_beside_others(code: str, folder: str, tmp_path: Path) -> DictConfig:
    """The config of this code, as a file in a copy of that folder of `configs`."""
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    path = tmp_path / "configs" / folder / "mine.py"
    path.write_text(code)
    return LazyConfig.load(str(path))


@pytest.mark.parametrize("document, code", own_configs())
def test_a_config_of_ones_own_in_a_document_loads_and_gives_an_optimizer(document, code, tmp_path):
    folder = "mimdet" if document.path.parent == REPOSITORY else document.path.parent.name
    groups, _ = param_groups_of_config(load_beside_others(code, folder, tmp_path))
    assert len(groups) > 1


def test_the_config_for_own_data_in_the_readme_has_its_names_and_classes(tmp_path):
    code = next(p.values[1] for p in own_configs() if p.id == "README.md")
    cfg = load_beside_others(code, "mimdet", tmp_path)
    assert cfg.dataloader.train.dataset.name == "mine_train"
    assert cfg.model.roi_heads.mask_head.num_classes == 12
    assert "mae_checkpoint" in cfg


# --- Names in the documents -----------------------------------------------------------------------

FOLDERS = "configs|tools|tests|docs|mimdet|benchmarks|detectron2-lite"


def names_of_nothing(document: Document) -> list[str]:
    """Paths and dotted names of Python in backticks that lead nowhere."""
    paths = re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", document.text)
    own = {"configs/mimdet/mine.py"}  # which the reader writes
    lost = [p for p in paths if "NAME" not in p and not (REPOSITORY / p).exists()]
    dotted = re.findall(r"`(mimdet(?:\.\w+)+)`", document.text)
    return sorted({*lost} - own) + [name for name in dotted if not leads_somewhere(name)]


def leads_somewhere(name: str) -> bool:
    try:
        return bool(locate(name))
    except ImportError:
        return False


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_paths_and_modules_that_a_document_names_exist(document):
    assert names_of_nothing(document) == []


def test_a_name_of_nothing_is_noticed():
    text = "`tools/lost.py`, `mimdet.layers.lost`, `mimdet.layers.window`, `tools/demo.py`"
    found = names_of_nothing(Document(REPOSITORY / "README.md", text))
    assert found == ["tools/lost.py", "mimdet.layers.lost"]


# --- Two tools, to the end ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tool, shown", [("analyze_model", "roi_heads"), ("print_param_groups", "weight decay")]
)
def test_a_tool_runs_as_the_readme_says(tool, shown, capsys):
    readme = next(document for document in DOCUMENTS if document.name == "README.md")
    (command,) = (c for c in readme.commands() if f"tools/{tool}.py" in c)
    load_script(command[1]).main(command[2:])
    assert shown in capsys.readouterr().out
