#!/usr/bin/env python
r"""Write pictures of a masked autoencoder's reconstructions: image, what is seen, prediction.

python tools/draw_reconstructions.py --config-file configs/pretrain/mae_vit_base.py \
        --images datasets/coco/val2017 --output output/pictures train.init_checkpoint=MODEL.pth
"""

import torch
from timm.data import create_transform

import mimdet  # noqa: F401  (first: it says what to do without Detectron2)
from detectron2.utils.logger import setup_logger
from mimdet.analysis.pictures import picture_paths
from mimdet.analysis.reconstruction import draw_reconstructions
from mimdet.analysis.trained_model import trained_model
from mimdet.command_line import add_output, add_overrides, mistakes_in_one_line, tool_parser
from mimdet.config import load_config
from mimdet.data.imagenet import load_images, read_image


def main(argv: list[str] | None = None) -> None:
    """Read the command line, reconstruct and draw."""
    parser = tool_parser(__doc__)
    parser.add_argument("--config-file", required=True, help="of a MAE")
    parser.add_argument("--images", required=True, help="folder, list of paths, or synthetic:N")
    add_output(parser, "folder for the pictures", required=True)
    parser.add_argument("--num-images", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the masks")
    add_overrides(parser)
    args = parser.parse_intermixed_args(argv)
    setup_logger(name="mimdet")  # it says which weights are taken
    with mistakes_in_one_line(parser):
        cfg = load_config(args.config_file, args.opts, trusted=args.trust_config)
        records = load_images(args.images)[: args.num_images]
        files = [record["file_name"].replace(":", "_") for record in records]
        paths = picture_paths(args.output, files)
        model = trained_model(cfg)
        transform = create_transform(model.img_size, interpolation="bicubic", crop_pct=1.0)
        images = torch.stack([transform(read_image(record["file_name"])) for record in records])
        torch.manual_seed(args.seed)
        for path, picture in zip(paths, draw_reconstructions(model, images), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
            print(path)


if __name__ == "__main__":
    main()
