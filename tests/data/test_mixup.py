"""Mixed batches: images, targets, repeatability, and what is refused."""

import pytest
import torch

from mimdet.data.mixup import MixupCollate


def samples(number: int = 4, size: int = 16) -> list[dict]:
    return [
        {"image": torch.full((3, size, size), float(k)), "label": k % 3, "file_name": str(k)}
        for k in range(number)
    ]


def test_mixup_weighs_images_and_targets_alike():
    mixed = MixupCollate(3, cutmix_alpha=0.0, label_smoothing=0.0)(samples())
    for k, sample in enumerate(mixed):
        share = (sample["image"] - (3 - k)).mean() / (k - (3 - k))  # of image k against 3 - k
        expected = torch.zeros(3)
        expected[k % 3] += share
        expected[(3 - k) % 3] += 1 - share
        torch.testing.assert_close(sample["target"], expected)
        assert sample["file_name"] == str(k)


def test_cutmix_weighs_targets_by_area():
    mixed = MixupCollate(3, mixup_alpha=0.0, label_smoothing=0.0)(samples())
    own = (mixed[1]["image"] == 1).float().mean()
    assert ((mixed[1]["image"] == 1) | (mixed[1]["image"] == 2)).all()
    torch.testing.assert_close(mixed[1]["target"], torch.tensor([0, own, 1 - own]))


def test_targets_are_smoothed_distributions():
    mixed = MixupCollate(5, prob=0.0, label_smoothing=0.1)(samples())
    assert mixed[0]["target"].tolist() == pytest.approx([0.92, 0.02, 0.02, 0.02, 0.02])
    assert (mixed[2]["image"] == 2).all()


def test_the_same_batch_is_mixed_in_the_same_way_and_another_in_another():
    collate = MixupCollate(3)
    state = torch.get_rng_state()
    first, again = collate(samples()), collate(samples())
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, again, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    targets = [
        collate([{**s, "image": s["image"] + k} for s in samples()])[1]["target"] for k in range(9)
    ]
    assert len({tuple(t.tolist()) for t in targets}) > 5


def test_the_given_images_stay_as_they_are():
    given = samples()
    MixupCollate(3)(given)
    assert (given[1]["image"] == 1).all()


def test_an_odd_batch_is_refused():
    with pytest.raises(ValueError, match="even number of images per process, got 3"):
        MixupCollate(3)(samples(3))


def test_a_label_beyond_the_classes_is_refused():
    with pytest.raises(ValueError, match="below num_classes=2, got 2 .dataloader.train.collate_fn"):
        MixupCollate(2)(samples())
