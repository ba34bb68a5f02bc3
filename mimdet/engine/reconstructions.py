"""What a masked autoencoder makes of a few images, again and again while it is trained."""

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from detectron2.engine import HookBase
from mimdet.whole_files import written_whole

IMAGES, TIMES = 4, 8
_SEED = 0  # of the masks, which are the same each time


class Reconstructions(HookBase):
    """Writes ``reconstructions_ITERATION.npz`` into the folder of a pretraining.

    The images are the first ones of the training. Each file holds, as uint8, ``images`` and
    ``reconstructions`` (N, H, W, 3), and ``removed`` (N, H, W) bool, True where the model had to
    paint.

    Args:
        model: has a method `reconstruct`, without the wrapper of distributed training.
        output_dir: of the run.
        max_iter: iterations of the run, over which the files are spread evenly.
    """

    def __init__(self, model: nn.Module, output_dir: str | os.PathLike, max_iter: int):
        self._model = model
        self._folder = Path(output_dir)
        self._period = max(1, -(-max_iter // TIMES))
        self._images: Tensor | None = None

    def before_train(self) -> None:
        """Take the images of the first batch; a resumed run those of its earlier files."""
        if earlier := sorted(self._folder.glob("reconstructions_*.npz")):
            self._images = _normalized(np.load(earlier[0])["images"])
        else:
            self._handle = self.trainer.model.register_forward_pre_hook(self._take)

    def _take(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._images = torch.stack([sample["image"] for sample in args[0][:IMAGES]])
        self._handle.remove()

    def after_step(self) -> None:
        """Reconstruct, if it is time."""
        done = self.trainer.iter + 1
        if done == 1 or done % self._period == 0 or done == self.trainer.max_iter:
            self._write(self._folder / f"reconstructions_{self.trainer.iter:07d}.npz")

    @torch.no_grad()
    def _write(self, path: Path) -> None:
        images = self._images.to(next(self._model.parameters()).device)
        was_training = self._model.training
        # The masks take numbers of their own: chance in the training goes on as without this.
        with torch.random.fork_rng([images.device] if images.is_cuda else []):
            torch.manual_seed(_SEED)
            pictures, removed = self._model.eval().reconstruct(images)
        self._model.train(was_training)
        # A disk that is full costs a picture, and not the training.
        with contextlib.suppress(OSError), written_whole(path, "wb") as file:
            np.savez_compressed(
                file,
                images=_pixels(images),
                reconstructions=_pixels(pictures),
                removed=removed.cpu().numpy(),
            )


# (3, 1, 1) each
_MEAN = torch.tensor(IMAGENET_DEFAULT_MEAN)[:, None, None]
_STD = torch.tensor(IMAGENET_DEFAULT_STD)[:, None, None]


def _pixels(images: Tensor) -> np.ndarray:
    """Normalised (N, 3, H, W) -> uint8 (N, H, W, 3)."""
    pixels = ((images.float().cpu() * _STD + _MEAN) * 255).round().clamp(0, 255).byte()
    return pixels.permute(0, 2, 3, 1).numpy()


def _normalized(pixels: np.ndarray) -> Tensor:
    """The way back."""
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - _MEAN) / _STD
