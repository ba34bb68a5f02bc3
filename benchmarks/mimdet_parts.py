"""Where MIMDet-B spends its time on an image, by the share of tokens that its encoder sees.

    python -m benchmarks.mimdet_parts

The whole detector with random weights, one image, one thread, float32; CPU seconds, medians of
rounds in which every ratio has its turn. The box head is made to take each proposal for an object,
so that there are 100 detections to predict masks for.
"""

import argparse
import collections
import statistics
import time
from collections.abc import Sequence

import torch
from torch import nn

from detectron2.config import instantiate
from mimdet.config import load_config

_CONFIG = "mimdet/mimdet_vit_base_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x"
_RATIOS = (0.25, 0.5, 1.0)
# part -> its modules; the time of a module within another one is not the other's
_PARTS = {
    "stem": ("backbone.bottom_up.encoder.patch_embed",),
    "encoder, without the stem": ("backbone.bottom_up.encoder",),
    "decoder": ("backbone.bottom_up.decoder",),
    "FPN": ("backbone",),
    "RPN": ("proposal_generator",),
    "box head": ("roi_heads.box_pooler", "roi_heads.box_head", "roi_heads.box_predictor"),
    "choice of detections": ("roi_heads",),
    "mask head": ("roi_heads.mask_pooler", "roi_heads.mask_head"),
    "before and after": ("",),  # pixels to a batch, detections to the size of the photo
}
_WHOLE = "whole detector"


class PartTimes:
    """CPU seconds of the parts of a model, as long as it runs.

    Args:
        model: whose modules are told apart.
        parts: dotted names of the modules of each part.

    Attributes:
        seconds: by part, since the start.
    """

    def __init__(self, model: nn.Module, parts: dict[str, Sequence[str]]):
        self.seconds: collections.Counter[str] = collections.Counter()
        self._running: list[str] = []
        self._since = 0.0
        for part, names in parts.items():
            for name in names:
                module = model.get_submodule(name)
                module.register_forward_pre_hook(lambda *_, part=part: self._enter(part))
                module.register_forward_hook(lambda *_: self._leave())

    def _enter(self, part: str) -> None:
        self._book()
        self._running.append(part)

    def _leave(self) -> None:
        self._book()
        self._running.pop()

    def _book(self) -> None:
        """Give the time since the last change to the innermost part."""
        now = time.process_time()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


def _model() -> nn.Module:
    torch.manual_seed(0)
    model = instantiate(load_config(_CONFIG, []).model).eval()
    model.roi_heads.box_predictor.cls_score.bias.data[0] = 5.0  # above 0.05, all others below
    return model


@torch.no_grad()
def measure(size: tuple[int, int], rounds: int) -> dict[float, dict[str, float]]:
    """Ratio -> part -> median CPU seconds.

    Raises:
        RuntimeError: if there are not 100 detections.
    """
    model = _model()
    image = {"image": torch.rand(3, *size, generator=torch.Generator().manual_seed(0)) * 255}
    model([{"image": image["image"][:, :128, :128]}])  # caches and lazy imports
    times = PartTimes(model, _PARTS)
    measured = {ratio: [] for ratio in _RATIOS}
    for _ in range(rounds):
        for ratio, of_rounds in measured.items():
            model.backbone.bottom_up.sample_ratio = ratio
            times.seconds.clear()
            (found,) = model([image])
            if (number := len(found["instances"])) != 100:
                raise RuntimeError(f"there must be 100 detections, got {number}")
            of_rounds.append({**times.seconds, _WHOLE: times.seconds.total()})
    return {
        ratio: {part: statistics.median(r[part] for r in of_rounds) for part in of_rounds[0]}
        for ratio, of_rounds in measured.items()
    }


def main(arguments: list[str] | None = None) -> None:
    """Print the table of configs/mimdet/README.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mimdet_parts")
    parser.add_argument("--size", nargs=2, type=int, default=(800, 1216), help="height and width")
    parser.add_argument("--rounds", type=int, default=5, help="measured images of each ratio")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    torch.set_num_threads(1)
    seconds = measure(tuple(options.size), options.rounds)
    print("| part | " + " | ".join(f"ratio {ratio}" for ratio in _RATIOS) + " |")
    print("|---|" + "---:|" * len(_RATIOS))
    for part in (*_PARTS, _WHOLE):
        cells = (f"{s[part]:.2f} s, {100 * s[part] / s[_WHOLE]:.0f} %" for s in seconds.values())
        print(f"| {part} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
