#!/usr/bin/env python
"""Prepare the label maps of ADE20K: classes from 0 on, 255 for none, in annotations_detectron2/.

python tools/prepare_ade20k.py datasets/ADEChallengeData2016
"""

import os
from pathlib import Path

from mimdet.command_line import mistakes_in_one_line, tool_parser
from mimdet.data.ade20k import convert_label_maps, find_label_maps
from mimdet.data.coco.problems import Problems
from mimdet.progress import progress


def main(argv: list[str] | None = None) -> None:
    """Read the command line and convert; exit code 1 if some label maps cannot be."""
    parser = tool_parser(__doc__)
    data = os.environ.get("DETECTRON2_DATASETS", "datasets")
    parser.add_argument(
        "root",
        nargs="?",
        default=Path(data).expanduser() / "ADEChallengeData2016",
        help="the unpacked folder; default ADEChallengeData2016 in DETECTRON2_DATASETS",
    )
    args = parser.parse_intermixed_args(argv)
    with mistakes_in_one_line(parser):
        files = find_label_maps(args.root)
        problems = Problems(args.root)
        done = convert_label_maps(files, problems)
        written = sum(progress(done, len(files), "conversion", "label map"))
    there = len(files) - written - len(problems)
    print(f"{args.root}/annotations_detectron2: {written} label maps written, {there} were there")
    for line in problems.lines():
        print(line)
    if problems:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
