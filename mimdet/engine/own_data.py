"""`--data DIR`: a config made to fit a folder of images and annotations, and its schedule."""

import argparse
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from detectron2.config import LazyCall
from detectron2.evaluation import COCOEvaluator
from detectron2.utils.registry import locate
from mimdet.config import AUTO, RATIO, load_config
from mimdet.data.coco.layouts import Split, find_data
from mimdet.data.coco.read import CocoData
from mimdet.data.coco.register import load_coco_folder
from mimdet.data.coco.select import read_part
from mimdet.engine.follow_data import has_mask_head, nodes, number_of_classes, replace_dataset
from mimdet.engine.own_label_maps import is_segmentor, use_label_maps
from mimdet.shown import shown

EPOCHS, MIN_ITERATIONS = 36, 1000
IMAGES_PER_PROCESS = 4
_EVALUATIONS = 10  # points enough for a curve and for early stopping
_LONGEST_WARMUP = 0.1  # of the iterations


# What `--data` trains where no config is named.
DEFAULT_CONFIG = "mimdet/mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x"


@dataclass
class OwnData:
    """What a config was made to fit.

    Attributes:
        num_images: images with objects, or with label maps, to train on.
        notes: what was decided, a sentence each.
        rate_origin: how the learning rate follows; "" where the recipe or the user has set it.
    """

    num_images: int = 0
    notes: list[str] = field(default_factory=list)
    rate_origin: str = ""


def load_own_data(args: argparse.Namespace, processes: int) -> tuple[DictConfig, OwnData]:
    """Load the config of a command line with `--data`.

    Args:
        args: with `config_file`, `opts`, `trust_config`, `data`, `batch` and `epochs`.
        processes: of the job.

    Returns:
        The config, and what it was made to fit.

    Raises:
        FileNotFoundError, KeyError, ValueError: see `load_config`, `use_folder`.
    """
    for flag in ("batch", "epochs"):
        if getattr(args, flag) is not None and not getattr(args, flag) > 0:
            raise ValueError(f"--{flag} must be above 0, got {getattr(args, flag)}")
    own = OwnData()
    adapt = partial(_use, folder=args.data, own=own)
    cfg = load_config(args.config_file, args.opts, adapt, trusted=args.trust_config)
    written = {text.partition("=")[0].lstrip("+~") for text in args.opts}
    fit_schedule(cfg, own, args.batch, args.epochs, processes, written)
    return cfg, own


def _use(cfg: DictConfig, folder: str, own: OwnData) -> None:
    if is_segmentor(cfg):
        own.num_images = use_label_maps(cfg, folder, own.notes)
    else:
        use_folder(cfg, folder, own)


def use_folder(cfg: DictConfig, folder: str, own: OwnData) -> None:
    """Give the config of a detector the data of a folder, in place.

    Datasets, evaluator, number of classes and, where objects have no masks, the mask branch follow
    from the data, the output folder from the name of the folder.

    Args:
        cfg: a detector's config as its file has it.
        folder: see `find_data`.
        own: gets the number of images, and a note on each decision.

    Raises:
        FileNotFoundError, ValueError: see `find_data`, `read_coco`; and if the config has no
            detector that learns classes of objects.
    """
    if not (number_of_classes(cfg) and "dataset" in cfg.dataloader.get("test", {})):
        raise ValueError(
            "--data needs the config of a detector or segmentor, and this one trains none"
        )
    found = find_data(folder)
    data = {"train": _read(found.train), "val": _read(found.val)}
    own.num_images = sum(map(_has_objects, data["train"].records))
    own.notes += found.notes
    for split, part in (("train", found.train), ("val", found.val)):
        own.notes.append(f"{split}: {len(data[split].records)} images of {part.json_file}")
    common = {
        "classes": _used_classes(*data.values(), own.notes),
        "missing_masks": _missing_masks(cfg, *data.values(), own.notes),
    }
    name = Path(folder).resolve().name
    for loader, split, part in (("train", "train", found.train), ("test", "val", found.val)):
        replace_dataset(
            cfg.dataloader[loader],
            LazyCall(load_coco_folder)(
                name=f"{name}_{split}",
                json_file=part.json_file,
                image_root=part.image_root,
                filter_empty=split == "train",
                share=None if part.share is None else list(part.share),
                **common,
            ),
        )
    _score_as_coco(cfg)
    for key in number_of_classes(cfg):
        OmegaConf.update(cfg, key, AUTO)
    cfg.train.output_dir = f"output/{name}"
    cfg.train.amp.dtype = "auto"  # the float16 of a released recipe is for repeating it
    cfg.train.best_metric = "bbox/AP"
    if OmegaConf.select(cfg, RATIO) is not None:
        cfg.train.eval_sample_ratio = 1.0  # as published results are


def _read(part: Split) -> CocoData:
    data = read_part(part.json_file, part.image_root, share=part.share)
    data.problems.refuse()  # the rest is told where the dataset is registered
    return data


def _has_objects(record: dict) -> bool:
    return any(not annotation["iscrowd"] for annotation in record["annotations"])


def _used_classes(train: CocoData, val: CocoData, notes: list[str]) -> list[str]:
    """The classes that have objects, in the order of the training file."""
    names = [*train.classes, *(name for name in val.classes if name not in train.classes)]
    used = set()
    for data in (train, val):
        used |= {name for name, n in zip(data.classes, data.counts()[0], strict=True) if n}
    if unused := [name for name in names if name not in used]:
        notes.append(f"classes without objects are left out: {', '.join(map(shown, unused))}")
    for data, other in ((train, val), (val, train)):
        if lacking := [name for name in names if name in used and name not in data.classes]:
            raise ValueError(
                f"{data.json_file} must know the classes of {other.json_file}, and lacks "
                f"{', '.join(map(shown, lacking))}; write one list of categories into both files"
            )
    return [name for name in names if name in used]


def _missing_masks(cfg: DictConfig, train: CocoData, val: CocoData, notes: list[str]) -> str:
    """One object without a mask makes a detector of boxes: a box for a mask would be learnt."""
    lacking = sum(1 for data in (train, val) for _ in data.without_mask())
    if not lacking or not has_mask_head(cfg):
        return "refuse"
    total = sum(sum(data.counts()[0]) for data in (train, val))
    notes.append(
        f"{lacking} of {total} objects have no mask: a detector of boxes (to take the box as mask: "
        "dataloader.train.dataset.missing_masks=rectangle, and the same for dataloader.test)"
    )
    return "boxes"


def _score_as_coco(cfg: DictConfig) -> None:
    """COCO's AP; what is made for the classes of LVIS does not fit others."""
    target = cfg.dataloader.evaluator._target_
    target = locate(target) if isinstance(target, str) else target
    if not issubclass(target, COCOEvaluator):
        cfg.dataloader.evaluator = LazyCall(COCOEvaluator)(dataset_name=None)
    cfg.dataloader.evaluator.dataset_name = "${dataloader.test.dataset.name}"
    for node in nodes(cfg.model):
        if "get_fed_loss_cls_weights" in node:
            node.update(use_fed_loss=False, get_fed_loss_cls_weights=None)


def fit_schedule(
    cfg: DictConfig,
    own: OwnData,
    batch: int | None,
    epochs: float | None,
    processes: int,
    written: Collection[str],
) -> None:
    """Set batch, learning rate and number of iterations, in place.

    The learning rate of the recipe changes with the root of the batch for Adam (as the released
    recipes of MIMDet for batch 64 and 16 differ) and in proportion to it for SGD (Goyal et al.
    2017, arXiv 1706.02677, section 2.1). Steps keep their share of the iterations, the warm-up its
    iterations, of which it takes a tenth at most.

    Args:
        cfg: of the run, overrides included.
        own: from `use_folder`; gets what is decided here.
        batch: images per iteration of all processes; None for the recipe's, or fewer, so that each
            process has `IMAGES_PER_PROCESS` at most in each of `train.accumulation_steps`.
        epochs: None for `EPOCHS`, or more, so that there are `MIN_ITERATIONS`.
        processes: of the job.
        written: keys that the user has set, and that stay as they are.
    """
    loader, train = cfg.dataloader.train, cfg.train
    recipe_batch, recipe_iterations = loader.total_batch_size, train.max_iter
    steps = train.get("accumulation_steps", 1)
    pieces = processes * (steps if type(steps) is int and steps > 0 else 1)  # else refused later
    batch = batch or min(recipe_batch, IMAGES_PER_PROCESS * pieces)
    if "dataloader.train.total_batch_size" in written:
        batch = recipe_batch
    loader.total_batch_size = batch
    epoch = max(1, own.num_images / batch)
    if "train.max_iter" not in written:
        least = 1 if epochs else MIN_ITERATIONS
        train.max_iter = max(least, math.ceil(epoch * (epochs or EPOCHS)))
    _fit_warmup(cfg.lr_multiplier, recipe_iterations, train.max_iter)
    period = max(1, math.ceil(max(epoch, train.max_iter / _EVALUATIONS)))
    for key in ("train.eval_period", "train.checkpointer.period"):
        if key not in written:
            OmegaConf.update(cfg, key, period)
    when = f"every {train.eval_period} iterations" if train.eval_period else "at the end alone"
    own.notes.append(f"evaluated {when}")
    rate = cfg.optimizer.get("lr")
    if isinstance(rate, int | float) and "optimizer.lr" not in written:
        own.rate_origin = _scale_rate(cfg, batch / recipe_batch)


def _scale_rate(cfg: DictConfig, ratio: float) -> str:
    """Scale the learning rate, and tell how."""
    target = cfg.optimizer._target_
    target = locate(target) if isinstance(target, str) else target
    is_sgd = issubclass(target, torch.optim.SGD)
    recipe = cfg.optimizer.lr
    cfg.optimizer.lr = recipe * (ratio if is_sgd else math.sqrt(ratio))
    return (
        f"the recipe's {recipe:.3g} times {'' if is_sgd else 'the root of '}{ratio:.3g}, this "
        "batch over the recipe's; optimizer.lr=... sets another"
    )


def _fit_warmup(multiplier: DictConfig, before: int, after: int) -> None:
    # Milestones need no change: they count updates of the recipe, as shares of the whole run.
    for node in nodes(multiplier):
        if "warmup_length" in node:
            # A share of the run, of which the same iterations are another one now.
            node.warmup_length = min(node.warmup_length * before / after, _LONGEST_WARMUP)
