"""What drop path draws over, in the backbones that no golden training step has it on for.

Windows are cut inside attention there, so a branch is dropped for a whole image. The training steps
(tests/configs/test_training_steps.py) compare the others, Benchmarking-ViT's windows among them.
"""

import pytest
import torch
from timm.layers import DropPath

from mimdet.modeling.backbone.cmt import CMT
from mimdet.modeling.backbone.swin import PaddedSwin
from mimdet.modeling.backbone.vitae import PlainViTAE, ViTAE

_VIT = dict(img_size=64, num_heads=2, drop_path_rate=0.2, window_size=2, pcm_groups=4)

# backbone -> how many branches of an image are dropped by themselves, blocks with rate 0 left out
BACKBONES = {
    "ViTAE-B": (lambda: PlainViTAE(**_VIT, embed_dim=16, depth=2, window_block_indexes=(1,)), 3),
    "ViTAE-S": (
        lambda: ViTAE(
            **_VIT, embed_dims=(4, 4, 8), token_dims=(8, 8), depth=2, global_block_indexes=(0,)
        ),
        3,
    ),
    "CMT": (
        lambda: CMT(64, 8, (8, 16, 32, 64), (1, 1, 1, 1), drop_path_rate=0.2, out_features=("c5",)),
        3 * 2,
    ),
    "Swin": (
        lambda: PaddedSwin(
            embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=4, drop_path_rate=0.2
        ),
        3 * 2,
    ),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_each_branch_of_a_block_is_dropped_for_a_whole_image(name):
    build, num_branches = BACKBONES[name]
    backbone, batch_sizes = build().train(), []
    for module in backbone.modules():
        if isinstance(module, DropPath) and module.drop_prob > 0:
            assert module.scale_by_keep
            module.register_forward_hook(lambda m, x, output: batch_sizes.append(len(output)))
    backbone(torch.randn(3, 3, 64, 64))
    assert batch_sizes == [3] * num_branches
