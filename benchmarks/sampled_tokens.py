"""Tokens that MIMDet's encoder and decoder work on, with padding as published and excluded.

    python -m benchmarks.sampled_tokens

No images are read: sizes are drawn like COCO's, 0.65 of them 640x480, 0.2 480x640, and the others
with the longer side 640 and the shorter one from 320 to 640, a third of them upright. Batches are
grouped by orientation, and the shorter side gets one of the recipe's lengths for each image, the
longer one at most 1333, as in MIMDet's training (without its crops).
"""

import argparse
import random

from mimdet.modeling.backbone.real_tokens import cells

_STRIDE, _UNIT, _BATCHES = 16, 32, 4000
_SIDES = (480, 512, 544, 576, 608, 640, 736, 768, 800)


def _image(rng: random.Random) -> tuple[int, int]:
    """(height, width) after resizing."""
    kind, short = rng.random(), rng.randint(320, 640)
    if kind < 0.65:
        short, is_upright = 480, False
    elif kind < 0.85:
        short, is_upright = 480, True
    else:
        is_upright = rng.random() < 1 / 3
    scale = min(rng.choice(_SIDES) / short, 1333 / 640)
    short, long = round(short * scale), round(640 * scale)
    return (long, short) if is_upright else (short, long)


def _batches(size: int):
    rng, groups = random.Random(0), {True: [], False: []}
    made = 0
    while made < _BATCHES:
        height, width = _image(rng)
        group = groups[height > width]
        group.append((height, width))
        if len(group) == size:
            yield list(group)
            group.clear()
            made += 1


def tokens(batch: list[tuple[int, int]], ratio: float) -> tuple[int, int, int]:
    """Encoder tokens of a batch: as published; excluded, with fillers; excluded, those that count.

    Fillers make the images of a batch equally long, see `sample_real_tokens`.
    """
    rows, columns = (
        max(-(-side // _UNIT) * _UNIT for side in sides) for sides in zip(*batch, strict=True)
    )
    published = len(batch) * int(rows // _STRIDE * (columns // _STRIDE) * ratio)
    kept = [int(h * w * ratio) for h, w in cells(batch, _STRIDE)]
    return published, len(batch) * max(kept), sum(kept)


def main(arguments: list[str] | None = None) -> None:
    """Print the table of configs/mimdet/README.md."""
    argparse.ArgumentParser(prog="python -m benchmarks.sampled_tokens").parse_args(arguments)
    print("| ratio | batch | published | excluded | of these its own | saved |")
    print("|---|---|---|---|---|---|")
    for ratio in (1.0, 0.5, 0.25):
        for size in (1, 2, 4):
            sums = [sum(x) for x in zip(*(tokens(b, ratio) for b in _batches(size)), strict=True)]
            published, made, own = (x / _BATCHES / size for x in sums)
            saved = f"{100 * (1 - made / published):.1f} %"
            print(f"| {ratio} | {size} | {published:.0f} | {made:.0f} | {own:.0f} | {saved} |")


if __name__ == "__main__":
    main()
