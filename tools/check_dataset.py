#!/usr/bin/env python
"""List all problems of a dataset in COCO format, by kind; exits with 1 if there are any.

    python tools/check_dataset.py mine/train.json mine/images

A folder that --data takes, with annotations of objects or with label maps, is named alone:

    python tools/check_dataset.py mine
"""

from pathlib import Path

from mimdet.command_line import mistakes_in_one_line, tool_parser
from mimdet.data.coco.check import check_coco_dataset, check_data_folder
from mimdet.data.coco.layouts import NoAnnotations
from mimdet.data.label_folders import check_label_folder


def main(argv: list[str] | None = None) -> None:
    """Read the command line, check and print."""
    parser = tool_parser(__doc__)
    parser.add_argument("source", help="annotations, or the folder of a dataset")
    parser.add_argument("image_root", nargs="?", help="folder of the images of annotations")
    parser.add_argument(
        "--no-decode", action="store_true", help="only look whether the images exist; fast"
    )
    args = parser.parse_intermixed_args(argv)
    is_folder = Path(args.source).is_dir()
    is_there = is_folder or Path(args.source).is_file()
    if is_there and is_folder == (args.image_root is not None):
        parser.error(
            "give a file of annotations and the folder of its images, or the folder of a dataset "
            "alone"
        )
    with mistakes_in_one_line(parser):
        if args.image_root is None:
            count, lines = _check_folder(args.source, not args.no_decode)
        else:
            count, lines = check_coco_dataset(args.source, args.image_root, not args.no_decode)
        for line in lines:
            print(line)
    print(f"{args.source}: {count} problems")
    if count:
        raise SystemExit(1)


def _check_folder(folder: str, decode: bool) -> tuple[int, list[str]]:
    try:
        return check_data_folder(folder, decode)
    except NoAnnotations:
        return check_label_folder(folder)


if __name__ == "__main__":
    main()
