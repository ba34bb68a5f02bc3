"""Random masking, by hand and by what must always hold."""

import pytest
import torch

from mimdet.pretraining.masking import enlarge, masked_mean, num_kept, random_masking


def test_the_smallest_noise_is_kept():
    masking = random_masking(torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.2, 0.8, 0.0, 0.6]]), 0.5)
    assert masking.ids_keep.tolist() == [[1, 3], [2, 0]]
    assert masking.removed.tolist() == [[True, False, True, False], [False, True, False, True]]
    assert masking.ids_restore.tolist() == [[3, 0, 2, 1], [1, 3, 0, 2]]


def test_kept_then_removed_places_are_restored_to_their_order():
    masking = random_masking(torch.rand(5, 36), 0.75)
    places = torch.arange(36).expand(5, -1)
    removed = places[masking.removed].view(5, -1)
    # any order among the removed will do, since all of them are the same mask token
    joined = torch.cat([masking.ids_keep, torch.full_like(removed, -1)], dim=1)
    restored = joined.gather(1, masking.ids_restore)
    assert torch.equal(restored, torch.where(masking.removed, -1, places))


@pytest.mark.parametrize(
    "places, ratio, kept",
    [(196, 0.75, 49), (64, 0.75, 16), (16, 0.6, 6), (4, 0.5, 2), (16, 0.5, 8)],
)
def test_every_image_keeps_the_same_number(places, ratio, kept):
    assert num_kept(places, ratio) == kept
    masking = random_masking(torch.rand(7, places), ratio)
    assert masking.ids_keep.shape == (7, kept)
    assert (~masking.removed).sum(dim=1).tolist() == [kept] * 7


def test_every_place_is_removed_as_often_as_the_ratio_says():
    torch.manual_seed(0)
    share = random_masking(torch.rand(4000, 16), 0.75).removed.float().mean(dim=0)
    torch.testing.assert_close(share, torch.full((16,), 0.75), rtol=0, atol=0.03)  # 4 sigma


def test_a_masked_mean_is_that_of_what_is_masked():
    x, mask = torch.rand(3, 5), torch.rand(3, 5) < 0.5
    torch.testing.assert_close(masked_mean(x, mask), x[mask].mean())


def test_enlarging_repeats_cells_in_place():
    cells = torch.tensor([[[True, False], [False, True]]])
    assert enlarge(cells, 2).long().tolist() == [
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    ]
