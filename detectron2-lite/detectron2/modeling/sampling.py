import itertools
from collections.abc import Sequence

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
    rows, counts = subsample_labels_of_images(
        labels, [len(labels)], num_samples, positive_fraction, bg_label
    )
    return rows.split(counts)


def subsample_labels_of_images(
    labels: Tensor,
    lengths: Sequence[int],
    num_samples: int,
    positive_fraction: float,
    bg_label: int,
) -> tuple[Tensor, list[int]]:
    """`subsample_labels` for image after image, with the same draws.

    The device is asked once for all images, instead of twice for each.

    Args:
        labels: those of all images, one after the other.
        lengths: how many each image has.
        num_samples: as the other arguments, see `subsample_labels`.
        positive_fraction: see there.
        bg_label: see there.

    Returns:
        Indices into `labels`: positives of the first image, its negatives, positives of the
        second, ...; and the numbers of these.
    """
    if len(labels) == 0:
        return labels.new_zeros(0, dtype=torch.int64), [0, 0] * len(lengths)
    negative = labels == bg_label
    # With background 0, as in the RPN, one comparison says the same as three operators.
    positive = labels > 0 if bg_label == 0 else (labels != -1) ^ negative
    # All positives, then all negatives, as one row of bools. `found` tells how many hold up to
    # each place; so the n-th that holds is found without listing all others.
    found = torch.cat([positive, negative]).cumsum(dim=0)
    ends = list(itertools.accumulate([*lengths, *lengths], initial=0))
    before = torch.stack([found[max(end - 1, 0)] for end in ends]).tolist()  # the host waits here
    # For an end of 0 the first place was read, which already counts itself.
    before = [number if end > 0 else 0 for number, end in zip(before, ends, strict=True)]
    drawn = []
    for i in range(len(lengths)):
        first_positive, first_negative = before[i], before[len(lengths) + i]
        positives = before[i + 1] - first_positive
        negatives = before[len(lengths) + i + 1] - first_negative
        num_positive = min(positives, int(num_samples * positive_fraction))
        num_negative = min(negatives, num_samples - num_positive)
        drawn.append(_draw(positives, num_positive, first_positive, labels.device))
        drawn.append(_draw(negatives, num_negative, first_negative, labels.device))
    # The n-th that holds, from 0, is where `found` first exceeds n. Places of negatives lie behind
    # all those of positives, hence the remainder.
    places = torch.searchsorted(found, torch.cat(drawn), right=True)
    return places % len(labels), [len(of_draw) for of_draw in drawn]


def true_rows(masks: Sequence[Tensor]) -> list[Tensor]:
    """The rows where each (N,) bool mask holds, ascending, int64.

    The host waits once for all masks, while `nonzero` or an index by bools waits each time. On a
    CPU, where there is nothing to wait for, `nonzero` is quicker.
    """
    if is_on_cpu(masks[0]):
        return [mask.nonzero().flatten() for mask in masks]
    counts = torch.stack([mask.sum() for mask in masks]).tolist()
    found = torch.cat(list(masks)).cumsum(dim=0)  # how many hold up to each row
    # The n-th that holds, from 1, is where `found` first reaches n.
    ordinals = torch.arange(1, sum(counts) + 1, device=found.device)
    rows, start = [], 0
    for mask, of_mask in zip(masks, torch.searchsorted(found, ordinals).split(counts), strict=True):
        rows.append(of_mask - start)
        start += len(mask)
    return rows


def is_on_cpu(tensor: Tensor) -> bool:
    """Whether there is nothing to wait for, so that least arithmetic counts."""
    return tensor.device.type == "cpu"


def _draw(population: int, count: int, first: int, device: torch.device) -> Tensor:
    # A whole permutation for the few that are kept, because upstream draws one: seeds rely on it.
    drawn = torch.randperm(population, device=device)[:count]
    return drawn + first if first > 0 else drawn
