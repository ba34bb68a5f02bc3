"""What MIMDet's sample ratio costs and gains: AP, time and memory over the share of tokens seen."""

import io
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from detectron2.evaluation import DatasetEvaluator, inference_on_dataset
from mimdet.analysis.peak_memory import peak_memory
from mimdet.evaluation.results import InferenceTimer
from mimdet.progress import progress

Batch = list[dict[str, Any]]


@dataclass
class RatioPoint:
    """What was measured at one sample ratio.

    Attributes:
        ratio: share of the tokens that the encoder sees, in (0, 1].
        ap: task ("bbox", "segm") -> its AP in percent with each seed. At ratio 1.0 there is nothing
            to draw, and one value.
        seconds: of the model for an image, one of each round.
        peak_memory: bytes, see `peak_memory`; None where nothing counts it.
    """

    ratio: float
    ap: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    peak_memory: int | None = None

    @property
    def median_seconds(self) -> float:
        """Of the rounds: one in which another program got in between does not count."""
        return statistics.median(self.seconds)

    def as_dict(self) -> dict[str, Any]:
        """The point as plain data, as ``ratio.json`` has it; see docs/ratio.md."""
        return {
            "ratio": self.ratio,
            "AP": {task: _spread(values) for task, values in self.ap.items()},
            "seconds": self.median_seconds,
            "seconds_of_rounds": self.seconds,
            "peak_memory": self.peak_memory,
        }


def _spread(values: list[float]) -> dict[str, Any]:
    # of a sample: few seeds stand for all there are
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "deviation": deviation, "of_seeds": values}


class RatioDial:
    """A detector whose sample ratio is turned from one value to the next.

    Args:
        model: in eval mode, with MIMDet's backbone.
        precision: makes the context in which the model computes, such as one of autocast.

    Raises:
        ValueError: if no part of the model samples tokens.
    """

    def __init__(self, model: nn.Module, precision: Callable[[], AbstractContextManager]):
        self.model = model
        self._precision = precision
        self._sampling = [m for m in model.modules() if hasattr(m, "sample_ratio")]
        if not self._sampling:
            raise ValueError(
                "the sample ratio is one of MIMDet's backbone, and this model has another one "
                "(model.backbone.bottom_up)"
            )

    def turn(self, ratio: float, seed: int) -> None:
        """Let the encoder see `ratio` of the tokens, those that `seed` draws."""
        for module in self._sampling:
            module.sample_ratio, module.sample_seed = ratio, seed

    def measure_ap(
        self,
        points: Iterable[RatioPoint],
        seeds: int,
        loader: Iterable[Batch],
        evaluator: DatasetEvaluator,
    ) -> None:
        """Evaluate at each ratio with seeds from 0 on, and once where all tokens are seen.

        Args:
            points: get their `ap`.
            seeds: how many.
            loader: of all images, as many times as it is asked.
            evaluator: of their detections.

        Raises:
            ValueError: if there is nothing to detect in the images.
        """
        runs = [(p, seed) for p in points for seed in range(1 if p.ratio == 1 else seeds)]
        for point, seed in progress(runs, len(runs), "AP", "evaluation"):
            self.turn(point.ratio, seed)
            # COCO's scorer prints a page for each
            with self._precision(), redirect_stdout(io.StringIO()):
                results = inference_on_dataset(self.model, loader, evaluator)
            for task, metrics in results.items():
                if math.isnan(metrics["AP"]):
                    raise ValueError(
                        f"the images must show objects, and there is none to score {task} by"
                    )
                point.ap.setdefault(task, []).append(metrics["AP"])

    @torch.no_grad()
    def measure_cost(
        self, points: Sequence[RatioPoint], images: Sequence[Batch], rounds: int
    ) -> None:
        """Time the model, then measure its memory.

        In a round each ratio has its turn with the same image, so that what slows the machine down
        for a while slows all of them. A round before the first one warms up and does not count.

        Args:
            points: get their `seconds` and `peak_memory`.
            images: batches of one image; a round takes the next one.
            rounds: how many.
        """
        timers = [InferenceTimer() for _ in points]
        turns = [(k, i) for k in range(rounds + 1) for i in range(len(points))]
        device = next(self.model.parameters()).device
        with self._precision():
            for k, i in progress(turns, len(turns), "time", "image"):
                # Another draw in each round, the same for all ratios of it.
                self.turn(points[i].ratio, seed=k)
                timers[i].callbacks["before_inference"]()
                self.model(images[k % len(images)])
                timers[i].callbacks["after_inference"]()
            for point, timer in zip(points, timers, strict=True):
                self.turn(point.ratio, seed=0)
                point.seconds = timer.seconds[1:]
                point.peak_memory = peak_memory(lambda: self.model(images[0]), device)


def resized(batch: Batch, size: tuple[int, int]) -> Batch:
    """The images of a batch in this (height, width), and so the frame of their detections."""
    return [
        {
            **image,
            "image": F.interpolate(image["image"][None].float(), size, mode="bilinear")[0],
            "height": size[0],
            "width": size[1],
        }
        for image in batch
    ]


def noise(size: tuple[int, int]) -> Batch:
    """A batch of one image of this (height, width) with nothing to see in it, always the same."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8)
    return [{"image": image, "height": size[0], "width": size[1]}]


def choose(points: Iterable[RatioPoint], max_seconds: float) -> RatioPoint | None:
    """The point with the highest mean AP among those that are fast enough.

    It is the AP of the first task, of boxes. Of points without AP, or with the same, the one with
    the highest ratio is chosen.

    Returns:
        None if none is fast enough.
    """

    def worth(point: RatioPoint) -> tuple[float, float]:
        return statistics.fmean(next(iter(point.ap.values()), [0.0])), point.ratio

    fast = [point for point in points if point.median_seconds <= max_seconds]
    return max(fast, key=worth, default=None)
