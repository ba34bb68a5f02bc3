"""Which tokens MIMDet's encoder sees."""

import pytest
import torch
from einops import rearrange

from mimdet.modeling.backbone.token_sampling import (
    SAMPLERS,
    padding_mask,
    random_noise,
    sample_tokens,
    stratified_noise,
)

CPU = torch.device("cpu")


def test_padding_mask_marks_tokens_that_touch_no_real_pixel():
    mask = padding_mask([(17, 32), (32, 1)], (2, 3), 16, torch.device("cpu"))
    assert mask.int().tolist() == [[[0, 0, 1], [0, 0, 1]], [[0, 1, 1], [0, 1, 1]]]


def test_sampling_keeps_padding_only_when_real_tokens_run_out():
    is_padding = torch.tensor([[False] * 6 + [True] * 2, [False] * 2 + [True] * 6])
    kept = sample_tokens(torch.rand(2, 8), is_padding, 0.5)
    assert kept.shape == (2, 4)
    assert kept[0].max() < 6
    assert set(kept[1, :2].tolist()) == {0, 1}
    assert kept[1, 2:].tolist() == [2, 3]  # ties among padding are broken by position


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_sampled_tokens_are_distinct_and_follow_the_generator(sampler):
    def sample(seed: int) -> torch.Tensor:
        noise = sampler((3, 5, 10), CPU, torch.Generator().manual_seed(seed))
        assert noise.shape == (3, 5, 10) and 0 <= noise.min() and noise.max() < 1
        return sample_tokens(noise.flatten(1), torch.zeros(3, 50, dtype=torch.bool), 0.25)

    assert torch.equal(sample(1), sample(1))
    assert all(len(set(row)) == 12 for row in sample(1).tolist())
    assert not torch.equal(sample(1), sample(2))
    assert len(set(map(tuple, sample(1).tolist()))) == 3  # each image has its own


def kept(sampler, ratio: float, hw: tuple[int, int], images: int = 1) -> torch.Tensor:
    """(images, h, w) bool."""
    noise = sampler((images, *hw), CPU).flatten(1)
    ids = sample_tokens(noise, torch.zeros_like(noise, dtype=torch.bool), ratio)
    return torch.zeros(images, noise.shape[1]).scatter(1, ids, 1.0).bool().view(images, *hw)


@pytest.mark.parametrize("ratio, side, count", [(1 / 4, 2, 1), (1 / 2, 2, 2), (1 / 16, 4, 1)])
def test_stratified_tokens_are_as_many_in_every_square(ratio, side, count):
    torch.manual_seed(0)
    chosen = kept(stratified_noise, ratio, (16, 24), images=4)
    squares = rearrange(chosen, "b (h p) (w q) -> (b h w) (p q)", p=side, q=side)
    assert squares.sum(dim=1).unique().tolist() == [count]
    random = rearrange(
        kept(random_noise, ratio, (16, 24)), "b (h p) (w q) -> (b h w) (p q)", p=side, q=side
    )
    assert len(random.sum(dim=1).unique()) > 1


@pytest.mark.parametrize("hw", [(8, 8), (7, 9)])
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_each_token_is_as_likely_to_be_kept_as_any_other(sampler, hw):
    torch.manual_seed(0)
    share = kept(sampler, 0.375, hw, images=4000).float().mean(dim=0)
    expected = int(hw[0] * hw[1] * 0.375) / (hw[0] * hw[1])
    # four standard deviations of a share of 4000, and for squares cut by the border a little more
    assert (share - expected).abs().max() < 4 * (expected * (1 - expected) / 4000) ** 0.5 + 0.01


def test_the_random_sampler_draws_the_numbers_of_torch_rand():
    drawn = random_noise((2, 3, 4), CPU, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)))
