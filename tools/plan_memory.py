#!/usr/bin/env python
"""Memory of a training step: what a detector keeps for its backward pass; needs no GPU.

python tools/plan_memory.py configs/vitdet/mask_rcnn_vitdet_b_100ep.py --size 1024 1024
python tools/plan_memory.py CONFIG --batch 4 model.backbone.bottom_up.sample_ratio=0.25
"""

from pathlib import Path

from mimdet.analysis.memory_table import HEADER, row
from mimdet.command_line import add_overrides, mistakes_in_one_line, tool_parser
from mimdet.config import load_config
from mimdet.engine.memory_plan import training_size


def main(argv: list[str] | None = None) -> None:
    """Read the command line, measure and print a row of the table in docs/memory.md."""
    parser = tool_parser(__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        metavar=("HEIGHT", "WIDTH"),
        help="of the padded batch in pixels; default: the largest of the config",
    )
    parser.add_argument("--batch", type=int, default=2, help="images of one process; default 2")
    add_overrides(parser)
    args = parser.parse_intermixed_args(argv)
    if min(*(args.size or (1,)), args.batch) < 1:
        parser.error(f"--size and --batch must be positive, got {args.size} and {args.batch}")
    with mistakes_in_one_line(parser):
        cfg = load_config(args.config, args.opts, trusted=args.trust_config)
        size = tuple(args.size) if args.size else training_size(cfg)
        measured = row(Path(args.config).stem, cfg, args.batch, size)
    print(HEADER, measured, sep="\n")


if __name__ == "__main__":
    main()
