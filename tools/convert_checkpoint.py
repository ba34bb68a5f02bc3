#!/usr/bin/env python
r"""Convert a checkpoint with other people's parameter names to ours, or back.

    python tools/convert_checkpoint.py THEIRS.pth OURS.pth
    python tools/convert_checkpoint.py OURS.pth THEIRS.pth --to vitdet_mmdet

Whose names a file has is recognised. Every tensor must have its place, or nothing is written.
Where a file differs from what is expected, rename first, by regular expressions:

    python tools/convert_checkpoint.py THEIRS.pth OURS.pth --rename '^encoder\.' backbone.
"""

from mimdet.checkpoint.average import CHOICES
from mimdet.checkpoint.convert import SOURCES
from mimdet.checkpoint.convert_file import NATIVE, convert_file
from mimdet.command_line import mistakes_in_one_line, tool_parser


def main(argv: list[str] | None = None) -> None:
    """Read the command line, convert and say what was done."""
    parser = tool_parser(__doc__)
    names = [source.name for source in SOURCES]
    back = [source.name for source in SOURCES if source.from_native]
    parser.add_argument("input", help="checkpoint to read")
    parser.add_argument("output", help="checkpoint to write")
    parser.add_argument(
        "--from", dest="source", choices=names, help="whose names the input has, if not recognised"
    )
    parser.add_argument(
        "--to", choices=[NATIVE, *back], default=NATIVE, help="names to write; default: ours"
    )
    parser.add_argument(
        "--rename",
        action="append",
        default=[],
        nargs=2,
        metavar=("OLD", "NEW"),
        help="rename first: a regular expression and what takes its place; may be repeated",
    )
    parser.add_argument(
        "--drop",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave these names out, after renaming ('head.*'); may be repeated",
    )
    parser.add_argument(
        "--weights",
        choices=CHOICES,
        help="average (train.ema) or trained weights; by default the average if there is one",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    args = parser.parse_intermixed_args(argv)
    with mistakes_in_one_line(parser):
        report = convert_file(
            args.input,
            args.output,
            to=args.to,
            source=args.source,
            renames=args.rename,
            drop=args.drop,
            overwrite=args.overwrite,
            weights=args.weights,
        )
    print(report)


if __name__ == "__main__":
    main()
