#!/usr/bin/env python
r"""Write a trained model for other programs: a detector as ONNX, any weights as safetensors.

    python tools/export.py model_best.pth model.onnx --images photos
    python tools/export.py model_best.pth weights.safetensors

The ONNX file takes one image of a fixed size. It is compared with PyTorch on the images, and kept
only if both detect the same.
"""

import logging

from mimdet.analysis.export_model import default_size, export_onnx, export_safetensors
from mimdet.analysis.predict_files import files_of
from mimdet.analysis.predictor import Predictor
from mimdet.command_line import add_trust, mistakes_in_one_line, tool_parser


def main(argv: list[str] | None = None) -> None:
    """Read the command line, write and compare."""
    parser = tool_parser(__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("output", help="a file that ends in .onnx or .safetensors")
    parser.add_argument("--images", nargs="+", metavar="SOURCE", help="to compare on; for ONNX")
    parser.add_argument("--num-images", type=int, default=8, help="of them; default 8")
    parser.add_argument("--size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help="for ONNX")
    parser.add_argument("--config-file", help="for a checkpoint that does not tell it")
    add_trust(parser)
    args = parser.parse_args(argv)
    if args.num_images < 1:
        parser.error(f"--num-images must be 1 or more, got {args.num_images}")
    if args.size and min(args.size) < 1:
        parser.error(f"--size must be two positive numbers, got {args.size}")
    for exporter in ("torch.onnx", "onnx_ir"):  # they warn of nothing that a user could mend
        logging.getLogger(exporter).setLevel(logging.ERROR)
    with mistakes_in_one_line(parser):
        if args.output.endswith(".safetensors"):
            count = export_safetensors(args.checkpoint, args.output)
            print(f"{args.output}: {count} tensors")
            return
        if not args.output.endswith(".onnx"):
            parser.error(f"the output must end in .onnx or .safetensors, got {args.output}")
        if not args.images:
            parser.error("an ONNX file is compared with PyTorch on images: give some by --images")
        predictor = Predictor(
            args.checkpoint, args.config_file, device="cpu", trusted=args.trust_config
        )
        files = [file for source in args.images for file in files_of(source)][: args.num_images]
        size = tuple(args.size) if args.size else default_size(predictor)
        print(f"exports for images of {size[0]} x {size[1]} (height x width); takes minutes")
        parity = export_onnx(predictor, args.output, size, files)
        print(f"{args.output} computes what PyTorch does. {parity}")


if __name__ == "__main__":
    main()
