import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
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
    rows, counts = subsample_labels_of_images([labels], num_samples, positive_fraction, bg_label)
    return rows.split(counts)


def subsample_labels_of_images(
    labels: Sequence[Tensor], num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[Tensor, list[int]]:
    """`subsample_labels` for image after image, with the same draws.

    The device is asked once for all images, instead of twice for each.

    Returns:
        Indices into the joined `labels`: positives of the first image, its negatives, positives of
        the second, ...; and the numbers of these.
    """
    joined, num_images = torch.cat(list(labels)), len(labels)
    negative = joined == bg_label
    # All positives, then all negatives, as one row of bools. `found` tells how many hold before
    # each place; so the n-th that holds is found without listing all others.
    masks = torch.cat([(joined != -1) ^ negative, negative])
    found = F.pad(masks, (1, 0)).cumsum(dim=0)
    ends = list(itertools.accumulate(map(len, [*labels, *labels]), initial=0))
    before = torch.stack([found[end] for end in ends]).tolist()  # the host waits here
    drawn = []
    for i in range(num_images):
        first_positive, first_negative = before[i], before[num_images + i]
        positives = before[i + 1] - first_positive
        negatives = before[num_images + i + 1] - first_negative
        num_positive = min(positives, int(num_samples * positive_fraction))
        num_negative = min(negatives, num_samples - num_positive)
        drawn.append(_draw(positives, num_positive, joined.device) + (first_positive + 1))
        drawn.append(_draw(negatives, num_negative, joined.device) + (first_negative + 1))
    places = torch.searchsorted(found[1:], torch.cat(drawn))
    return places % max(len(joined), 1), [len(of_draw) for of_draw in drawn]


def true_rows(masks: Sequence[Tensor]) -> list[Tensor]:
    """The rows where each (N,) bool mask holds, ascending, int64.

    The host waits once for all masks, while `nonzero` or an index by bools waits each time. On a
    CPU, where there is nothing to wait for, `nonzero` is quicker.
    """
    if _is_on_cpu(masks[0]):
        return [mask.nonzero().flatten() for mask in masks]
    counts = torch.stack([mask.sum() for mask in masks]).tolist()
    found = torch.cat(list(masks)).cumsum(dim=0)  # how many hold up to each row
    ordinals = torch.arange(1, sum(counts) + 1, device=found.device)
    rows, start = [], 0
    for mask, of_mask in zip(masks, torch.searchsorted(found, ordinals).split(counts), strict=True):
        rows.append(of_mask - start)
        start += len(mask)
    return rows


def _is_on_cpu(mask: Tensor) -> bool:
    return mask.device.type == "cpu"


def true_positions(*masks: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(rows, columns) where each (R, C) bool mask holds; the host waits once for all masks."""
    flat = true_rows([mask.flatten() for mask in masks])
    return [
        (of_mask // mask.shape[1], of_mask % mask.shape[1])
        for of_mask, mask in zip(flat, masks, strict=True)
    ]


def _draw(population: int, count: int, device: torch.device) -> Tensor:
    return torch.randperm(population, device=device)[:count]
