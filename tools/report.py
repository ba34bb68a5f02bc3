#!/usr/bin/env python
"""Make the report of a run: a page for a browser, and what it shows as JSON.

A training and an evaluation make it at their end; this makes it anew, also of a run that failed.

python tools/report.py output/my_run
"""

from mimdet.command_line import add_output, mistakes_in_one_line, tool_parser
from mimdet.report.page import make_report


def main(argv: list[str] | None = None) -> None:
    """Read the command line and write the report."""
    parser = tool_parser(__doc__)
    parser.add_argument("run", help="its folder, train.output_dir")
    add_output(parser, "folder for both files, the run's by default")
    args = parser.parse_intermixed_args(argv)
    with mistakes_in_one_line(parser):
        print(make_report(args.run, args.output))


if __name__ == "__main__":
    main()
