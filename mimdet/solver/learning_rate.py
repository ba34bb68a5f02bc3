"""Learning rates that grow with the batch."""


def scaled_lr(base_lr: float, total_batch_size: int, reference_batch_size: int = 256) -> float:
    """The learning rate of a batch size, from the one that is meant for `reference_batch_size`.

    Recipes of masked image modelling give the latter (``blr``), so that one number serves all
    batch sizes. Used in configs, the learning rate follows an override of the batch size.

    Args:
        base_lr: learning rate for `reference_batch_size` images.
        total_batch_size: images per update over all processes, accumulated ones included.
        reference_batch_size: see `base_lr`.

    Reference:
        Goyal et al. 2017, arXiv 1706.02677, section 2.1.
    """
    return base_lr * total_batch_size / reference_batch_size
