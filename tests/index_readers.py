"""A training whose processes note who of them reads its annotations."""

import os
import sys
from pathlib import Path

from detectron2.config import LazyConfig
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from mimdet.data.coco import read
from mimdet.engine.follow_data import follow_data
from mimdet.engine.launch import launch
from mimdet.engine.resume import build_train_loader
from mimdet.engine.shared_index import share_index


def main(root: str, notes: str) -> None:
    """Build the loaders of a toy config; each process leaves a file that tells what it has got."""
    original, opened = read.read_sections, []
    read.read_sections = lambda file, found: [opened.append(file), original(file, found)][1]
    config = Path(__file__).parents[1] / "configs/toy/mask_rcnn_swin_scp_toy.py"
    cfg = LazyConfig.load(str(config))
    LazyConfig.apply_overrides(cfg, [f"toy.root={root}", "dataloader.train.num_workers=0"])
    cfg.model.roi_heads.num_classes = "auto"
    follow_data(cfg)
    loader = build_train_loader(cfg.dataloader.train)
    test = share_index(cfg.dataloader.test)
    lines = [
        f"opened {len(opened)}",
        f"classes {cfg.model.roi_heads.num_classes}",
        f"train {loader.dataset_size} {type(loader._dataset._dataset).__name__}",
        f"test {len(test.dataset)} {test.dataset[0]['file_name']}",
        f"names {MetadataCatalog.get(cfg.dataloader.test.dataset.name).thing_classes}",
    ]
    Path(notes, str(comm.get_rank())).write_text("\n".join(lines))


if __name__ == "__main__":
    launch(main, 0 if "LOCAL_RANK" in os.environ else 2, dist_url="auto", args=tuple(sys.argv[1:]))
