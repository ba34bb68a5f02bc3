"""Targets: HOG equal to stored values, and its invariants; pixels there and back."""

import numpy as np
import pytest
import torch
from pretraining_models import PRETRAINING, dyadic, imagenet, images

from mimdet.pretraining.targets import HOGTarget, PixelTarget, patchify, unpatchify

HOG = dict(np.load(PRETRAINING / "hog.npz"))
OPTIONS = {
    "norm": {},
    "raw": dict(normalize=False),
    "bins6_pool4_norm": dict(bins=6, cell_size=4),
    "gauss16_norm": dict(gaussian_window=16),
}
STORED = ["random_norm", "random_raw", "wave_norm", "wave_raw"]
STORED += ["wave_bins6_pool4_norm", "wave_gauss16_norm"]


@pytest.mark.parametrize("name", STORED)
def test_hog_equals_stored_values(name):
    kind, _, options = name.partition("_")
    target = HOGTarget(**OPTIONS[options])
    actual = target(dyadic(images(kind, [0, 1], 64)))
    assert actual.shape[1] == target.channels
    np.testing.assert_allclose(actual, HOG[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["random", "wave"])
def test_hog_differs_from_stored_values_only_where_those_are_rounding_noise(kind):
    actual = HOGTarget()(imagenet(images(kind, [0, 1], 64))).numpy()
    assert (abs(actual - HOG[f"imagenet_{kind}_norm"]) < 1e-4).mean() > 0.95


@pytest.mark.parametrize("name", ["vertical", "horizontal", "diagonal"])
def test_hog_of_an_edge_equals_stored_values(name):
    row, column = np.mgrid[:16, :16]
    is_dark = {"vertical": column < 6, "horizontal": row < 6, "diagonal": row + column < 15}[name]
    gray = torch.from_numpy(np.where(is_dark, 50, 200).astype(np.float32))
    actual = HOGTarget(normalize=False)(gray.expand(1, 3, 16, 16))
    np.testing.assert_allclose(actual, HOG[f"edge_{name}_raw"], rtol=1e-6)


def histograms(x: torch.Tensor) -> torch.Tensor:
    """(B, colours, bins, h, w)."""
    return HOGTarget()(x).unflatten(1, (3, 9))


@pytest.mark.parametrize("value", [0.0, 200.0, -1.7, 1 / 3])
def test_a_constant_image_has_no_gradient_at_all(value):
    assert not histograms(torch.full((1, 3, 32, 32), value)).any()


def test_a_vertical_edge_falls_in_the_middle_bin_and_a_horizontal_one_in_the_first():
    x = torch.zeros(1, 3, 16, 16)
    x[..., 4:] = 1.0
    assert histograms(x)[0, 0, :, 0, 0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert histograms(x.transpose(2, 3))[0, 0, :, 0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0]


def test_mirroring_an_image_mirrors_the_bins():
    # Bin b becomes 8 - b, except where a gradient is exactly along an axis: in noise that is only
    # at the border, which is reflected.
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    inner = (..., slice(1, -1), slice(1, -1))
    mirrored = histograms(x.flip(-1)).flip(-1).flip(2)
    torch.testing.assert_close(mirrored[inner], histograms(x)[inner], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", [lambda x: x + 3, lambda x: x * 4], ids=["plus 3", "times 4"])
def test_brightness_and_contrast_do_not_change_the_normalised_target(change):
    x = dyadic(images("wave", [0], 64))  # sums stay exact
    torch.testing.assert_close(histograms(change(x)), histograms(x), rtol=1e-5, atol=1e-6)


def test_histograms_are_of_unit_length_and_raw_ones_sum_the_magnitudes():
    x = imagenet(images("random", [0], 32))
    lengths = histograms(x).norm(dim=2)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    raw, doubled = (HOGTarget(normalize=False)(y) for y in (x, 2 * x))
    torch.testing.assert_close(doubled, 2 * raw)


@pytest.mark.parametrize("target", [HOGTarget(), PixelTarget(16)], ids=["HOG", "pixels"])
def test_a_target_is_float32_without_gradient_under_autocast(target):
    x = imagenet(images("random", [0], 32)).requires_grad_()
    expected = target(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = target(x)
    assert actual.dtype == torch.float32 and not actual.requires_grad
    assert torch.equal(actual, expected)


def test_cutting_into_patches_and_joining_them_changes_nothing():
    x = torch.rand(2, 3, 24, 36)
    assert patchify(x, 12).shape == (2, 432, 2, 3)
    assert torch.equal(unpatchify(patchify(x, 12), 12), x)


@pytest.mark.parametrize("target", [HOGTarget(), PixelTarget(8)], ids=["HOG", "pixels"])
def test_images_that_the_cells_do_not_fill_are_refused(target):
    with pytest.raises(ValueError, match=r"must be multiples of 8 pixels .*, got 20x16"):
        target(torch.zeros(1, 3, 20, 16))


def test_images_that_the_windows_do_not_fill_are_refused():
    target = HOGTarget(gaussian_window=16)
    with pytest.raises(ValueError, match=r"multiples of 16 pixels \(gaussian_window .*, got 24x32"):
        target(torch.zeros(1, 3, 24, 32))
