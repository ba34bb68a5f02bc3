"""What a YAML config may call: classes and functions that build, and nothing that runs or loads.

A config names callables by text (`_target_`), and building it calls them. A Python config is code
by nature; a YAML config, or the one inside of a checkpoint, may be a stranger's. So every name is
looked up here first, without a call, and must lead to something that a trusted module defines.
"""

import functools
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import FunctionType, ModuleType
from typing import Any

from omegaconf import OmegaConf

# Modules whose classes, and those of their submodules, only hold values until they are used.
_CLASSES = (
    *(f"detectron2.{m}" for m in ("data", "evaluation", "layers", "modeling", "solver")),
    *("detectron2.structures", "fvcore.common.param_scheduler", "fvcore.transforms"),
    *("mimdet.checkpoint.start", "mimdet.data", "mimdet.evaluation.imagenet"),
    *("mimdet.evaluation.sem_seg", "mimdet.layers", "mimdet.modeling", "mimdet.pretraining"),
    "mimdet.solver",
    *("timm.data.mixup", "timm.data.transforms", "timm.layers", "timm.loss", "timm.models"),
    *("timm.optim", "timm.scheduler", "torch.nn.modules", "torch.optim"),
    *("torchvision.ops", "torchvision.transforms"),
)
_NOT_THESE = (
    "detectron2.data.benchmark",
    "detectron2.data.catalog",
    "detectron2.modeling.mmdet_wrapper",  # builds what a config of mmcv's names
    "mimdet.data.toy",  # writes files
)
# Functions and methods are listed, because most of a package's do something else than to build.
_FUNCTIONS = {
    "detectron2.data": {
        *("build_detection_train_loader", "build_detection_test_loader"),
        *("get_detection_dataset_dicts", "get_fed_loss_cls_weights", "trivial_batch_collator"),
        "RepeatFactorTrainingSampler.repeat_factors_from_category_frequency",
    },
    "detectron2.layers": {"get_norm"},
    "detectron2.modeling": {"ResNet.make_default_stages", "ResNet.make_stage"},
    "detectron2.solver": {"get_default_optimizer_params"},
    "mimdet.data": {
        *("build_repeatable_train_loader", "get_lvis_v1_cls_weights", "load_coco_folder"),
        *("load_images", "load_labelled_images", "load_sem_seg_folder"),
    },
    "mimdet.layers": {"init_linear", "init_transformer_weights", "mae_layer_norm"},
    "mimdet.modeling": {"layer_norm_1e5", "own_tables"},
    "mimdet.solver": {
        *("classifier_layer", "get_fpn_model_parameters", "get_layer_lr_decay_rate"),
        *("get_named_decay_parameters", "get_vit_lr_decay_rate", "make_classifier_lr_factor"),
        *("mimdet_layer", "scaled_lr", "segmentor_layer", "vit_layer", "vitae_layer"),
    },
    "timm.data": {"create_transform"},
    "timm.models": {"create_model"},
    "timm.optim": {"param_groups_weight_decay"},
}
# Arguments by which those builders read pickles, download, or take a legacy config for themselves.
_ARGUMENTS = (
    *("cache_dir", "cfg", "checkpoint_path", "pretrained", "pretrained_cfg"),
    *("pretrained_cfg_overlay", "proposal_files"),
)
_MODULES = (*_CLASSES, *_FUNCTIONS)

# What an interpolation may be: another key, or the folder of the data. Resolvers can build configs
# from text, or put secrets of the environment into the address of a checkpoint.
_KEY = re.compile(r"\$\{[\w.\[\]]*\}")
_DATA = re.compile(r"\$\{oc\.env:DETECTRON2_DATASETS(,[\w./ ~-]*)?\}")


def require_trusted(cfg: Any, source: str, packages: Sequence[str] = ()) -> None:
    """Refuse a config that names more than what builds a run; nothing of it is called.

    Args:
        cfg: the config, not yet resolved.
        source: the file, for messages.
        packages: more names of packages from which everything may be called (``--trust-config``).

    Raises:
        ValueError: naming `_target_`, the key and the way out.
    """
    plain = OmegaConf.to_container(cfg, resolve=False) if OmegaConf.is_config(cfg) else cfg
    for key, node in _nodes(plain, ""):
        if isinstance(node, str):
            _check_text(node, key, source)
        elif isinstance(node, functools.partial):
            _check_arguments(node.keywords, node.func, key, source)
        elif isinstance(node, Mapping) and "_target_" in node:
            _check_call(node, key, source, packages)


def _nodes(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Each value of a config with its dotted key, from the outermost inwards."""
    yield key, value
    if isinstance(value, functools.partial):
        value = {"args": value.args, **value.keywords}
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _nodes(name, key)
            yield from _nodes(inner, f"{key}.{name}".removeprefix("."))
    elif isinstance(value, list | tuple | set | frozenset):
        for place, inner in enumerate(value):
            yield from _nodes(inner, f"{key}.{place}".removeprefix("."))


def _check_text(text: str, key: str, source: str) -> None:
    rest = _DATA.sub("", text)
    while (shorter := _KEY.sub("x", rest)) != rest:  # from the innermost outwards
        rest = shorter
    if "${" in rest:
        raise ValueError(
            f"{source} has {text[:200]!r} at {key}: an interpolation of a YAML config may lead to "
            "another key or to DETECTRON2_DATASETS, so that a stranger's file can neither read the "
            "environment nor write configs of its own; write the value itself"
        )


def _check_call(node: Mapping[Any, Any], key: str, source: str, packages: Sequence[str]) -> None:
    target, place = node["_target_"], f"{key}._target_".removeprefix(".")
    if not isinstance(target, str):  # of a tag, which has been looked at, or a config of a callable
        if not _is_builder(target):
            raise ValueError(_refusal(repr(target)[:200], place, source))
        found = target
    elif is_in(target, packages):
        return
    else:
        found = find_builder(target)
        if found is None:
            raise ValueError(_refusal(target, place, source))
    _check_arguments(node, found, key, source)


def _refusal(name: str, place: str, source: str) -> str:
    package = name.partition(".")[0]
    return (
        f"_target_ {name[:200]} is not allowed ({place} in {source}): a YAML config may only name "
        "classes and functions that build models, data, optimisers, schedules and evaluators, so "
        "that a stranger's file runs nothing; if you trust its author, add "
        f"--trust-config {package[:40]}, or load a Python config"
    )


def _check_arguments(node: Mapping[Any, Any], target: Any, key: str, source: str) -> None:
    name = getattr(target, "__module__", None) or ""
    if name.startswith("mimdet."):
        return
    given = [argument for argument in _ARGUMENTS if node.get(argument)]
    model = node.get("model_name", "")
    # Names such as hf-hub:somebody/model and local-dir:folder fetch a config and weights.
    if not (isinstance(model, str) and re.fullmatch(r"[\w.]*", model)):
        given.append("model_name")
    if given:
        raise ValueError(
            f"{key}.{given[0]} of _target_ {node.get('_target_', name)} is not allowed in {source}:"
            f" it lets the call read or download a file ({node[given[0]]!r:.100}); give weights "
            "by mae_checkpoint.path, train.starting_weights or train.init_checkpoint"
        )


def find_builder(name: str) -> Any:
    """The class or function of this dotted name, if a YAML config may call it; None otherwise.

    Attributes are looked up as they are stored, so that neither ``__getattr__`` nor a property
    runs, and no module is imported but those that hold builders.
    """
    root, *parts = name.split(".")
    if not _may_import(root):
        return None
    found: Any = _import(root)
    for part in parts:
        if isinstance(found, ModuleType):
            found = _member(found, part)
        elif isinstance(found, type):
            found = inspect.getattr_static(found, part, None)
        else:
            return None
    return found if _is_builder(found) else None


def _member(module: ModuleType, name: str) -> Any:
    full = f"{module.__name__}.{name}"
    found = vars(module).get(name)
    if isinstance(found, ModuleType) and found.__name__ != full:
        return None  # a module that was merely imported there, such as torch.os
    return _import(full) if found is None and _may_import(full) else found


def _import(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _may_import(name: str) -> bool:
    return any(is_in(name, (m,)) or is_in(m, (name,)) for m in _MODULES)


def is_in(name: str, packages: Iterable[str]) -> bool:
    """Whether a dotted name is one of these packages or modules, or below one."""
    return any(name == p or name.startswith(f"{p}.") for p in packages)


def _is_builder(found: Any) -> bool:
    if isinstance(found, staticmethod | classmethod):
        found = found.__func__
    module = getattr(found, "__module__", None) or ""
    if isinstance(found, type):
        is_private = found.__name__.startswith("_")
        return is_in(module, _CLASSES) and not is_in(module, _NOT_THESE) and not is_private
    if not isinstance(found, FunctionType):
        return False
    names = (names for prefix, names in _FUNCTIONS.items() if is_in(module, (prefix,)))
    return any(found.__qualname__ in own for own in names)
