"""Which values a system shares with a relative of the same release, by the words of that release.

The file of a system in `golden/recipes.json.gz` lacks families of keys that the file of another
has. What follows from the other is what the release has in common, all but the named beginnings.
"""

_SIZE = ("model.backbone.net.", "model.parameters", "optim.groups", "optim.layer_decay")
_MIMDET = ("model.backbone.bottom_up.", "model.parameters", "optim.groups")
_BACKBONE = ("model.backbone.bottom_up.", "model.parameters", "optim.groups")
_CASCADE = ("model.roi_heads.", "model.proposal_generator.post_nms_topk")
_TOP = "model.backbone.top_block.in_channels"
_NETWORK = ("model.depth", "model.embed_dim", "model.drop_path_rate", "model.patch_size")
_FINETUNE = ("model.num_heads", "schedule.")
_SPEED = ("optim.lr", "optim.base_lr")

# system -> (relative, beginnings of keys in which they differ)
RELATIVES = {
    **{
        f"benchmarking_base_{epochs}ep": (
            "mimdet_main_base_sr0p5",
            (
                *("data.train.mapper.recompute_boxes", "data.test.mapper.aug", "schedule."),
                "model.backbone.in_features",
            ),
        )
        for epochs in (25, 50, 100)
    },
    "fastmim_finetune_swin_b": ("mae_finetune_l", _FINETUNE),
    "fastmim_finetune_vit_b": ("mae_finetune_l", (*_FINETUNE, *_SPEED)),
    "fastmim_pretrain_swin_b": (
        "fastmim_pretrain_vit_b",
        (*_NETWORK, "model.block_size", "model.decoder_depth", "model.norm_eps"),
    ),
    "fastmim_pretrain_vit_b": (
        "fastmim_pretrain_swin_b",
        ("model.num_heads", "data.train.total_batch_size", "optim.lr", "schedule."),
    ),
    "fastmim_swin_b_mask_rcnn_scp": (
        "vitae_b",
        (
            *("data.", "optim.", "precision.", "model.backbone.norm"),
            "model.proposal_generator.head.norm",
        ),
    ),
    "mae_finetune_b": ("mae_finetune_l", (*_FINETUNE, *_SPEED)),
    "mae_finetune_h": ("mae_finetune_l", ()),
    "mae_finetune_l": ("mae_finetune_h", _NETWORK),
    "mae_pretrain_b": ("mae_pretrain_l", _NETWORK),
    "mae_pretrain_h": ("mae_pretrain_l", _NETWORK),
    "mae_pretrain_l": ("mae_pretrain_b", ("model.num_heads",)),
    "mimdet_main_base_sr0p5": ("mimdet_v1_base_sr0p5", _MIMDET),
    "mimdet_main_large_sr0p5": ("mimdet_main_base_sr0p5", ()),
    "mimdet_v1_base_sr0p25": ("mimdet_main_base_sr0p5", ()),
    "mimdet_v1_base_sr0p25_bs16": ("mimdet_v1_base_sr0p25", ()),
    "mimdet_v1_base_sr0p5": ("mimdet_main_base_sr0p5", ()),
    "mimdet_v1_large_sr0p5": ("mimdet_main_base_sr0p5", ()),
    **{
        f"mpvit_{size}_mask_rcnn_1x": ("mpvit_small_mask_rcnn_1x", ())
        for size in ("tiny", "xs", "base")
    },
    **{
        f"mpvit_{size}_mask_rcnn_ms_3x": ("mpvit_small_cascade_mask_rcnn_ms_3x", _CASCADE)
        for size in ("tiny", "xs", "small", "base")
    },
    **{
        f"mpvit_{size}_retinanet_1x": ("mpvit_small_retinanet_1x", (_TOP,))
        for size in ("tiny", "xs", "base")
    },
    **{
        f"mpvit_{size}_retinanet_ms_3x": ("mpvit_small_retinanet_1x", (_TOP, "schedule."))
        for size in ("tiny", "xs", "small", "base")
    },
    "mpvit_base_cascade_mask_rcnn_ms_3x": ("mpvit_small_cascade_mask_rcnn_ms_3x", ()),
    "mpvit_small_cascade_mask_rcnn_ms_3x": ("mpvit_base_cascade_mask_rcnn_ms_3x", _BACKBONE),
    "mpvit_small_mask_rcnn_1x": ("mpvit_tiny_mask_rcnn_1x", _BACKBONE),
    "mpvit_small_retinanet_1x": ("mpvit_tiny_retinanet_1x", _BACKBONE),
    "unofficial_vitdet_b": ("vitae_b", ()),
    "vitae_b": ("unofficial_vitdet_b", ()),
    "vitae_s": ("unofficial_vitdet_b", ("model.backbone.net.",)),
    "vitdet_cascade_b": ("vitdet_cascade_l", ()),
    "vitdet_cascade_h": ("vitdet_cascade_l", ("schedule.",)),
    "vitdet_cascade_l": ("vitdet_cascade_b", _SIZE),
    "vitdet_lvis_cascade_b": ("vitdet_lvis_cascade_l", _SIZE),
    "vitdet_lvis_cascade_h": ("vitdet_lvis_cascade_l", _SIZE),
    "vitdet_lvis_cascade_l": ("vitdet_lvis_cascade_b", ()),
    "vitdet_lvis_mask_b": ("vitdet_lvis_mask_l", ()),
    "vitdet_lvis_mask_h": ("vitdet_lvis_mask_l", ("optim.lr",)),
    "vitdet_lvis_mask_l": ("vitdet_lvis_mask_b", _SIZE),
    "vitdet_mask_b": ("vitdet_mask_l", ()),
    "vitdet_mask_h": ("vitdet_mask_l", ("schedule.",)),
    "vitdet_mask_l": ("vitdet_mask_b", _SIZE),
}

# What no file has and the releases' own commands, logs and papers say.
FURTHER = {
    "fastmim_pretrain_swin_b": {
        "model.block_size": 32,
        "model.decoder_depth": 4,
        "model.depths": [2, 2, 18, 2],
        "model.drop_path_rate": 0.0,
        "model.norm_eps": 1e-5,
        "model.window_size": 4,
    },
    "fastmim_swin_b_mask_rcnn_scp": {
        "data.test.resize_long_side_max": 1666,
        "data.test.resize_short_side": 1024,
        "data.train.total_batch_size": 32,
    },
    "vitae_b": {"model.backbone.net.pcm_norm": "SyncBatchNorm eps=1e-05 momentum=0.1"},
    "vitae_s": {
        "model.backbone.net.drop_path_rate": 0.1,
        "model.backbone.net.global_block_indexes": [2, 5, 8, 13],
        "model.backbone.net.pcm_norm": "SyncBatchNorm eps=1e-05 momentum=0.1",
        "model.backbone.net.window_size": 14,
    },
}


def whole_recipe(system: str, recipes: dict[str, dict]) -> dict:
    """The recipe of a system, with what its file lacks and it shares with its relative."""
    relative, apart = RELATIVES.get(system, (system, ()))
    shared = {
        key: value
        for key, value in recipes[relative]["recipe"].items()
        if not key.startswith(tuple(apart))
    }
    return shared | recipes[system]["recipe"] | FURTHER.get(system, {})
