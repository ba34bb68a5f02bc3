#!/usr/bin/env python
"""List all problems of a dataset in COCO format, by kind; exits with 1 if there are any.

python tools/check_dataset.py mine/train.json mine/images
"""

from mimdet.command_line import mistakes_in_one_line, tool_parser
from mimdet.data.coco.check import check_coco_dataset


def main(argv: list[str] | None = None) -> None:
    """Read the command line, check and print."""
    parser = tool_parser(__doc__)
    parser.add_argument("json_file", help="annotations")
    parser.add_argument("image_root", help="folder of the images")
    parser.add_argument(
        "--no-decode", action="store_true", help="only look whether the images exist; fast"
    )
    args = parser.parse_intermixed_args(argv)
    with mistakes_in_one_line(parser):
        count, lines = check_coco_dataset(args.json_file, args.image_root, not args.no_decode)
        for line in lines:
            print(line)
    print(f"{args.json_file}: {count} problems")
    if count:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
