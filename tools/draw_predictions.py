#!/usr/bin/env python
r"""Write pictures of predictions next to the ground truth: boxes, masks, or classes of pixels.

Images without objects are drawn too: what is detected there are false alarms. A picture lies below
the output folder as its image does in its data set.

python tools/draw_predictions.py --config-file CONFIG --output output/pictures \
        train.init_checkpoint=MODEL.pth model.backbone.bottom_up.sample_ratio=1.0
"""

import mimdet  # noqa: F401  (first: it says what to do without Detectron2)
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.utils.logger import setup_logger
from mimdet.analysis.class_maps import draw_class_map_comparison
from mimdet.analysis.pictures import picture_paths
from mimdet.analysis.trained_model import trained_model
from mimdet.analysis.visualize import draw_comparison
from mimdet.command_line import add_output, add_overrides, mistakes_in_one_line, tool_parser
from mimdet.config import load_config


def main(argv: list[str] | None = None) -> None:
    """Read the command line, detect and draw."""
    parser = tool_parser(__doc__)
    parser.add_argument("--config-file", required=True)
    add_output(parser, "folder for the pictures", required=True)
    parser.add_argument("--num-images", type=int, default=8)
    parser.add_argument("--score-threshold", type=float, default=0.5)
    add_overrides(parser)
    args = parser.parse_intermixed_args(argv)
    setup_logger(name="mimdet")  # it says which weights are taken
    with mistakes_in_one_line(parser):
        cfg = load_config(args.config_file, args.opts, trusted=args.trust_config)
        dataset = instantiate(cfg.dataloader.test.dataset)
        paths = picture_paths(args.output, [entry["file_name"] for entry in dataset])
        mapper = instantiate(cfg.dataloader.test.mapper)
        metadata = MetadataCatalog.get(cfg.dataloader.evaluator.dataset_name)
        names = metadata.get("thing_classes") or metadata.stuff_classes
        model = trained_model(cfg)
        chosen = list(zip(dataset, paths, strict=True))[: args.num_images]
        for entry, path in chosen:
            if "sem_seg_file_name" in entry:
                picture = draw_class_map_comparison(model, entry, mapper(entry), names)
            else:
                picture = draw_comparison(model, entry, mapper(entry), names, args.score_threshold)
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
            print(path)


if __name__ == "__main__":
    main()
