"""Pictures of a pretraining while it goes on."""

import numpy as np
import torch
from torch import nn

from detectron2.engine import SimpleTrainer
from mimdet.engine.reconstructions import TIMES, Reconstructions, _normalized, _pixels


class Painter(nn.Module):
    """Paints the removed half of each image in the value of its weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, batch):
        self.drawn = torch.rand(1)
        return {"loss": (self.weight - 1) ** 2}

    def reconstruct(self, images):
        assert not self.training
        removed = torch.rand(images.shape[0], *images.shape[2:]) < 0.5
        return torch.where(removed[:, None], self.weight, images), removed


def train(folder, start: int, end: int, seed: int = 0) -> Painter:
    torch.manual_seed(seed)
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    model = Painter()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = [{"image": image} for image in images]
    trainer = SimpleTrainer(model, iter([batch] * (end - start)), optimizer)
    trainer.register_hooks([Reconstructions(model, folder, max_iter=32)])
    trainer.train(start, end)
    assert model.training
    return model


def files(folder) -> list[dict]:
    return [dict(np.load(path)) for path in sorted(folder.glob("reconstructions_*.npz"))]


def test_the_same_images_and_masks_are_painted_again_and_again(tmp_path):
    train(tmp_path, 0, 32)
    written = files(tmp_path)
    assert len(written) == TIMES + 1  # and once after the first iteration
    for name in ("images", "removed"):
        assert all(np.array_equal(written[0][name], other[name]) for other in written)
    assert written[0]["images"].shape == (4, 8, 8, 3)
    removed = written[0]["removed"]
    first, last = (entry["reconstructions"] for entry in (written[0], written[-1]))
    assert np.array_equal(first[~removed], last[~removed])
    assert (first[removed] != last[removed]).any()


def test_a_resumed_run_paints_the_images_of_its_beginning(tmp_path):
    train(tmp_path, 0, 16)
    train(tmp_path, 16, 32, seed=5)
    written = files(tmp_path)
    assert len(written) == TIMES + 1
    assert np.array_equal(written[0]["images"], written[-1]["images"])


def test_chance_in_the_training_goes_on_as_without_pictures(tmp_path):
    with_pictures = train(tmp_path, 0, 5).drawn
    torch.manual_seed(0)
    drawn = [torch.rand(1) for _ in range(5)]
    assert torch.equal(with_pictures, drawn[-1])


def test_pixels_are_normalised_there_and_back():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    assert np.array_equal(_pixels(_normalized(pixels)), pixels)
