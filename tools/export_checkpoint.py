#!/usr/bin/env python
r"""Write the weights of a pretraining run without optimiser: all of them, or the encoder's.

    python tools/export_checkpoint.py output/mae_vit_base/model_final.pth \
        --full MAE_FULL.pth --encoder MAE_ENCODER.pth

The full file starts MIMDet with its decoder, the other one is for classifiers and other detectors.
"""

import sys
from argparse import SUPPRESS

from mimdet.checkpoint.average import CHOICES, choose_weights
from mimdet.checkpoint.export import encoder_weights, full_weights
from mimdet.checkpoint.file import read_checkpoint, write_checkpoint
from mimdet.command_line import mistakes_in_one_line, tool_parser

_KINDS = {"ema": "averaged (EMA)", "raw": "raw"}


def main(argv: list[str] | None = None) -> None:
    """Read the command line and write the files."""
    parser = tool_parser(__doc__)
    parser.add_argument("checkpoint", help="file of a run, such as model_final.pth")
    parser.add_argument("--full", metavar="FILE", help="write encoder and decoder")
    parser.add_argument("--encoder", metavar="FILE", help="write the encoder")
    parser.add_argument(
        "--weights",
        choices=CHOICES,
        help="average (train.ema) or trained weights; by default the average if there is one",
    )
    parser.add_argument("--ema", action="store_const", const="ema", dest="weights", help=SUPPRESS)
    args = parser.parse_intermixed_args(argv)
    if not (args.full or args.encoder):
        parser.error("nothing to write: give --full FILE, --encoder FILE or both")
    with mistakes_in_one_line(parser):
        checkpoint = read_checkpoint(args.checkpoint, "the checkpoint to export")
        kind = choose_weights(checkpoint, args.weights, args.checkpoint)
        weights = full_weights(checkpoint, averaged=kind == "ema")
        print(f"the {_KINDS[kind]} weights of {args.checkpoint}", file=sys.stderr)
        for path, content in ((args.full, weights), (args.encoder, encoder_weights(weights))):
            if path:
                write_checkpoint({"model": content}, path)
                print(f"{path}: {len(content)} tensors")


if __name__ == "__main__":
    main()
