#!/usr/bin/env python
"""Memory of a training step: what the backbone keeps, with and without checkpointing; needs no GPU.

python tools/plan_memory.py configs/vitdet/mask_rcnn_vitdet_b_100ep.py --size 1024 1024
python tools/plan_memory.py CONFIG --batch 4 model.backbone.bottom_up.sample_ratio=0.25
"""

from omegaconf import DictConfig, OmegaConf

from mimdet.analysis.kept_memory import kept_bytes
from mimdet.command_line import add_overrides, mistakes_in_one_line, tool_parser
from mimdet.config import all_keys, load_config

_SWITCHES = ("checkpointing", "with_cp", "use_act_checkpoint")


def main(argv: list[str] | None = None) -> None:
    """Read the command line, measure and print a row of the table in docs/memory.md."""
    parser = tool_parser(__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        default=(800, 1344),
        metavar=("HEIGHT", "WIDTH"),
        help="of the padded batch in pixels; default 800 1344",
    )
    parser.add_argument("--batch", type=int, default=2, help="images of one process; default 2")
    add_overrides(parser)
    args = parser.parse_intermixed_args(argv)
    if min(*args.size, args.batch) < 1:
        parser.error(f"--size and --batch must be positive, got {args.size} and {args.batch}")
    with mistakes_in_one_line(parser):
        cfg = load_config(args.config, args.opts, trusted=args.trust_config)
        kept = [_kept(cfg, on, args.batch, tuple(args.size)) for on in (False, True)]
    height, width = args.size
    off, on = (f"{number / 2**30:.2f} GiB" for number in kept)
    print("| batch | size | kept without checkpointing | with it |")
    print("|---:|---|---:|---:|")
    print(f"| {args.batch} | {height}x{width} | {off} | {on} |")


def _kept(cfg: DictConfig, checkpointing: bool, batch: int, size: tuple[int, int]) -> int:
    switches = [key for key in all_keys(cfg.model) if key.rpartition(".")[2] in _SWITCHES]
    for key in switches:
        OmegaConf.update(cfg.model, key, checkpointing)
    return kept_bytes(cfg.model, batch, size)


if __name__ == "__main__":
    main()
