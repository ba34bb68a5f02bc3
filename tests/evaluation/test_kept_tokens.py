"""Which tokens an encoder has seen, noted from outside."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mimdet.evaluation.kept_tokens import save_kept_tokens, watch_tokens


class Decoder(nn.Module):
    def forward(self, encoded):
        return encoded


class Backbone(nn.Module):
    """Keeps the tokens that the test wants of a grid of 2 x 3 tokens of 16 pixels."""

    sample_ratio = 0.5

    def __init__(self, ids_keep, counts):
        super().__init__()
        self.decoder = Decoder()
        self.encoded = SimpleNamespace(
            ids_keep=ids_keep, counts=counts, stem=[torch.zeros(2, 1, 2, 3)]
        )

    def forward(self, images):
        return self.decoder(self.encoded)


class Model(nn.Module):
    input_format = "BGR"

    def __init__(self, ids_keep, counts=None):
        super().__init__()
        self.backbone = Backbone(ids_keep, counts)

    def forward(self, batch):
        return self.backbone(SimpleNamespace(tensor=torch.zeros(2, 3, 32, 48)))


def batch() -> list[dict]:
    image = torch.zeros(3, 32, 48, dtype=torch.uint8)
    image[0] = 200  # blue first
    return [{"image": image}, {"image": image[:, :20, :40]}]


IDS = torch.tensor([[5, 0], [1, 3]])


@pytest.mark.parametrize("counts, second", [(None, [1, 3]), ([[True, True], [False, True]], [3])])
def test_kept_tokens_are_marked_in_their_grid(counts, second):
    model = Model(IDS, counts if counts is None else torch.tensor(counts))
    with watch_tokens(model) as seen:
        model(batch())
        model(batch())
        model(batch())
    assert len(seen) == 4  # and no more
    assert np.flatnonzero(seen[0]["kept"]).tolist() == [0, 5]
    assert np.flatnonzero(seen[1]["kept"]).tolist() == second
    assert seen[0]["kept"].shape == (2, 3)
    assert seen[1]["tokens"].tolist() == [20 / 16, 40 / 16]
    assert seen[1]["image"].shape == (20, 40, 3)
    assert seen[0]["image"][0, 0].tolist() == [0, 0, 200]  # RGB
    assert not model._forward_pre_hooks and not model.backbone._forward_pre_hooks


def test_a_model_that_keeps_all_tokens_has_nothing_to_tell(tmp_path):
    model = Model(None)
    with watch_tokens(model) as seen:
        model(batch())
    path = tmp_path / "kept.npz"
    path.touch()  # of an earlier evaluation
    save_kept_tokens(seen, path)
    assert seen == [] and not path.exists()


def test_large_images_are_kept_with_fewer_pixels():
    model = Model(IDS)
    with watch_tokens(model, count=1) as seen:
        model([{"image": torch.zeros(3, 800, 1216)}, {"image": torch.zeros(3, 8, 8)}])
    assert seen[0]["image"].shape == (267, 406, 3)
