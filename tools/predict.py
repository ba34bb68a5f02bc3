#!/usr/bin/env python
r"""Detect objects in images and videos: pictures, and all detections in one predictions.json.

A segmentor tells the class of each pixel: pictures with a legend, and label_maps/*.png.

    python tools/predict.py model_best.pth photos --output found
    python tools/predict.py model_best.pth 'photos/**/*.jpg' film.mp4 --output found --score 0.3

The checkpoint tells its config and classes. A released one is recognised, or takes --config-file.
"""

from mimdet.analysis.predict_files import LABEL_MAPS, PREDICTIONS, predict_files
from mimdet.analysis.predictor import Predictor
from mimdet.command_line import add_output, add_trust, mistakes_in_one_line, tool_parser
from mimdet.shown import shown


def main(argv: list[str] | None = None) -> None:
    """Read the command line, detect, draw and write."""
    parser = tool_parser(__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="images, folders, videos")
    add_output(parser, "folder for pictures and detections", required=True)
    parser.add_argument("--score", type=float, default=0.5, help="least score; default 0.5")
    parser.add_argument("--sample-ratio", type=float, default=1.0, help="of MIMDet; default 1.0")
    parser.add_argument("--batch", type=int, default=1, help="images at once; default 1")
    parser.add_argument("--device", default="auto", help="cuda, cpu, ...; default auto")
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--full-precision", action="store_true", help="on a GPU too")
    precision.add_argument("--half-precision", action="store_true", help="on a CPU too: bfloat16")
    parser.add_argument("--no-pictures", action="store_true", help="write no pictures")
    parser.add_argument("--config-file", help="for a checkpoint that does not tell it")
    add_trust(parser)
    args = parser.parse_args(argv)
    if args.batch < 1:
        parser.error(f"--batch must be 1 or more, got {args.batch}")
    if not 0 <= args.score <= 1:
        parser.error(f"--score must be from 0 to 1, got {args.score}")
    with mistakes_in_one_line(parser):
        predictor = Predictor(
            args.checkpoint,
            args.config_file,
            device=args.device,
            sample_ratio=args.sample_ratio,
            score_threshold=args.score,
            half=True if args.half_precision else False if args.full_precision else None,
            trusted=args.trust_config,
        )
        written = predict_files(
            predictor, args.sources, args.output, args.batch, draw=not args.no_pictures
        )
    images = f"{written.images} images: {args.output}/{PREDICTIONS}"
    if written.label_maps:
        print(f"{written.label_maps} label maps: {args.output}/{LABEL_MAPS}; classes in {images}")
    else:
        print(f"{written.objects} objects of score {args.score:g} or more in {images}")
    if written.unreadable:
        first = shown(written.unreadable[0], 300)
        print(f"{len(written.unreadable)} files could not be read, first {first}")
    if not written.images:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
