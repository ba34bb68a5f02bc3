#!/usr/bin/env python
"""Measure what MIMDet's sample ratio buys: AP, time and memory over the share of tokens seen.

python tools/ratio.py model_best.pth --data DIR --size 800 1216
python tools/ratio.py model_best.pth --data DIR --max-seconds 0.2
python tools/ratio.py CONFIG --size 800 1216

A page with the curves and its data as JSON go to --output. A config in the place of a checkpoint
gets random weights, and time and memory alone are measured.
"""

from pathlib import Path

from mimdet.analysis.measure_ratios import Measurement, measure_ratios
from mimdet.command_line import add_output, add_overrides, mistakes_in_one_line, tool_parser
from mimdet.report.ratio_page import rows, verdict, write_ratio_page


def main(argv: list[str] | None = None) -> None:
    """Read the command line, measure, draw and print."""
    default = Measurement()
    parser = tool_parser(__doc__)
    parser.add_argument("source", help="checkpoint of a MIMDet, or a config")
    parser.add_argument("--data", metavar="DIR", help="the config's own test images by default")
    add_output(parser, "folder; default output/ratio", default="output/ratio")
    parser.add_argument("--ratios", nargs="+", type=float, default=default.ratios)
    parser.add_argument(
        "--seeds",
        type=int,
        default=default.seeds,
        help=f"of each ratio; default {default.seeds}, 0 for no AP",
    )
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        metavar=("HEIGHT", "WIDTH"),
        help="of the images that are timed, in pixels; those of the evaluation by default",
    )
    parser.add_argument(
        "--rounds", type=int, default=default.rounds, help=f"of timing; default {default.rounds}"
    )
    parser.add_argument("--max-seconds", type=float, help="choose the best ratio within these")
    parser.add_argument("--device", default="auto", help="cuda, cpu, ...; default auto")
    parser.add_argument("--config-file", help="for a checkpoint that does not tell it")
    add_overrides(parser)
    args = parser.parse_intermixed_args(argv)
    with mistakes_in_one_line(parser):
        what = Measurement(
            args.ratios,
            args.seeds,
            args.rounds,
            tuple(args.size) if args.size else None,
            args.max_seconds,
            args.device,
        )
        output = Path(args.output)
        data = measure_ratios(
            args.source,
            what,
            output,
            args.config_file,
            args.opts,
            args.data,
            args.trust_config,
        )
        page = write_ratio_page(data, output)
    for row in rows(data):
        print("  ".join(f"{cell:>14}" for cell in row))
    if said := verdict(data):
        print(said)
    print(page)
    if data["choice"] and data["choice"]["ratio"] is None:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
