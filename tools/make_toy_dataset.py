#!/usr/bin/env python
"""Write the toy dataset: shapes of four classes in COCO format, and as label maps.

python tools/make_toy_dataset.py output/toy --num-train 600 --num-val 100 --seed 0
"""

from mimdet.command_line import mistakes_in_one_line, tool_parser
from mimdet.data.toy import ToyDataset, make_toy_dataset


def main(argv: list[str] | None = None) -> None:
    """Read the command line and write the dataset."""
    parser = tool_parser(__doc__)
    parser.add_argument("root", help="folder to make")
    for flag, default, what in (
        ("--num-train", ToyDataset.num_train, "images to train on"),
        ("--num-val", ToyDataset.num_val, "images to evaluate on"),
        ("--seed", ToyDataset.seed, "of the pictures"),
    ):
        parser.add_argument(flag, type=int, default=default, help=f"{what}; default {default}")
    args = parser.parse_intermixed_args(argv)
    spec = ToyDataset(args.num_train, args.num_val, args.seed)
    with mistakes_in_one_line(parser):
        written = make_toy_dataset(args.root, spec)
    print(f"{args.root}: {spec} {'written' if written else 'is already there'}")


if __name__ == "__main__":
    main()
