#!/usr/bin/env python
r"""Say what a checkpoint is, which config fits it and what it holds.

    python tools/inspect_checkpoint.py FILE.pth

It is told from names and shapes. Nothing in the file is executed, and no weights are read.
"""

from mimdet.checkpoint.summary import summarize
from mimdet.command_line import mistakes_in_one_line, tool_parser


def main(argv: list[str] | None = None) -> None:
    """Read the command line and print the summary."""
    parser = tool_parser(__doc__)
    parser.add_argument("checkpoint", help="a file of torch.save")
    args = parser.parse_intermixed_args(argv)
    with mistakes_in_one_line(parser):
        summary = summarize(args.checkpoint)
    print(summary)


if __name__ == "__main__":
    main()
