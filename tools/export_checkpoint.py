#!/usr/bin/env python
r"""Write the weights of a pretraining run without optimiser: all of them, or the encoder's.

    python tools/export_checkpoint.py output/mae_vit_base/model_final.pth \
        --full MAE_FULL.pth --encoder MAE_ENCODER.pth

The full file starts MIMDet with its decoder, the other one is for classifiers and other detectors.
"""

from mimdet.checkpoint.export import encoder_weights, full_weights
from mimdet.checkpoint.file import read_checkpoint, write_checkpoint
from mimdet.command_line import mistakes_in_one_line, tool_parser


def main(argv: list[str] | None = None) -> None:
    """Read the command line and write the files."""
    parser = tool_parser(__doc__)
    parser.add_argument("checkpoint", help="file of a run, such as model_final.pth")
    parser.add_argument("--full", metavar="FILE", help="write encoder and decoder")
    parser.add_argument("--encoder", metavar="FILE", help="write the encoder")
    parser.add_argument("--ema", action="store_true", help="the averaged weights (train.ema)")
    args = parser.parse_intermixed_args(argv)
    if not (args.full or args.encoder):
        parser.error("nothing to write: give --full FILE, --encoder FILE or both")
    with mistakes_in_one_line(parser):
        checkpoint = read_checkpoint(args.checkpoint, "the checkpoint to export")
        weights = full_weights(checkpoint, averaged=args.ema)
        for path, content in ((args.full, weights), (args.encoder, encoder_weights(weights))):
            if path:
                write_checkpoint({"model": content}, path)
                print(f"{path}: {len(content)} tensors")


if __name__ == "__main__":
    main()
