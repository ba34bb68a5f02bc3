"""Pictures of reconstructions."""

import numpy as np
from PIL import Image
from pretraining_models import imagenet, images, tiny_mae

from mimdet.analysis.reconstruction import draw_reconstructions


def tiles(picture: Image.Image) -> list[np.ndarray]:
    """The three pictures, back at 64 x 64 pixels."""
    title = 3 * 13
    assert picture.size == (3 * 320 + 2 * 8, title + 320)
    array = np.asarray(picture)[title:]
    return [array[2::5, k * 328 + 2 : k * 328 + 320 : 5] for k in range(3)]


def test_image_visible_part_and_reconstruction_are_side_by_side():
    u = images("wave", [0, 1], 64)
    pictures = draw_reconstructions(tiny_mae(), imagenet(u))
    assert len(pictures) == 2
    for expected, picture in zip(u.permute(0, 2, 3, 1).numpy(), pictures, strict=True):
        image, seen, reconstruction = tiles(picture)
        assert np.array_equal(image, expected)
        hidden = (seen == 128).all(axis=2)
        assert hidden.mean() >= 0.75  # a few visible pixels may be grey themselves
        assert np.array_equal(seen[~hidden], expected[~hidden])
        assert np.array_equal(reconstruction[~hidden], expected[~hidden])
        assert (reconstruction != expected).any()
