#!/usr/bin/env python
r"""Write pictures of a model's detections next to the ground truth.

python tools/draw_predictions.py --config-file CONFIG --output output/pictures \
        train.init_checkpoint=MODEL.pth model.backbone.bottom_up.sample_ratio=1.0
"""

import argparse
from pathlib import Path

import mimdet  # noqa: F401  (first: it says what to do without Detectron2)
from detectron2.config import LazyConfig, instantiate
from detectron2.data import MetadataCatalog
from mimdet.analysis.visualize import draw_comparison
from mimdet.checkpoint.strict import StrictCheckpointer
from mimdet.config import apply_overrides


def main(argv: list[str] | None = None) -> None:
    """Read the command line, detect and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--output", required=True, help="folder for the pictures")
    parser.add_argument("--num-images", type=int, default=8)
    parser.add_argument("--score-threshold", type=float, default=0.5)
    parser.add_argument("opts", nargs="*", metavar="key=value", help="overrides of the config")
    args = parser.parse_args(argv)
    try:
        cfg = apply_overrides(LazyConfig.load(args.config_file), args.opts)
    except (FileNotFoundError, KeyError, ValueError, NotImplementedError) as e:
        parser.error(e.args[0] if isinstance(e, KeyError) else str(e))
    if not cfg.train.init_checkpoint:
        parser.error("the weights must be given: train.init_checkpoint=MODEL.pth")
    model = instantiate(cfg.model).to(cfg.train.device)
    StrictCheckpointer(model).load(cfg.train.init_checkpoint)
    dataset, mapper = (
        instantiate(cfg.dataloader.test.dataset),
        instantiate(cfg.dataloader.test.mapper),
    )
    names = MetadataCatalog.get(cfg.dataloader.evaluator.dataset_name).thing_classes
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    annotated = [d for d in dataset if any(not a.get("iscrowd", 0) for a in d["annotations"])]
    for entry in annotated[: args.num_images]:
        picture = draw_comparison(model, entry, mapper(entry), names, args.score_threshold)
        path = output / f"{Path(entry['file_name']).stem}.png"
        picture.save(path)
        print(path)


if __name__ == "__main__":
    main()
