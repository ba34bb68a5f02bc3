"""A config as flat recipe values, in the keys of `golden/recipes.json.gz`.

Keys follow the tree of the config. What a call leaves out counts with its default, so the values
are what acts, not what is written.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from config_files import build_on_meta, count_parameters
from omegaconf import DictConfig, OmegaConf
from recipe_calls import arguments_of, flatten, plain_value, target_of
from recipe_networks import network_values

from detectron2.config import instantiate


def recipe_of(cfg: DictConfig, released: Mapping[str, Any]) -> dict[str, Any]:
    """All values of a config that change what is trained or what is evaluated.

    Args:
        cfg: a whole config.
        released: the recipe to compare with. Its points of the schedule are the ones computed, and
            the model of a detector is built only for values that need it.
    """
    values = dict(flatten("model", cfg.model))
    values |= _loading(cfg.dataloader.train)
    values |= _under("data.train", _steps_of_detection(cfg) or _steps_of_images(cfg.dataloader))
    if "test" in cfg.dataloader:
        values |= _evaluation(cfg.dataloader)
    values |= _under("optim", _optimizer(cfg))
    iterations = [i for i, _ in released.get("schedule.multiplier_at", ())]
    values |= _under("schedule", _schedule(cfg, iterations))
    values |= _under("ddp", cfg.train.ddp)
    values["precision.amp"] = cfg.train.amp.enabled
    values["precision.dtype"] = cfg.train.amp.dtype if cfg.train.amp.enabled else "float32"
    return values if set(released) <= set(values) else values | _built(cfg)


def _built(cfg: DictConfig) -> dict[str, Any]:
    """Values of the model as built and of its parameter groups."""
    model = build_on_meta(cfg)
    values = _under("model", network_values(model))
    values["model.parameters"], values["model.parameters_trained"] = count_parameters(model)
    cfg.optimizer.params.model = model
    groups = instantiate(cfg.optimizer).param_groups
    return values | {"optim.groups.table": _group_table(groups, instantiate(cfg.optimizer.lr))}


def _under(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


# --- Data -----------------------------------------------------------------------------------------


def _loading(loader: DictConfig) -> dict[str, Any]:
    values = dict(flatten("data.train", loader))
    sampler = loader.get("sampler")  # the one that stands for None is the loader's own
    values["data.train.sampler"] = target_of(sampler).__name__ if sampler else "TrainingSampler"
    threshold = OmegaConf.select(loader, "sampler.repeat_factors.repeat_thresh")
    return values | {"data.train.sampler.repeat_thresh": threshold}


def _steps_of_detection(cfg: DictConfig) -> dict[str, Any]:
    """What the augmentations do, for releases that have no list of these steps."""
    mapper = cfg.dataloader.train.mapper
    values = {}
    if "mapper" in mapper:
        values["copy_paste.pasted_at_most"] = arguments_of(mapper)["max_num_pasted"]
        mapper = mapper.mapper
    if "augmentations" not in mapper:
        return {}
    steps = {target_of(step).__name__: arguments_of(step) for step in mapper.augmentations}
    values["hflip"] = steps["RandomFlip"]["prob"] * steps["RandomFlip"]["horizontal"]
    if "ResizeScale" in steps:
        scale, crop = steps["ResizeScale"], steps["FixedSizeCrop"]
        values["scale_jitter"] = [scale["min_scale"], scale["max_scale"]]
        values["target_size"] = [scale["target_height"], scale["target_width"]]
        values["crop_size"] = plain_value(steps.get("RandomCrop", crop)["crop_size"])
        # without padding here the model pads by zeros after normalisation, which is the mean
        colours = {0.0: "black", 128.0: "grey"}
        values["pad_colour"] = colours[crop["pad_value"]] if crop["pad"] else "mean"
        square = [cfg.model.backbone.get("square_pad")] * 2
        values["pad_to"] = plain_value(crop["crop_size"]) if crop["pad"] else square
    return values


def _steps_of_images(dataloader: DictConfig) -> dict[str, Any]:
    """What timm's transform and mixing do in training."""
    loader = dataloader.train
    call, (steps, values) = loader.mapper.transform, _timm_steps(loader.mapper)
    crop = steps["RandomResizedCropAndInterpolation"]
    values |= {
        "crop.interpolation": crop.interpolation.value,
        "crop.ratio": list(crop.ratio),
        "crop.scale": list(crop.scale),
        "hflip": getattr(steps.get("RandomHorizontalFlip"), "p", 0.0),  # left out if never
        **{name: call.get(name) for name in ("auto_augment", "re_prob", "re_mode", "re_count")},
    }
    if loader.get("collate_fn"):
        mixing = arguments_of(loader.collate_fn)
        values |= {
            "mixup.alpha": mixing["mixup_alpha"],
            "mixup.mode": instantiate(loader.collate_fn)._mixup.mode,
            **{
                f"mixup.{name}": mixing[name]
                for name in ("cutmix_alpha", "label_smoothing", "prob", "switch_prob")
            },
        }
    return values


def _timm_steps(mapper: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Class name -> transform, and the values that training and evaluation have both."""
    steps = {type(step).__name__: step for step in instantiate(mapper.transform).transforms}
    normalize = steps["Normalize"]
    return steps, {
        "image_size": mapper.transform.input_size,
        "mean": normalize.mean.tolist(),
        "std": normalize.std.tolist(),
    }


def _evaluation(dataloader: DictConfig) -> dict[str, Any]:
    test = dataloader.test
    if "transform" in test.mapper:
        steps, values = _timm_steps(test.mapper)
        values["crop"] = "center" if "CenterCrop" in steps else None
        values["interpolation"] = steps["Resize"].interpolation.value
        values["resize_short_side"] = steps["Resize"].size
        return _under("data.test", values)
    resize = arguments_of(test.mapper.augmentations[0])
    return {
        **dict(flatten("data.test", test)),
        **dict(flatten("data.evaluator", dataloader.evaluator)),
        "data.test.resize_short_side": resize["short_edge_length"],
        "data.test.resize_long_side_max": resize["max_size"],
    }


# --- Optimiser and schedule -----------------------------------------------------------------------


def _optimizer(cfg: DictConfig) -> dict[str, Any]:
    call = cfg.optimizer
    arguments = arguments_of(call)
    values = {"type": target_of(call).__name__, "lr": instantiate(call.lr)}
    for name in ("betas", "eps", "momentum", "weight_decay"):
        values[name] = plain_value(arguments.get(name))
    if isinstance(call.lr, Mapping):
        scaled = arguments_of(call.lr)
        values["base_lr_per_256"] = scaled["base_lr"] * 256 / scaled["reference_batch_size"]
    factor = instantiate(call.params.get("lr_factor_func"))
    if isinstance(factor, partial):
        values["layer_decay.rate"] = factor.keywords["lr_decay_rate"]
        values["layer_decay.num_layers"] = factor.keywords["num_layers"]
    max_norm = cfg.train.clip_grad.max_norm
    values["clip.max_norm"] = "none" if max_norm in (None, float("inf")) else max_norm
    return values


def _group_table(groups: Sequence[Mapping], lr: float) -> list[list[float]]:
    """Rows [learning rate / lr, weight decay, tensors, numbers], by rate and decay."""
    rows: dict[tuple[float, float], list[int]] = {}
    for group in groups:
        # products of one rate in another order are one rate
        row = rows.setdefault((float(f"{group['lr'] / lr:.9g}"), group["weight_decay"]), [0, 0])
        row[0] += len(group["params"])
        row[1] += sum(p.numel() for p in group["params"])
    return [[*key, *row] for key, row in sorted(rows.items())]


def _schedule(cfg: DictConfig, iterations: Sequence[int]) -> dict[str, Any]:
    total, call = cfg.train.max_iter, cfg.lr_multiplier
    schedule = instantiate(call)
    values = {
        "max_iter": total,
        "warmup_iters": call.warmup_length * total,
        "multiplier_at": [[i, schedule(i / total)] for i in iterations],
    }
    if "milestones" in call.scheduler:
        heights = call.scheduler["values"]
        factors = [after / before for before, after in zip(heights, heights[1:], strict=False)]
        drops = zip(call.scheduler.milestones, factors, strict=True)
        values["drops"] = [list(drop) for drop in drops]
    return values
