"""What detectors keep for the backward pass, with activation checkpointing and without.

    python -m benchmarks.memory_table

Prints the table of docs/memory.md. It is computed, not timed, and the same on every machine.
"""

import argparse

from mimdet.analysis.memory_table import HEADER, row
from mimdet.config import load_config
from mimdet.engine.memory_plan import training_size

_MIMDET = "mimdet/mimdet_vit_{}_mask_rcnn_fpn_sr_0p5_800_1333_4xdec_coco_3x"
_RATIO = "model.backbone.bottom_up.sample_ratio={}"
BASE, _LARGE = _MIMDET.format("base"), _MIMDET.format("large")

# name, config, images of one process, overrides
SYSTEMS = (
    *(("MIMDet-B", BASE, 2, [_RATIO.format(ratio)]) for ratio in (0.25, 0.5, 1.0)),
    ("MIMDet-B", BASE, 8, []),
    *(("MIMDet-L", _LARGE, 2, [_RATIO.format(ratio)]) for ratio in (0.25, 0.5)),
    ("ViTDet-B", "vitdet/mask_rcnn_vitdet_b_100ep", 2, []),
    ("ViTDet-L", "vitdet/mask_rcnn_vitdet_l_100ep", 2, []),
    ("ViTDet-H", "vitdet/mask_rcnn_vitdet_h_75ep", 2, []),
    ("Benchmarking-ViT-B", "benchmarking/benchmarking_mask_rcnn_base_FPN_25ep_LSJ_mae", 2, []),
    ("ViTAE-B", "vitae/mask_rcnn_vitae_b_100ep", 2, []),
    ("ViTAE-S", "vitae/mask_rcnn_vitae_s_100ep", 2, []),
    ("MPViT-S", "mpvit/mask_rcnn_mpvit_small_1x", 2, []),
    ("MPViT-S RetinaNet", "mpvit/retinanet_mpvit_small_1x", 2, []),
    ("Swin-B (FastMIM)", "fastmim/mask_rcnn_swin_base_scp_3x", 2, []),
)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print, a row at a time."""
    argparse.ArgumentParser(prog="python -m benchmarks.memory_table").parse_args(arguments)
    print(HEADER)
    for name, config, batch, overrides in SYSTEMS:
        cfg = load_config(config, overrides)
        print(row(name, cfg, batch, training_size(cfg)), flush=True)


if __name__ == "__main__":
    main()
