import torch
from torch import Tensor


def subsample_labels(
    labels: Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[Tensor, Tensor]:
    """Draw a random, balanced sample of labelled boxes.

    Two draws are made on the global generator of the labels' device, a permutation of the positives
    and then one of the negatives; seeded runs depend on this order.

    Args:
        labels: (N,) integer labels: -1 ignored, `bg_label` negative, everything else positive.
        num_samples: number of boxes to draw; fewer when there are not enough.
        positive_fraction: share of positives aimed at, in [0, 1]. Negatives fill up when there
            are fewer positives, but positives never replace missing negatives.
        bg_label: the label of negatives.

    Returns:
        Indices into `labels` of the positives and of the negatives, in random order, int64.

    Reference: Girshick 2015, arXiv 1504.08083, section 2.3.
    """
    positive = torch.nonzero((labels != -1) & (labels != bg_label)).flatten()
    negative = torch.nonzero(labels == bg_label).flatten()
    num_positive = min(positive.numel(), int(num_samples * positive_fraction))
    num_negative = min(negative.numel(), num_samples - num_positive)
    return _draw(positive, num_positive), _draw(negative, num_negative)


def _draw(indices: Tensor, count: int) -> Tensor:
    return indices[torch.randperm(indices.numel(), device=indices.device)[:count]]
