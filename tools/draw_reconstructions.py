#!/usr/bin/env python
r"""Write pictures of a masked autoencoder's reconstructions: image, what is seen, prediction.

python tools/draw_reconstructions.py --config-file configs/pretrain/mae_vit_base.py \
        --images datasets/coco/val2017 --output output/pictures train.init_checkpoint=MODEL.pth
"""

import argparse
from pathlib import Path

import torch
from timm.data import create_transform

import mimdet  # noqa: F401  (first: it says what to do without Detectron2)
from detectron2.config import LazyConfig, instantiate
from mimdet.analysis.reconstruction import draw_reconstructions
from mimdet.checkpoint.strict import StrictCheckpointer
from mimdet.config import apply_overrides
from mimdet.data.imagenet.sources import load_images, read_image


def main(argv: list[str] | None = None) -> None:
    """Read the command line, reconstruct and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="of a MAE")
    parser.add_argument("--images", required=True, help="folder, list of paths, or synthetic:N")
    parser.add_argument("--output", required=True, help="folder for the pictures")
    parser.add_argument("--num-images", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the masks")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="overrides of the config")
    args = parser.parse_args(argv)
    try:
        cfg = apply_overrides(LazyConfig.load(args.config_file), args.opts)
        records = load_images(args.images)[: args.num_images]
    except (FileNotFoundError, KeyError, ValueError, NotImplementedError) as e:
        parser.error(e.args[0] if isinstance(e, KeyError) else str(e))
    if not cfg.train.init_checkpoint:
        parser.error("the weights must be given: train.init_checkpoint=MODEL.pth")
    model = instantiate(cfg.model).to(cfg.train.device)
    StrictCheckpointer(model).load(cfg.train.init_checkpoint)
    transform = create_transform(model.img_size, interpolation="bicubic", crop_pct=1.0)
    images = torch.stack([transform(read_image(record["file_name"])) for record in records])
    torch.manual_seed(args.seed)
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    for record, picture in zip(records, draw_reconstructions(model, images), strict=True):
        path = output / f"{Path(record['file_name']).stem.replace(':', '_')}.png"
        picture.save(path)
        print(path)


if __name__ == "__main__":
    main()
