"""Heads for the toy dataset: a Mask R-CNN that trains in minutes on two CPU cores."""


def shrink_heads(model, norm="GN"):
    """Cut the RPN and heads of a (Cascade) Mask R-CNN config down to the size of the toy images.

    `norm` of the heads' convolutions: GroupNorm, as LayerNorm, needs no large batch and is the same
    on any number of processes.
    """
    rpn, heads = model.proposal_generator, model.roi_heads
    rpn.head.conv_dims = [-1]
    rpn.anchor_generator.sizes = [[8], [16], [32], [64], [128]]
    rpn.batch_size_per_image = 64
    rpn.pre_nms_topk = (400, 200)
    rpn.post_nms_topk = (200, 100)
    heads.num_classes = 4
    heads.batch_size_per_image = 64
    for box_head in heads.get("box_heads") or [heads.box_head]:
        box_head.update(conv_dims=[64], fc_dims=[256], conv_norm=norm)
    heads.mask_head.update(conv_dims=[64, 64, 64], conv_norm=norm)
