import builtins
import copy
import functools
import logging
import textwrap
import traceback
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from golden_data import load
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigIndexError, ValidationError
from torch import nn

from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.structures import BoxMode

_, LAZY = load("lazyconfig")
_, ENGINE = load("engine")
FIRST = LAZY["cases"][0]
# "=3" sets the key "" upstream, which is an accident and not part of the contract.
OVERRIDES = [case for case in LAZY["cases"][1:] if case["overrides"] != ["=3"]]
ERRORS = {
    "ConfigIndexError": ConfigIndexError,
    "KeyError": KeyError,
    "NotImplementedError": NotImplementedError,
    "ValidationError": ValidationError,
}


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def error_type(name: str) -> type[Exception]:
    if name == "OverrideParseException":
        from hydra.errors import OverrideParseException

        return OverrideParseException
    return ERRORS[name]


def describe(value):
    """The tree of a config in the notation of the reference file."""
    if isinstance(value, dict):
        return {k: describe(v) for k, v in value.items()}
    if isinstance(value, list):
        return ["list", *map(describe, value)]
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return f"{type(value).__name__}:{value!r}"


def with_changes(tree: dict, changed: dict) -> dict:
    tree = copy.deepcopy(tree)
    for key, value in changed.items():
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            node = node[parent]
        node[last] = value
    return tree


@pytest.fixture
def golden_config(tmp_path) -> str:
    write_files(tmp_path, LAZY["files"])
    return str(tmp_path / "main.py")


@dataclass
class Point:
    x: int = 0
    y: int = 0


@dataclass
class Segment:
    start: Point
    end: Point
    name: str = "s"


def make_pair_with(first):
    def make_pair(second):
        return first, second

    return make_pair


# ----------------------------------------------------------------------------- LazyCall


def test_lazy_call_keeps_target_and_arguments():
    cfg = L(nn.Linear)(in_features=4, out_features=2)
    assert isinstance(cfg, DictConfig)
    assert cfg._target_ is nn.Linear and cfg.in_features == 4


def test_lazy_call_stores_a_dataclass_by_name():
    assert L(ShapeSpec)(channels=3)._target_ == "detectron2.layers.ShapeSpec"


def test_lazy_call_converts_containers_and_keeps_objects():
    cfg = L(nn.Linear)(a=(1, 2), b={"c": 1}, shape=ShapeSpec(channels=3), f=len, m=nn.ReLU())
    assert isinstance(cfg.a, ListConfig) and isinstance(cfg.b, DictConfig)
    assert OmegaConf.get_type(cfg.shape) is ShapeSpec
    assert cfg.f is len and isinstance(cfg.m, nn.ReLU)


@pytest.mark.parametrize("target", [5, None, [nn.Linear]])
def test_lazy_call_refuses_what_cannot_be_called(target):
    with pytest.raises(TypeError, match="target"):
        L(target)


def test_lazy_call_refuses_positional_arguments():
    with pytest.raises(TypeError, match="positional"):
        L(nn.Linear)(3)


def test_lazy_call_refuses_builtin_containers():
    with pytest.raises(ValidationError):
        L(dict)(a=1)


# ----------------------------------------------------------------------------- instantiate

INSTANTIATED = {
    "linear": lambda: L(nn.Linear)(in_features=2, out_features=3),
    "string target": lambda: L("torch.nn.Linear")(in_features=2, out_features=3),
    "nested list": lambda: L(nn.ModuleList)(
        modules=[L(nn.Linear)(in_features=2, out_features=1), L(nn.ReLU)()]
    ),
    "shape": lambda: L(ShapeSpec)(channels=4),
    "interpolation": lambda: L(nn.Linear)(in_features=3, out_features="${.in_features}"),
    "plain dict": lambda: OmegaConf.create({"a": 1}),
    "number": lambda: 3,
    "no-recursive": lambda: L("builtins.dict")(_recursive_=False, x=L(nn.ReLU)()),
    "missing argument": lambda: L(nn.Linear)(in_features=2),
    "bad target string": lambda: L("torch.nn.NoSuchLayer")(),
    "target not callable": lambda: L("torch.pi")(),
}


@pytest.mark.parametrize("case", LAZY["instantiate"], ids=lambda case: case["case"])
def test_instantiate_builds_what_upstream_builds(case):
    cfg = INSTANTIATED[case["case"]]()
    if "error" in case:
        errors = {"TypeError": TypeError, "ImportError": ImportError}
        with pytest.raises(errors.get(case["error"], AssertionError)):
            instantiate(cfg)
        return
    result = instantiate(cfg)
    assert type(result).__name__ == case["type"]
    assert case["text"] is None or str(result) == case["text"]


def test_instantiate_returns_list_configs_lists_and_tuples_as_such():
    relu = L(nn.ReLU)()
    assert isinstance(instantiate(OmegaConf.create([1])), ListConfig)
    assert isinstance(instantiate([relu])[0], nn.ReLU)
    assert instantiate((relu,))[0] is relu


def test_instantiate_leaves_mappings_without_target_lazy_inside():
    cfg = L("builtins.dict")(a={"b": L(nn.ReLU)()})
    assert instantiate(cfg)["a"].b._target_ is nn.ReLU


def test_instantiate_turns_a_dataclass_config_into_its_instance():
    cfg = L("builtins.dict")(shape=ShapeSpec(channels=3))
    cfg.shape.channels = 32
    assert instantiate(cfg)["shape"] == ShapeSpec(channels=32)


def test_instantiate_builds_a_target_that_is_itself_a_config():
    cfg = L(L(make_pair_with)(first=1))(second=2)
    assert instantiate(cfg) == (1, 2)


def test_interpolations_resolve_from_where_the_node_sits():
    cfg = OmegaConf.create({"dim": 4}, flags={"allow_objects": True})
    cfg.net = L(nn.Linear)(in_features="${..dim}", out_features="${dim}")
    assert instantiate(cfg.net).weight.shape == (4, 4)


@pytest.mark.lite
def test_a_type_error_of_a_call_is_logged_with_the_name_of_the_callable(caplog):
    with pytest.raises(TypeError), caplog.at_level("ERROR", "detectron2.config.instantiate"):
        instantiate(L(nn.Linear)(in_features=2))
    assert "Error when instantiating torch.nn.Linear!" in caplog.text


@pytest.mark.lite
def test_an_error_of_a_call_names_its_config_key():
    cfg = OmegaConf.create({"model": L(nn.Sequential)(act=L(nn.Softmax)(wrong=1))})
    with pytest.raises(TypeError) as info:
        instantiate(cfg.model)
    text = "".join(traceback.format_exception(info.value))
    assert "while instantiating config key 'model.act' -> torch.nn.Softmax" in text


def test_a_target_that_cannot_be_imported_is_named():
    with pytest.raises(ImportError, match="no_such_package"):
        instantiate(L("no_such_package.f")())


# ----------------------------------------------------------------------------- load


def test_load_gives_what_upstream_gives(golden_config):
    cfg = LazyConfig.load(golden_config)
    assert describe(OmegaConf.to_container(cfg)) == FIRST["loaded"]
    assert {k: type(cfg[k]).__name__ for k in cfg} == FIRST["top_level_types"]


def test_load_with_keys_gives_one_object_or_a_tuple_in_order(golden_config):
    assert LazyConfig.load(golden_config, "linear").out_features == 6
    linear, train = LazyConfig.load(golden_config, ("linear", "train"))
    assert linear.out_features == 6 and train.seed == 3


def test_load_of_a_missing_key_names_it(golden_config):
    with pytest.raises(KeyError, match="no_such"):
        LazyConfig.load(golden_config, "no_such")


def test_load_leaves_out_private_names_lists_numbers_and_strings(tmp_path):
    write_files(tmp_path, {"c.py": "a = dict(x=1)\n_b = dict(x=1)\nc = [1]\nd = 2\ne = 'e'\n"})
    assert list(LazyConfig.load(str(tmp_path / "c.py"))) == ["a"]


BAD_FILES = {
    "load of a file with a syntax error": ("bad.py", SyntaxError, "bad.py"),
    "load of a .json file": ("a.json", ValueError, "json"),
    "load of a missing file": ("nothing.py", FileNotFoundError, "nothing.py"),
    "relative import of a missing file": ("lost.py", ImportError, "nowhere"),
    "from . import x": ("dot.py", ImportError, "import|config"),
    "relative import of a missing name": ("name.py", KeyError, "no_such_name"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_load_raises_as_upstream(case, tmp_path):
    name, error, match = BAD_FILES[case]
    assert error.__name__ == LAZY["errors"][case]
    files = {
        "bad.py": "a = dict(\n",
        "a.json": "{}",
        "lost.py": "from .nowhere import x\n",
        "dot.py": "from . import other\n",
        "name.py": "from .other import no_such_name\n",
        "other.py": "x = 1\n",
    }
    write_files(tmp_path, files)
    with pytest.raises(error, match=match):
        LazyConfig.load(str(tmp_path / name))


@pytest.mark.lite
@pytest.mark.parametrize(
    "statement, message",
    [
        ("from .other import gone", "main.py imports 'gone' from .*other.py"),
        ("from .star import *", "'gone'"),
        ("from .folder import x", "files only"),
        ("from . import other", "files only"),
        ("from .nowhere import x", "main.py needs the file .*nowhere.py"),
        ("from .main import x", "circle: .*main.py -> .*main.py"),
    ],
)
def test_an_impossible_relative_import_says_what_is_wrong(statement, message, tmp_path):
    files = {
        "main.py": statement,
        "other.py": "",
        "star.py": "__all__ = ['gone']",
        "folder/x.py": "",
    }
    write_files(tmp_path, files)
    with pytest.raises(ImportError, match=message):
        LazyConfig.load(str(tmp_path / "main.py"))


def test_two_importers_get_independent_copies(tmp_path):
    files = {
        "base.py": "train = dict(n=1)\n",
        "a.py": "from .base import train\ntrain.n = 2\n",
        "main.py": "from .a import train as a\nfrom .base import train as b\n",
    }
    write_files(tmp_path, files)
    cfg = LazyConfig.load(str(tmp_path / "main.py"))
    assert (cfg.a.n, cfg.b.n) == (2, 1)


def test_relative_imports_go_up_and_down_folders_without_init_files(tmp_path):
    files = {
        "common.py": "x = dict(v=1)\n",
        "deep/sub/leaf.py": "from ...common import x\n",
        "deep/main.py": "from .sub.leaf import x\n",
    }
    write_files(tmp_path, files)
    assert LazyConfig.load(str(tmp_path / "deep/main.py")).x.v == 1


def test_functions_and_classes_pass_through_a_relative_import(tmp_path):
    files = {
        "base.py": "def double(x):\n    return 2 * x\n",
        "main.py": "from .base import double\ncfg = dict(v=double(4))\n",
    }
    write_files(tmp_path, files)
    assert LazyConfig.load(str(tmp_path / "main.py")).cfg.v == 8


def test_absolute_imports_inside_a_config_are_ordinary(tmp_path):
    write_files(
        tmp_path, {"c.py": "import os.path\nfrom json import dumps\na = dict(s=dumps(1))\n"}
    )
    assert LazyConfig.load(str(tmp_path / "c.py")).a.s == "1"


@pytest.mark.lite
def test_a_failing_config_leaves_the_import_statement_as_it_was(tmp_path):
    before = builtins.__import__
    write_files(tmp_path, {"c.py": "raise RuntimeError('inside')\n"})
    with pytest.raises(RuntimeError, match="inside"):
        LazyConfig.load(str(tmp_path / "c.py"))
    assert builtins.__import__ is before


@pytest.mark.lite
def test_import_star_brings_public_names_or_those_of_all(tmp_path):
    files = {
        "base.py": "a = dict(x=1)\n_b = dict(x=1)\n",
        "listed.py": "__all__ = ['_c']\n_c = dict(x=1)\nd = dict(x=1)\n",
        "main.py": "from .base import *\nfrom .listed import *\na.y = 2\nc = _c\n",
    }
    write_files(tmp_path, files)
    cfg = LazyConfig.load(str(tmp_path / "main.py"))
    assert sorted(cfg) == ["a", "c"] and cfg.a.y == 2


def test_load_rel_starts_from_the_file_of_the_caller(tmp_path):
    write_files(tmp_path, {"sub/c.yaml": "v: 1\n"})
    code = compile("cfg = LazyConfig.load_rel('sub/c.yaml')", str(tmp_path / "caller.py"), "exec")
    namespace = {"LazyConfig": LazyConfig}
    exec(code, namespace)
    assert namespace["cfg"].v == 1


def test_load_rel_inside_a_config_starts_from_that_config(tmp_path):
    files = {
        "sub/base.py": "x = dict(v=1)\n",
        "main.py": """
            from detectron2.config import LazyConfig
            x = LazyConfig.load_rel("sub/base.py", "x")
            """,
    }
    write_files(tmp_path, files)
    assert LazyConfig.load(str(tmp_path / "main.py")).x.v == 1


def test_load_rel_needs_a_caller_in_a_file():
    with pytest.raises(AssertionError):
        exec("LazyConfig.load_rel('x.py')", {"LazyConfig": LazyConfig})


# ----------------------------------------------------------------------------- yaml


def test_load_of_yaml_gives_a_config(tmp_path):
    (tmp_path / "c.yaml").write_text("a: {_target_: torch.nn.ReLU}\nb: [1, 2.5]\n")
    cfg = LazyConfig.load(str(tmp_path / "c.yaml"))
    assert isinstance(instantiate(cfg.a), nn.ReLU) and cfg.b == [1, 2.5]
    assert LazyConfig.load(str(tmp_path / "c.yaml"), "b")[0] == 1


def test_yaml_tags_of_trusted_packages_are_read(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "t: !!python/tuple [1, 2]\n"
        "f: !!python/name:torch.nn.GELU ''\n"
        "s: !!python/object:detectron2.layers.shape_spec.ShapeSpec "
        "{channels: 3, height: null, width: null, stride: 4}\n"
    )
    cfg = LazyConfig.load(str(tmp_path / "c.yaml"))
    assert cfg.t == [1, 2] and cfg.f is nn.GELU
    assert instantiate(cfg.s) == ShapeSpec(channels=3, stride=4)


@pytest.mark.lite
@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.getcwd []",
        "!!python/object/apply:torch.load [x.pth]",
        "!!python/object/new:torch.nn.ReLU {}",
        "!!python/object:torch.nn.functional.relu {}",
        "!!python/module:os ''",
    ],
)
def test_yaml_tags_run_no_code(tag, tmp_path):
    (tmp_path / "c.yaml").write_text(f"a: 1\nb: {tag}\n")
    with pytest.raises((yaml.YAMLError, TypeError)):
        LazyConfig.load(tmp_path / "c.yaml")


class Gadget:
    def __init__(self):
        pytest.fail("called")

    def __setstate__(self, state):
        pytest.fail("called")


@pytest.mark.lite
def test_an_object_of_a_yaml_file_gets_its_attributes_without_a_call(tmp_path):
    (tmp_path / "c.yaml").write_text(f"a: !!python/object:{__name__}.Gadget {{x: 1}}\n")
    assert LazyConfig.load(tmp_path / "c.yaml").a.x == 1


@pytest.mark.lite
def test_the_encoding_of_config_files_does_not_depend_on_the_locale(tmp_path):
    (tmp_path / "utf8.py").write_bytes("model = dict(name='\u00e9')".encode())
    (tmp_path / "latin1.py").write_bytes(b"# coding: latin-1\nmodel = dict(name='\xe9')")
    (tmp_path / "utf8.yaml").write_bytes("model: {name: \u00e9}".encode())
    (tmp_path / "utf16.yaml").write_bytes("model: {name: \u00e9}".encode("utf-16"))
    for path in tmp_path.iterdir():
        assert LazyConfig.load(str(path)).model.name == "\u00e9", path


@pytest.mark.lite
def test_a_yaml_file_must_hold_a_mapping_or_a_list(tmp_path):
    (tmp_path / "c.yaml").write_text("just words\n")
    with pytest.raises(ValueError, match="c.yaml must hold a mapping or a list"):
        LazyConfig.load(str(tmp_path / "c.yaml"))


# ----------------------------------------------------------------------------- save


def reference_input() -> DictConfig:
    """`config_yaml_input` of the reference file as a config."""
    cfg = {
        "train": {
            "output_dir": "out_dir",
            "max_iter": 10,
            "seed": -1,
            "amp": {"enabled": False},
            "checkpointer": {"period": 5, "max_to_keep": 3},
        },
        "model": L(nn.Linear)(in_features=3, out_features="${..dim}", bias=True),
        "dim": 4,
        "optimizer": L(torch.optim.AdamW)(params=None, lr=1e-4, betas=(0.9, 0.999)),
        "shape": L(ShapeSpec)(channels=3),
        "names": ["a", "b", [1, 2.5, None, True]],
    }
    return OmegaConf.create(cfg, flags={"allow_objects": True})


def test_save_writes_the_text_that_upstream_writes(tmp_path):
    path = tmp_path / "config.yaml"
    LazyConfig.save(reference_input(), str(path))
    assert path.read_text() == ENGINE["config_yaml"]


def test_a_saved_config_is_not_changed_and_builds_the_same(tmp_path):
    cfg = reference_input()
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    assert cfg.model._target_ is nn.Linear
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    expected = ENGINE["config_yaml_reload"]
    assert type(again).__name__ == expected["type"]
    assert again.model._target_ == expected["target"]
    assert type(instantiate(again.model)).__name__ == expected["instantiated"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml"]


@pytest.mark.lite
def test_a_dataclass_instance_is_saved_as_a_call_that_needs_no_tags(tmp_path):
    # Upstream writes !!python/object:detectron2.layers.shape_spec.ShapeSpec {...}, which only an
    # unsafe reader takes. A mapping with _target_ instantiates to the same object on both.
    path = tmp_path / "c.yaml"
    cfg = OmegaConf.create({"head": L(nn.Identity)(shape=ShapeSpec(channels=3)), "dim": 7})
    cfg.head.shape.height = "${dim}"
    LazyConfig.save(cfg, str(path))
    assert yaml.safe_load(path.read_text())["head"]["shape"] == {
        "_target_": "detectron2.layers.ShapeSpec",
        "channels": 3,
        "height": "${dim}",
        "width": None,
        "stride": None,
    }
    again = LazyConfig.load(str(path))
    assert instantiate(again.head.shape) == ShapeSpec(channels=3, height=7)


@pytest.mark.lite
def test_nested_dataclass_instances_are_saved_as_nested_calls(tmp_path):
    segment = OmegaConf.structured(Segment(start=Point(1, 2), end=Point(3, 4)))
    LazyConfig.save(OmegaConf.create({"s": segment}), tmp_path / "c.yaml")
    plain = yaml.safe_load((tmp_path / "c.yaml").read_text())["s"]
    assert plain["start"]["x"] == 1 and plain["end"]["_target_"].endswith("Point")


def test_a_partial_survives_saving_and_loading(tmp_path):
    path = tmp_path / "c.yaml"
    cfg = L(nn.Identity)(norm=functools.partial(nn.LayerNorm, eps=1e-6))
    LazyConfig.save(cfg, str(path))
    norm = LazyConfig.load(str(path)).norm
    assert norm.func is nn.LayerNorm and norm.keywords == {"eps": 1e-6}


def test_an_enum_member_survives_saving_and_loading(tmp_path):
    LazyConfig.save(L(nn.Identity)(mode=BoxMode.XYWH_ABS), str(tmp_path / "c.yaml"))
    assert LazyConfig.load(str(tmp_path / "c.yaml")).mode is BoxMode.XYWH_ABS


def test_a_lambda_is_saved_readable_and_pickled(tmp_path, caplog):
    cfg = L(nn.Identity)(f=lambda x: x + 1)
    with caplog.at_level(logging.WARNING):
        LazyConfig.save(cfg, str(tmp_path / "lam.yaml"))
    files = sorted(p.name for p in tmp_path.iterdir())
    assert files == ENGINE["config_with_lambda_files"]
    import cloudpickle

    again = cloudpickle.loads((tmp_path / "lam.yaml.pkl").read_bytes())
    assert again.f(1) == 2
    assert any(r.levelno == logging.WARNING for r in caplog.records)


@pytest.mark.lite
def test_a_target_that_has_no_importable_name_is_reported_and_pickled(tmp_path, caplog):
    write_files(
        tmp_path,
        {
            "c.py": """
        from detectron2.config import LazyCall as L
        class Net:
            pass
        model = L(Net)()
        """
        },
    )
    LazyConfig.save(LazyConfig.load(tmp_path / "c.py"), tmp_path / "c.yaml")
    assert "cannot be loaded" in caplog.text and "Net" in caplog.text
    assert (tmp_path / "c.yaml.pkl").exists()


@pytest.mark.lite
def test_an_object_that_yaml_cannot_read_back_is_reported(tmp_path, caplog):
    LazyConfig.save(L(nn.Identity)(p=torch.Size([2])), tmp_path / "c.yaml")
    assert "cannot be loaded" in caplog.text and "torch.Size" in caplog.text


class Unwritable:
    def __reduce_ex__(self, protocol):
        raise RuntimeError("no parts")


@pytest.mark.lite
def test_failing_to_save_at_all_is_logged_with_the_reason(tmp_path, caplog):
    LazyConfig.save(L(nn.Identity)(p=Unwritable()), tmp_path / "c.yaml")
    assert "cannot be written as YAML" in caplog.text and "cannot be pickled" in caplog.text
    assert "no parts" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.lite
def test_save_into_a_missing_folder_fails(tmp_path):
    with pytest.raises(FileNotFoundError):
        LazyConfig.save(OmegaConf.create({"a": 1}), tmp_path / "missing" / "c.yaml")
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------- overrides


@pytest.mark.parametrize("case", OVERRIDES, ids=lambda case: " ".join(case["overrides"]))
def test_overrides_change_what_upstream_changes(case, golden_config):
    cfg = LazyConfig.load(golden_config)
    if "error" in case:
        with pytest.raises(error_type(case["error"])):
            LazyConfig.apply_overrides(cfg, case["overrides"])
        return
    assert LazyConfig.apply_overrides(cfg, case["overrides"]) is cfg
    assert describe(OmegaConf.to_container(cfg)) == with_changes(FIRST["loaded"], case["changed"])


def test_an_override_through_a_value_names_key_prefix_and_type():
    cfg = OmegaConf.create({"a": {"b": 5}})
    with pytest.raises(KeyError, match=r"a\.b\.c.*a\.b.*int"):
        LazyConfig.apply_overrides(cfg, ["a.b.c=1"])


def test_an_override_below_null_creates_a_config_there():
    cfg = OmegaConf.create({"a": None})
    LazyConfig.apply_overrides(cfg, ["a.b=1"])
    assert cfg.a.b == 1


@pytest.mark.lite
@pytest.mark.parametrize("value", ["1,2", "range(1,3)", "choice(1,2)", "interval(0,1)", "glob(*)"])
def test_a_sweep_is_refused_as_such(value):
    with pytest.raises(ValueError, match="is a sweep over several values"):
        LazyConfig.apply_overrides(OmegaConf.create({"a": 1}), [f"a={value}"])


@pytest.mark.lite
def test_a_deletion_is_refused_by_name():
    with pytest.raises(NotImplementedError, match="'~a' deletes a key"):
        LazyConfig.apply_overrides(OmegaConf.create({"a": 1}), ["~a"])


@pytest.mark.lite
def test_names_that_lite_leaves_out_say_so():
    with pytest.raises(
        ImportError, match="get_cfg is not part of detectron2-lite; .* install upstream"
    ):
        from detectron2.config import get_cfg  # noqa: F401
    with pytest.raises(ImportError, match="model_zoo is not part of detectron2-lite"):
        from detectron2 import model_zoo  # noqa: F401
    with pytest.raises(ImportError, match="cannot import name 'no_such_name'"):
        from detectron2.config import no_such_name  # noqa: F401


@pytest.mark.lite
def test_a_config_reads_like_python():
    cfg = OmegaConf.create({"train": {"lr": 1e-4, "amp": None}, "names": ["a", "b"], "empty": {}})
    cfg.model = L(nn.Linear)(in_features="${..train.lr}", out_features=2)
    cfg.spec = ShapeSpec(channels=3)
    cfg.ids = {1: "person", "if": 0}
    assert LazyConfig.to_py(cfg).splitlines() == [
        "cfg.train = dict(lr=0.0001, amp=None)",
        "cfg.names = ['a', 'b']",
        "cfg.empty = dict()",
        "cfg.model = torch.nn.Linear(in_features='${..train.lr}', out_features=2)",
        "cfg.spec = detectron2.layers.ShapeSpec(channels=3, height=None, width=None, stride=None)",
        "cfg.ids = {1: 'person', 'if': 0}",
    ]
    assert LazyConfig.to_py(cfg.train, prefix="").splitlines() == ["lr = 0.0001", "amp = None"]
