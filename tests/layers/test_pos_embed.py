"""Position tables against the published ones, and the cache of resized tables."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_models import GOLDEN as FOLDER
from golden_models import assert_summary, load
from torch import nn

from mimdet.layers.pos_embed import (
    PosEmbedCache,
    get_2d_sincos_pos_embed,
    interpolate_pos_embed,
    interpolate_rel_pos_bias,
)

GOLDEN = load("forward/pos_embed.json.gz")


def frozen(grid: int = 3, embed_dim: int = 8) -> nn.Parameter:
    table = get_2d_sincos_pos_embed(embed_dim, grid, cls_token=True)
    return nn.Parameter(table[None], requires_grad=False)


@pytest.mark.parametrize(
    "case", GOLDEN["mae_sincos"], ids=lambda c: f"{c['embed_dim']}x{c['grid']}"
)
def test_sine_cosine_table_equals_that_of_mae(case):
    table = get_2d_sincos_pos_embed(case["embed_dim"], case["grid"], cls_token=case["cls_token"])
    assert table.dtype == torch.float32
    assert_summary(case["table"], table)
    tokens = table[1:] if case["cls_token"] else table
    # float32 of the same float64 sines: one unit in the last place
    for row, expected in ((1, case["row1"]), (case["grid"], case["row_grid"])):
        np.testing.assert_allclose(tokens[row, : len(expected)], expected, atol=1e-7, rtol=2e-7)


@pytest.mark.parametrize(
    "case", GOLDEN["interpolate"], ids=lambda c: f"{c['embed_dim']}x{c['grid']}-{c['new']}"
)
def test_resized_table_equals_the_published_one(case):
    table = get_2d_sincos_pos_embed(case["embed_dim"], case["grid"], cls_token=True)[None]
    resized = interpolate_pos_embed(table, tuple(case["new"]))
    assert_summary(case["table"], resized)
    assert torch.equal(resized[:, 0], table[:, 0])


def test_a_resized_table_equals_the_stored_one():
    stored = np.load(FOLDER / "pretraining/pos_embed_resize.npz")
    resized = interpolate_pos_embed(torch.from_numpy(stored["src"]), (14, 14))
    np.testing.assert_allclose(resized.numpy(), stored["dst"], rtol=1e-4, atol=1e-5)


def test_four_channels_are_sine_and_cosine_of_column_then_of_row():
    table = get_2d_sincos_pos_embed(4, (2, 3))
    positions = [(row, column) for row in range(2) for column in range(3)]
    expected = [[math.sin(x), math.cos(x), math.sin(y), math.cos(y)] for y, x in positions]
    np.testing.assert_allclose(table, expected, atol=1e-7)


def test_a_class_token_prepends_a_row_of_zeros():
    table = get_2d_sincos_pos_embed(8, (2, 3), cls_token=True)
    assert table.shape == (7, 8)
    assert not table[0].any()
    assert torch.equal(table[1:], get_2d_sincos_pos_embed(8, (2, 3)))


def test_a_width_that_is_no_multiple_of_four_is_refused():
    with pytest.raises(ValueError, match="embed_dim must be a multiple of 4 .* got 6"):
        get_2d_sincos_pos_embed(6, 3)


def test_resizing_to_the_same_grid_returns_the_table_itself():
    table = torch.randn(1, 10, 4)
    assert interpolate_pos_embed(table, (3, 3)) is table


def test_resizing_keeps_a_constant_table_constant():
    resized = interpolate_pos_embed(torch.full((1, 10, 4), 0.5), (5, 2))
    torch.testing.assert_close(resized, torch.full((1, 11, 4), 0.5))


@pytest.mark.parametrize("extra", [0, 2])
def test_a_table_that_is_not_square_is_resized_as_an_image(extra):
    table = torch.randn(1, extra + 6, 4)
    resized = interpolate_pos_embed(table, (4, 5), num_extra_tokens=extra, orig_size=(2, 3))
    image = table[0, extra:].reshape(2, 3, 4).permute(2, 0, 1)[None]
    expected = F.interpolate(image, size=(4, 5), mode="bicubic", align_corners=False)
    assert torch.equal(resized[:, :extra], table[:, :extra])
    for row in range(4):
        for column in range(5):
            token = resized[0, extra + 5 * row + column]
            torch.testing.assert_close(token, expected[0, :, row, column])


def test_a_table_without_a_square_number_of_tokens_needs_its_grid():
    with pytest.raises(ValueError, match=r"7 slots, 1 of them extra, .* 2x2; give .* orig_size"):
        interpolate_pos_embed(torch.zeros(1, 7, 4), (3, 3))


def test_a_grid_that_the_table_does_not_hold_is_refused():
    with pytest.raises(ValueError, match=r"does not hold a grid of 2x4"):
        interpolate_pos_embed(torch.zeros(1, 7, 4), (3, 3), orig_size=(2, 4))


def test_cached_table_is_the_resized_one_without_its_class_slot():
    table = frozen()
    cached = PosEmbedCache().get(table, (5, 7))
    torch.testing.assert_close(cached, interpolate_pos_embed(table, (5, 7))[:, 1:])
    assert cached.shape == (1, 35, 8)


def test_a_frozen_table_is_resized_once_per_grid():
    cache, table = PosEmbedCache(), frozen()
    first = cache.get(table, (5, 7))
    assert cache.get(table, (7, 5)) is not first
    assert cache.get(table, (5, 7)) is first


def test_loading_a_state_dict_invalidates_the_cache():
    module, cache = nn.Module(), PosEmbedCache()
    module.pos_embed = frozen()
    cache.get(module.pos_embed, (5, 7))
    loaded = torch.randn(1, 10, 8)
    module.load_state_dict({"pos_embed": loaded})
    expected = interpolate_pos_embed(loaded, (5, 7))[:, 1:]
    torch.testing.assert_close(cache.get(module.pos_embed, (5, 7)), expected)


def test_another_dtype_has_its_own_entry():
    module, cache = nn.Module(), PosEmbedCache()
    module.pos_embed = frozen()
    single = cache.get(module.pos_embed, (5, 7))
    double = cache.get(module.double().pos_embed, (5, 7))
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single)


def test_a_table_that_takes_the_memory_of_a_freed_one_is_not_mistaken_for_it():
    module, cache = nn.Module(), PosEmbedCache()
    module.pos_embed = frozen(grid=14, embed_dim=64)
    for seed in range(6):  # assigned parameters start at version 0, often at a freed address
        table = torch.randn(1, 197, 64, generator=torch.Generator().manual_seed(seed))
        module.load_state_dict({"pos_embed": table}, assign=True)
        del table
        expected = interpolate_pos_embed(module.pos_embed, (2, 2))[:, 1:]
        assert torch.equal(cache.get(module.pos_embed, (2, 2)), expected)


def test_a_copied_cache_starts_empty_with_the_same_bound():
    cache, table = PosEmbedCache(max_entries=3), frozen()
    cached = cache.get(table, (5, 7))
    twin = copy.deepcopy(cache)
    assert twin.max_entries == 3
    assert twin.get(table, (5, 7)) is not cached


def test_the_least_recently_used_table_is_dropped_at_the_bound():
    cache, table = PosEmbedCache(max_entries=2), frozen()
    first, second = cache.get(table, (4, 4)), cache.get(table, (5, 5))
    assert cache.get(table, (4, 4)) is first
    cache.get(table, (6, 6))
    assert cache.get(table, (4, 4)) is first
    assert cache.get(table, (5, 5)) is not second


def test_a_trainable_table_is_never_cached_and_gets_its_gradient():
    cache, table = PosEmbedCache(), frozen().requires_grad_()
    first = cache.get(table, (5, 7))
    assert cache.get(table, (5, 7)) is not first
    first.sum().backward()
    assert not table.grad[:, 0].any()
    assert table.grad[:, 1:].any()


def test_a_trainable_table_is_cached_while_no_gradients_are_made():
    cache, table = PosEmbedCache(), frozen().requires_grad_()
    with torch.no_grad():
        first = cache.get(table, (5, 7))
        assert cache.get(table, (5, 7)) is first
        table += 1  # a step of an optimiser
        torch.testing.assert_close(cache.get(table, (5, 7)), first + 1)
    assert cache.get(table, (5, 7)).requires_grad


def test_a_training_step_of_which_the_table_does_not_know_invalidates_the_cache():
    cache, table = PosEmbedCache(), frozen().requires_grad_()
    optimizer = torch.optim.AdamW([table], lr=1.0, fused=True)  # leaves the version as it is
    with torch.no_grad():
        before = cache.get(table, (5, 7))
    cache.get(table, (5, 7)).sum().backward()
    optimizer.step()
    with torch.no_grad():
        after = cache.get(table, (5, 7))
    torch.testing.assert_close(after, interpolate_pos_embed(table, (5, 7))[:, 1:].detach())
    assert not torch.allclose(after, before)


def test_a_cache_resizes_as_it_is_told():
    cache = PosEmbedCache(resize=lambda table, factor: table * factor)
    assert torch.equal(cache.get(frozen(), 3), 3 * frozen())


@pytest.mark.parametrize("combine", [torch.add, torch.mul])
def test_a_table_cached_in_inference_mode_serves_training(combine):
    cache, table = PosEmbedCache(), frozen()
    with torch.inference_mode():
        cached = cache.get(table, (5, 7))
    tokens = torch.ones(2, 35, 8, requires_grad=True)
    assert cache.get(table, (5, 7)) is cached
    combine(tokens, cached).sum().backward()  # a product keeps the table for its gradient
    expected = torch.ones_like(tokens) if combine is torch.add else cached.expand(2, -1, -1)
    torch.testing.assert_close(tokens.grad, expected)


def test_a_bias_of_the_right_size_stays_itself_and_another_is_an_image():
    bias = torch.randn(2, 16, 4)
    assert interpolate_rel_pos_bias(bias, (16, 4)) is bias
    larger = interpolate_rel_pos_bias(torch.ones(2, 16, 4), (64, 16))
    torch.testing.assert_close(larger, torch.ones(2, 64, 16))
