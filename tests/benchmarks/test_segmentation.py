"""The two ways that the benchmark of segmentation compares do the same."""

import pytest

from benchmarks import segmentation


@pytest.fixture
def small(monkeypatch):
    """Windows of 64 pixels, and photos that are and are not as large as the network's input."""
    monkeypatch.setattr(segmentation, "_CROP", 64)
    monkeypatch.setattr(segmentation, "_STRIDE", 42)
    monkeypatch.setattr(
        segmentation,
        "_PHOTOS",
        {"same": ((86, 64), (86, 64)), "larger": ((150, 187), (64, 80))},
    )
    segmentation._model.cache_clear()
    yield
    segmentation._model.cache_clear()


@pytest.mark.parametrize("name", ["same", "larger"])
def test_class_maps_are_equal_but_for_rounding(small, name):
    plain, ours = segmentation._plain(name), segmentation._ours(name)
    assert plain.shape == ours.shape == segmentation._PHOTOS[name][0]
    assert (plain == ours).double().mean() > 0.999
    assert len(ours.unique()) > 3  # or equality would say little
