#!/usr/bin/env python
"""Parameters and multiply-adds of a detector by part, for one image; needs no weights, no GPU.

python tools/analyze_model.py configs/mpvit/mask_rcnn_mpvit_tiny_1x.py
python tools/analyze_model.py configs/vitdet/mask_rcnn_vitdet_b_100ep.py --size 1024 1024 --depth 3
"""

from mimdet.analysis.model_statistics import (
    NUM_DETECTIONS,
    NUM_PROPOSALS,
    WHAT_IS_COUNTED,
    ModelStatistics,
    model_statistics,
)
from mimdet.command_line import add_overrides, mistakes_in_one_line, tool_parser
from mimdet.config import load_config


def main(argv: list[str] | None = None) -> None:
    """Read the command line, count and print."""
    parser = tool_parser(__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        default=(800, 1280),
        metavar=("HEIGHT", "WIDTH"),
        help="of the image in pixels; default 800 1280",
    )
    parser.add_argument("--depth", type=int, default=2, help="levels of modules that are listed")
    add_overrides(parser)
    args = parser.parse_intermixed_args(argv)
    if min(args.size) < 1:
        parser.error(f"--size must be two positive numbers, got {args.size}")
    with mistakes_in_one_line(parser):
        cfg = load_config(args.config, args.opts, trusted=args.trust_config)
        statistics = model_statistics(cfg.model, tuple(args.size))
    print_report(statistics, args.depth)


def print_report(statistics: ModelStatistics, depth: int) -> None:
    """Print the parts, down to `depth` levels of modules, and the kinds of operations."""
    height, width = statistics.image_size
    print(f"{'part':40} {'parameters':>13} {'1e9 multiply-adds':>18} {'without attention':>18}")
    for part, count in statistics.parameters.items():
        total = statistics.total(part)
        if part.count(".") < depth and (count or total):
            without = statistics.total(part, attention=False)
            print(f"{part or 'all':40} {count:>13,} {total / 1e9:>18.3f} {without / 1e9:>18.3f}")
    print()
    for kind, count in sorted(statistics.operations[""].items(), key=lambda item: -item[1]):
        print(f"{kind:40} {'':13} {count / 1e9:>18.3f}")
    print(
        f"\nOne image of {height}x{width}, {NUM_PROPOSALS} proposals, {NUM_DETECTIONS} detections."
    )
    print(WHAT_IS_COUNTED)


if __name__ == "__main__":
    main()
