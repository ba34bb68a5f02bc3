"""What a run's config, data, files and processes contradict each other in.

Everything that can be known before the first iteration is looked at before a process is started or
a model is built.
"""

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from mimdet.data.coco.image_files import check_image_files
from mimdet.data.coco.problems import MASK_MISSING, Problems, Severity
from mimdet.data.coco.read import CocoData
from mimdet.data.coco.select import read_part
from mimdet.data.label_maps import check_label_maps
from mimdet.engine.check_checkpoints import check_checkpoints
from mimdet.engine.check_values import check_values
from mimdet.engine.follow_data import (
    classes_of,
    dataset_names,
    follow_data,
    has_mask_head,
    nodes,
    number_of_classes,
)
from mimdet.shown import shown

NO_EVALUATOR = (
    "an evaluation needs dataloader.evaluator, and this config has none; "
    "pretraining is judged by its loss or by what starts from it"
)

_MANY = 1000  # label maps, from which it is told that they are read
_LARGE = 50  # megabytes of annotations, from which each step is told before it is taken

# What a config file defines.
_EVALUATION = ("dataloader", "model", "train")
_TRAINING = ("dataloader", "lr_multiplier", "model", "optimizer", "train")


@dataclass
class Findings:
    """What `preflight` found.

    Attributes:
        errors: what must be mended, one sentence each.
        warnings: what looks wrong.
        plan: what will happen, a line each.
        problems: of annotation files and images, whatever becomes of them, a line for each kind.
        tell: is called with a line before each step that takes long.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    plan: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    tell: Callable[[str], None] = lambda line: None

    def attempt(self, what: Callable[[], Any]) -> Any:
        """The value of ``what()``; an error of it is a finding, and the value None."""
        try:
            return what()
        except Exception as e:  # whatever a config's own code raises here, it would raise later
            self.errors.append(" ".join(str(e).split()) or repr(e))
            return None


def preflight(
    cfg: DictConfig,
    processes: int = 1,
    eval_only: bool = False,
    resuming: bool = False,
    tell: Callable[[str], None] | None = None,
    rate_origin: str = "optimizer.lr",
) -> Findings:
    """Look for contradictions between a run's config, data, files and processes.

    Both datasets and the evaluator's truth are read, label maps included, every image path is
    looked at, one sample of each goes through its mapper; images are not decoded
    (``tools/check_dataset.py`` does that).

    Args:
        cfg: of the run; changed by `follow_data`.
        processes: of the whole job.
        eval_only: look at what an evaluation needs alone.
        resuming: the training goes on from a checkpoint of its own and reads no other.
        tell: is called with a line before each step that takes long.
        rate_origin: where the learning rate comes from.
    """
    found = Findings(**({"tell": tell} if tell else {}))
    needed = _EVALUATION if eval_only else _TRAINING
    if missing := [part for part in needed if part not in cfg]:
        found.errors.append(
            f"a config must define {', '.join(needed)}; it lacks {', '.join(missing)}"
        )
        return found
    found.errors += check_values(cfg, eval_only)
    if found.errors:  # before annotations are read, which may take a minute
        return found
    splits = ["test"] if eval_only else ["train", "test"]
    splits = [split for split in splits if split in cfg.dataloader]
    datasets = {split: _look_at_data(cfg, split, found) for split in splits}
    if not found.errors:  # what follows from the data is only said of data that can be read
        found.attempt(lambda: follow_data(cfg))
        _compare_classes(cfg, found)
        _look_for_masks(cfg, splits, found)
        for split, dataset in datasets.items():
            if dataset is not None:
                found.attempt(partial(_draw_sample, cfg.dataloader[split], dataset.first))
        if cfg.dataloader.get("evaluator") is not None:
            _look_at_truth(cfg, found)
    if eval_only or not resuming:
        found.errors += check_checkpoints(cfg)
    if eval_only:
        if cfg.dataloader.get("evaluator") is None:
            found.errors.append(NO_EVALUATOR)
    else:
        _divide_batch(cfg, processes, found)
        _check_seed(cfg, found)
        _tell_plan(cfg, datasets.get("train"), rate_origin, found)
    for lines in (found.errors, found.problems):  # of a file that training and test share
        lines[:] = dict.fromkeys(lines)
    return found


class _Dataset(NamedTuple):
    """What is kept of a dataset, whose records may take gigabytes."""

    size: int
    first: Any


def _look_at_data(cfg: DictConfig, split: str, found: Findings) -> _Dataset | None:
    """The dataset of a loader; what is wrong with its files is a finding."""
    loader, before = cfg.dataloader[split], len(found.errors)
    if "dataset" not in loader:
        return None
    for node in _coco_nodes(loader):
        size = os.path.getsize(node.json_file) / 1e6
        if size > _LARGE:
            found.tell(f"reads {node.json_file} ({size:.0f} MB)")
        data = found.attempt(partial(_read, node))
        if data is not None:
            found.errors += data.problems.lines(Severity.REFUSED)
            if size > _LARGE:
                found.tell(f"looks for its {len(data.records)} images in {node.image_root}")
            files = check_image_files(data)
            found.errors += files.lines()
            found.problems += [*data.problems.lines(), *files.lines()]
    if len(found.errors) > before:
        return None
    # COCO files have just been read, and are not read again by this.
    dataset = found.attempt(lambda: instantiate(loader.dataset))
    if dataset is None:
        return None
    if len(dataset) == 0:
        found.errors.append(f"dataloader.{split}.dataset must have images, and it has none")
        return None
    first = found.attempt(lambda: dataset[0])
    if isinstance(first, Mapping) and "sem_seg_file_name" in first:
        _look_at_label_maps(loader, found)
    return None if len(found.errors) > before else _Dataset(len(dataset), first)


def _look_at_label_maps(loader: DictConfig, found: Findings) -> None:
    """The label maps of a loader must fit their images, and the classes of the dataset."""
    for name in dataset_names(loader):
        records, metadata = DatasetCatalog.get(name), MetadataCatalog.get(name)
        if not (classes := metadata.get("stuff_classes")):
            found.errors.append(
                f"dataset {name} has label maps, so its metadata must have stuff_classes, the "
                "names of the classes in the order of their labels"
            )
            continue
        if len(records) > _MANY:
            found.tell(f"reads the {len(records)} label maps of {name}")
        roots = metadata.get("image_root"), metadata.get("sem_seg_root")
        problems = check_label_maps(
            records,
            name,
            len(classes),
            metadata.get("ignore_label", 255),
            roots if all(roots) else None,
        )
        found.errors += problems.lines()


def _coco_nodes(loader: DictConfig) -> Iterator[DictConfig]:
    """The parts of a loader's config that name a COCO file which exists.

    One that does not is told by `load_coco_folder`, with the dataset's name.
    """
    for node in nodes(loader.get("dataset")):
        if {"json_file", "image_root"} <= set(node) and Path(node.json_file or "").is_file():
            yield node


def _read(node: DictConfig) -> CocoData:
    return read_part(
        node.json_file,
        node.image_root,
        node.get("allow_outside_root", False),
        node.get("classes"),
        node.get("share"),
    )


def _classes(loader: DictConfig) -> dict[str, list[str]]:
    """Dataset name -> its classes, for those that have some."""
    classes = {name: classes_of(name) for name in dataset_names(loader)}
    return {name: names for name, names in classes.items() if names}


def _compare_classes(cfg: DictConfig, found: Findings) -> None:
    """Classes of training, validation and heads must be the same, in the same order."""
    train = _classes(cfg.dataloader.train) if "train" in cfg.dataloader else {}
    test = _classes(cfg.dataloader.test) if "test" in cfg.dataloader else {}
    known = list({**train, **test}.items())
    if not known:
        return
    first, classes = known[0]
    for name, others in known[1:]:
        if others != classes:
            found.errors.append(_differ(first, classes, name, others))
    for key, number in number_of_classes(cfg).items():
        if number != len(classes):
            found.errors.append(
                f"{key} must be the number of classes of {first}, which is {len(classes)} "
                f"({_short(classes)}), got {number!r}; write {key}={len(classes)}, or {key}=auto"
            )


def _differ(first: str, classes: list[str], name: str, others: list[str]) -> str:
    if sorted(classes) == sorted(others):
        what = "has them in another order"
    else:
        lacks = [c for c in classes if c not in others]
        more = [c for c in others if c not in classes]
        what = "; ".join(
            f"{verb} {_short(names)}" for verb, names in (("lacks", lacks), ("adds", more)) if names
        )
    return (
        f"categories of {first} and {name} must be the same, by name and in order of their ids, "
        f"but {name} {what} ({_short(others)} instead of {_short(classes)}); write one list of "
        "categories into both files"
    )


def _short(names: list[str], limit: int = 6) -> str:
    few = ", ".join(shown(name, 40) for name in names[:limit])
    return f"{few}, ..." if len(names) > limit else few


def _look_for_masks(cfg: DictConfig, splits: list[str], found: Findings) -> None:
    """A model that learns masks needs them of every object, in training and in the truth."""
    if not has_mask_head(cfg):
        return
    for split in splits:
        for node in _coco_nodes(cfg.dataloader[split]):
            if node.get("missing_masks") == "rectangle":
                continue
            data = _read(node)
            missing = Problems(data.json_file)
            for record, annotation in data.without_mask():
                name = f"annotation {annotation['id']} of image {record['file_name']}"
                missing.add(MASK_MISSING, name)
            found.errors += [f"{line} (dataloader.{split})" for line in missing.lines()]


def _draw_sample(loader: DictConfig, record: Any) -> None:
    """The first image through the mapper, so that what fails for all fails here."""
    if "mapper" in loader:
        # a copy: mappers may change what they are given
        instantiate(loader.mapper)(copy.deepcopy(record))


def _look_at_truth(cfg: DictConfig, found: Findings) -> None:
    """The evaluator must score the dataset that the model is run on, and find objects there."""
    loader, name = cfg.dataloader.get("test", {}), cfg.dataloader.evaluator.get("dataset_name")
    names = dataset_names(loader)
    if name and names and name not in names:
        found.errors.append(
            f"dataloader.evaluator.dataset_name must be that of dataloader.test, "
            f"{' or '.join(names)}, got {name}"
        )
        return
    found.attempt(lambda: instantiate(cfg.dataloader.evaluator))
    truth = [_read(node) for node in _coco_nodes(loader)]
    if truth and not any(sum(data.counts()[0]) for data in truth):
        found.warnings.append(
            f"{truth[0].json_file} has no objects, or crowds alone (dataloader.test): there is "
            "nothing to find, and no AP will be reported"
        )


def _divide_batch(cfg: DictConfig, processes: int, found: Findings) -> None:
    batch = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
    steps = OmegaConf.select(cfg, "train.accumulation_steps") or 1
    if batch and batch % (processes * steps):
        found.errors.append(
            "dataloader.train.total_batch_size must be a multiple of processes x "
            f"train.accumulation_steps, got {batch} for {processes} x {steps}"
        )


def _check_seed(cfg: DictConfig, found: Findings) -> None:
    seed = OmegaConf.select(cfg, "train.seed")
    if seed is not None and type(seed) is not int:
        found.errors.append(
            f"train.seed must be a whole number, or below 0 for one that is drawn, got {seed!r}"
        )


def _tell_plan(
    cfg: DictConfig, dataset: _Dataset | None, rate_origin: str, found: Findings
) -> None:
    classes = next(iter(_classes(cfg.dataloader.train).values()), None)
    if classes:
        found.plan.append(f"{len(classes)} classes: {_short(classes)}")
    iterations = OmegaConf.select(cfg, "train.max_iter")
    batch = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
    if dataset is not None and iterations and type(batch) is int:
        epochs = batch * iterations / dataset.size
        found.plan.append(
            f"{dataset.size} images, {iterations} iterations of {batch}: {epochs:.1f} epochs"
        )
    rate = found.attempt(lambda: instantiate(OmegaConf.select(cfg, "optimizer.lr")))
    if isinstance(rate, int | float):
        found.plan.append(f"learning rate {rate:g} ({rate_origin})")
    elif rate is not None:
        found.errors.append(f"optimizer.lr must be a number, got {rate!r}")
