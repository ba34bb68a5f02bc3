#!/usr/bin/env python
"""Compare runs with the first one: a page for a browser, a table here, and both as JSON.

Says whether they were evaluated alike, in what their results differ, and whether the images show
that one is better or no difference. A folder of seed_0, seed_1, ... is one model.

python tools/compare.py output/first output/second --output output/comparison
"""

from mimdet.command_line import add_output, mistakes_in_one_line, tool_parser
from mimdet.report.bootstrap import RESAMPLES
from mimdet.report.compare_page import make_comparison
from mimdet.report.models import find_models

_FEWEST = 100


def main(argv: list[str] | None = None) -> None:
    """Read the command line, write the page and print the table."""
    parser = tool_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="their folders, train.output_dir")
    add_output(parser, "folder for compare.html and .json", default="comparison")
    parser.add_argument(
        "--truth",
        metavar="FILE",
        help="annotations that the runs were scored against; with them masks are compared too",
    )
    parser.add_argument(
        "--resamples", type=int, default=RESAMPLES, help=f"of the bootstrap; default {RESAMPLES}"
    )
    args = parser.parse_intermixed_args(argv)
    with mistakes_in_one_line(parser):
        if args.resamples < _FEWEST:
            raise ValueError(
                f"--resamples must be at least {_FEWEST}: the ends of an interval of 95 % are "
                f"decided by few of them; got {args.resamples}"
            )
        models = find_models(args.runs)
        page, table = make_comparison(models, args.output, args.truth, args.resamples)
    print(f"{table}\n\n{page}")


if __name__ == "__main__":
    main()
