"""A tiny segmentor on toy label maps, in the state in which it starts."""

from pathlib import Path

import torch
from golden_models import CONFIGS
from omegaconf import DictConfig

from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from mimdet.checkpoint.card import Card, as_entry
from mimdet.data.toy import SEM_SEG_CLASSES
from mimdet.modeling.backbone.beit import BEiTViT
from mimdet.modeling.segmentation.fcn import FCNHead
from mimdet.modeling.segmentation.segmentor import SlidingWindowSegmentor
from mimdet.modeling.segmentation.sem_seg_heads import SemSegHeads
from mimdet.modeling.segmentation.upernet import UPerNetHead


def tiny_config(toy_root: Path) -> DictConfig:
    """Data, model and `train` of a run; the names of its datasets are its own."""
    cfg = LazyConfig.load(str(CONFIGS / "common/data/toy_sem_seg.py"))
    cfg.toy.root = str(toy_root)
    for split in ("train", "test"):
        cfg.dataloader[split].dataset.name = f"tiny_sem_seg_{split}"
    backbone = L(BEiTViT)(
        img_size=64, embed_dim=16, depth=4, num_heads=2, out_indices=[0, 1, 2, 3], norm="BN"
    )
    heads = L(SemSegHeads)(
        decode_head=L(UPerNetHead)(
            in_channels=[16] * 4, channels=16, num_classes=len(SEM_SEG_CLASSES), norm="BN"
        ),
        auxiliary_head=L(FCNHead)(
            in_channels=16, channels=8, num_classes=len(SEM_SEG_CLASSES), norm="BN"
        ),
    )
    cfg.model = L(SlidingWindowSegmentor)(
        backbone=backbone,
        sem_seg_head=heads,
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
        crop_size=64,
        crop_stride=42,
    )
    cfg.train = LazyConfig.load(str(CONFIGS / "common/train.py")).train
    cfg.train.device = "cpu"
    return cfg


def save_checkpoint(cfg: DictConfig, path: Path) -> Path:
    """Write a checkpoint of the config's model, with all weights drawn, that tells the config.

    Large scores, so that several classes win somewhere.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = instantiate(cfg.model)
        decode = model.sem_seg_head.decode_head.conv_seg
        torch.nn.init.normal_(decode.weight, std=3.0)
    text = path.with_suffix(".yaml")
    LazyConfig.save(cfg, str(text))
    card = Card(config=text.read_text(), classes=list(SEM_SEG_CLASSES))
    torch.save({"model": model.state_dict(), "card": as_entry(card)}, path)
    return path
