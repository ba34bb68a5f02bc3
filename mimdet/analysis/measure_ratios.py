"""From a checkpoint or a config to the curve of its sample ratio."""

import itertools
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from detectron2.config import LazyCall, instantiate
from detectron2.evaluation import COCOEvaluator
from mimdet.analysis.predictor import card_and_config, usable_device
from mimdet.analysis.ratio_curve import Batch, RatioDial, RatioPoint, choose, noise, resized
from mimdet.analysis.trained_model import trained_model
from mimdet.checkpoint.card import Card
from mimdet.config import load_config
from mimdet.data.coco.layouts import find_data
from mimdet.data.datasets import load_coco_folder
from mimdet.engine.evaluation import build_evaluator
from mimdet.engine.precision import evaluation_context
from mimdet.evaluation.protocol import model_settings, versions
from mimdet.report.ratio_page import DATA

_IMAGES = 8  # that are timed, in turn
_OF_CONFIGS = ("", ".py", ".yaml", ".yml")  # ends of their names; those of checkpoints are others
_TURNED = ("sample_ratio", "sample_seed")  # settings that each point has its own of


@dataclass(frozen=True)
class Measurement:
    """What is to be measured, and how.

    Attributes:
        ratios: shares of the tokens, each in (0, 1].
        seeds: evaluations of each ratio below 1.0; 0 leaves the AP out.
        rounds: of timing.
        size: (height, width) of the images that are timed; None for those of the evaluation.
        max_seconds: for an image, of the ratio to be chosen; None chooses none.
        device: "auto" for a GPU where there is one.
    """

    ratios: Sequence[float] = (0.25, 0.375, 0.5, 0.75, 1.0)
    seeds: int = 3
    rounds: int = 10
    size: tuple[int, int] | None = None
    max_seconds: float | None = None
    device: str = "auto"

    def __post_init__(self):
        if not (self.ratios and all(0 < ratio <= 1 for ratio in self.ratios)):
            raise ValueError(f"ratios must be above 0 and at most 1, got {list(self.ratios)}")
        if self.seeds < 0 or self.rounds < 1:
            raise ValueError(
                f"seeds must be 0 or more and rounds 1 or more, got {self.seeds} and {self.rounds}"
            )
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"a size must be two positive numbers, got {self.size}")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError(f"the seconds must be above 0, got {self.max_seconds}")


def measure_ratios(
    source: str,
    what: Measurement,
    output: Path,
    config_file: str | None = None,
    overrides: Sequence[str] = (),
    data: str | None = None,
    trusted: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure what the sample ratio of a detector costs and gains.

    Args:
        source: a checkpoint; or a config, whose weights are random, so that only time and memory
            are measured.
        what: the ratios and how they are measured.
        output: folder for the results, made once there is something to measure; an earlier `DATA`
            in it gets a number.
        config_file: for a checkpoint that tells none, or another one.
        overrides: ``key=value`` for the config.
        data: folder whose validation images are detected in; those of the config by default.
        trusted: see `mimdet.trusted`.

    Returns:
        The content of `DATA`, see docs/ratio.md.

    Raises:
        FileNotFoundError, KeyError, ValueError: if a file is not there or is another one, or what
            is asked for cannot be measured.
    """
    has_weights = Path(source).suffix not in _OF_CONFIGS
    if has_weights:
        card, cfg = card_and_config(source, config_file, overrides, trusted)
        cfg.train.init_checkpoint = source
    else:
        card, cfg = None, load_config(source, overrides, trusted=trusted)
    scored = has_weights and what.seeds > 0
    if not scored and what.size is None:
        raise ValueError("without AP no images are read: say at which size to time (--size)")
    cfg.train.device = usable_device(what.device)
    model = trained_model(cfg) if has_weights else instantiate(cfg.model).to(cfg.train.device)
    dial = RatioDial(model.eval(), lambda: evaluation_context(cfg.train))
    points = [RatioPoint(ratio) for ratio in sorted(set(what.ratios))]
    loader = _loader(cfg, data, card) if scored else ()
    output.mkdir(parents=True, exist_ok=True)
    if scored:
        # The predictions of each of the evaluations are wanted by nobody.
        OmegaConf.update(cfg.dataloader.evaluator, "output_dir", None, force_add=True)
        dial.measure_ap(points, what.seeds, loader, build_evaluator(cfg, output / DATA))
    # One at a time, whatever the batch of the evaluation: seconds are those of an image.
    images = [[image] for image in itertools.islice(itertools.chain(*loader), _IMAGES)]
    if what.size is not None:
        images = [resized(image, what.size) for image in images] or [noise(what.size)]
    dial.measure_cost(points, images, what.rounds)
    return {
        "format": 1,
        "source": source,
        "dataset": cfg.dataloader.evaluator.dataset_name if scored else None,
        "seeds": what.seeds if scored else 0,
        "timed": _timed(what, len(images), torch.device(cfg.train.device)),
        "settings": {k: v for k, v in model_settings(model).items() if k not in _TURNED},
        "points": [point.as_dict() for point in points],
        "choice": _choice(points, what.max_seconds),
        "versions": {package: str(version) for package, version in versions().items()},
    }


def _loader(cfg: DictConfig, folder: str | None, card: Card | None) -> Iterable[Batch]:
    """The images to detect in, whose evaluator `cfg` has then."""
    if folder is not None:
        part = find_data(folder).val
        cfg.dataloader.test.dataset = LazyCall(load_coco_folder)(
            name=part.json_file,  # nobody else's, and it tells where they are
            json_file=part.json_file,
            image_root=part.image_root,
            filter_empty=False,
            share=None if part.share is None else list(part.share),
            classes=card.classes if card and card.classes else None,  # as the heads number them
        )
        cfg.dataloader.evaluator = LazyCall(COCOEvaluator)(dataset_name=part.json_file)
    return instantiate(cfg.dataloader.test)


def _timed(what: Measurement, images: int, device: torch.device) -> dict[str, Any]:
    is_gpu = device.type == "cuda"
    return {
        "size": list(what.size) if what.size else None,
        "images": images,
        "rounds": what.rounds,
        "device": torch.cuda.get_device_name(device) if is_gpu else platform.processor() or "CPU",
        "threads": None if is_gpu else torch.get_num_threads(),
    }


def _choice(points: list[RatioPoint], max_seconds: float | None) -> dict[str, Any] | None:
    if max_seconds is None:
        return None
    chosen = choose(points, max_seconds)
    return {"max_seconds": max_seconds, "ratio": chosen.ratio if chosen else None}
