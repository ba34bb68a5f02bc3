"""Names of upstream that lite leaves out say so, and say what to use instead."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

import detectron2
from detectron2.utils.registry import locate

pytestmark = pytest.mark.lite

EXPLANATION = "is not part of detectron2-lite; .*install upstream Detectron2"


def public_names() -> list[tuple[str, str]]:
    """(module, name) of all public names of upstream's main branch, June 2026."""
    lines = (Path(__file__).parent / "golden/upstream_names.txt").read_text().splitlines()
    modules = [line.split(":") for line in lines]
    return [(f"detectron2.{m}", name) for m, names in modules for name in names.split()]


def explanation(module: str, name: str) -> str | None:
    """Why upstream's name is not there; None where it is."""
    try:
        getattr(importlib.import_module(module), name)
    except ImportError as error:
        return str(error)
    return None


def test_every_public_name_of_upstream_is_there_or_explained():
    names = public_names()
    assert len(names) == 739
    reasons = {f"{module}.{name}": explanation(module, name) for module, name in names}
    bare = [name for name, why in reasons.items() if why and not re.search(EXPLANATION, why)]
    assert not bare


@pytest.fixture
def left_out() -> dict[str, str]:
    """Dotted name -> the way on."""
    from detectron2._missing import LEFT_OUT  # imported late: upstream has no such module

    return LEFT_OUT


def test_a_name_that_is_explained_is_not_there(left_out):
    for name in left_out:
        module, _, last = name.rpartition(".")
        with pytest.raises(ImportError, match=EXPLANATION):
            exec(f"from {module} import {last}")


def test_what_an_explanation_recommends_of_lite_is_there(left_out):
    recommended = {
        name for why in left_out.values() for name in re.findall(r"detectron2[\w.]+", why)
    }
    assert len(recommended) > 20
    for name in recommended:
        locate(name.rstrip("."))


@pytest.mark.parametrize(
    "module, name, way_on",
    [
        ("config", "get_cfg", "describe objects with detectron2.config.LazyCall and build them"),
        ("modeling", "ViT", "use mimdet.modeling.backbone.vitdet.ViT, or install upstream"),
        ("modeling.backbone.vit", "get_vit_lr_decay_rate", "mimdet.solver.layer_decay"),
        ("layers", "DeformConv", "use torchvision.ops.DeformConv2d, or install"),
        ("engine", "DefaultTrainer", "use detectron2.engine.SimpleTrainer or AMPTrainer"),
        ("structures", "RotatedBoxes", "lite; install upstream"),
    ],
)
def test_the_explanation_names_the_way_on(module, name, way_on):
    assert way_on in explanation(f"detectron2.{module}", name)


@pytest.mark.parametrize(
    "module, name, shorter",
    [
        ("checkpoint.detection_checkpoint", "DetectionCheckpointer", "checkpoint"),
        ("config.instantiate", "instantiate", "config"),
        ("data.samplers.distributed_sampler", "TrainingSampler", "data.samplers"),
        ("engine", "DEFAULT_TIMEOUT", "engine.launch"),
        ("modeling", "ShapeSpec", "layers"),
        ("modeling.backbone", "ResNetBlockBase", "modeling"),
    ],
)
def test_a_name_is_the_same_object_by_both_of_its_paths(module, name, shorter):
    by_path = [importlib.import_module(f"detectron2.{path}") for path in (module, shorter)]
    assert getattr(by_path[0], name) is getattr(by_path[1], name)


NAMES = {
    "detectron2": ["model_zoo", "export", "projects", "tracking"],
    "detectron2.config": ["CfgNode", "set_global_cfg"],
    "detectron2.data.datasets": ["load_voc_instances", "builtin_meta"],
    "detectron2.engine.hooks": ["PreciseBN"],
    "detectron2.modeling": ["build_model", "META_ARCH_REGISTRY"],
    "detectron2.utils": ["video_visualizer"],
    "detectron2.utils.visualizer": ["GenericMask"],
}


@pytest.mark.parametrize("module, name", [(m, n) for m, names in NAMES.items() for n in names])
def test_importing_a_name_that_is_left_out_says_so(module, name):
    with pytest.raises(ImportError, match=rf"^{module}\.{name} {EXPLANATION}"):
        exec(f"from {module} import {name}")


@pytest.mark.parametrize(
    "module",
    [
        "detectron2.model_zoo",
        "detectron2.config.defaults",
        "detectron2.data.benchmark",
        "detectron2.data.datasets.builtin_meta",
        "detectron2.modeling.test_time_augmentation",
        "detectron2.modeling.backbone.vit",
        "detectron2.modeling.roi_heads.keypoint_head",
        "detectron2.structures.rotated_boxes",
        "detectron2.utils.video_visualizer",
    ],
)
def test_importing_a_module_that_is_left_out_says_so(module):
    with pytest.raises(ImportError, match=f"^{module} {EXPLANATION}"):
        importlib.import_module(module)


def test_a_name_below_a_module_that_is_left_out_is_explained_by_the_module():
    with pytest.raises(ImportError, match=rf"^detectron2\.model_zoo {EXPLANATION}"):
        exec("from detectron2.model_zoo import get_config")


def test_a_name_that_exists_nowhere_is_an_ordinary_error():
    with pytest.raises(AttributeError, match="module 'detectron2' has no attribute 'modelzoo'"):
        _ = detectron2.modelzoo
    with pytest.raises(ModuleNotFoundError, match="No module named 'detectron2.modelzoo'"):
        importlib.import_module("detectron2.modelzoo")


def test_every_file_beside_the_modules_goes_into_a_wheel():
    package = Path(detectron2.__file__).parent
    files = [path.relative_to(package) for path in package.rglob("*") if path.is_file()]
    beside = [f for f in files if f.suffix not in (".py", ".pyc") and f.parts[0][0] != "."]
    pyproject = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert sorted(map(str, beside)) == pyproject["tool"]["setuptools"]["package-data"]["detectron2"]
