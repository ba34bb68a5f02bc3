"""Which tokens a sampling encoder has seen of a few images, for the report of a run."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from mimdet.whole_files import written_whole

IMAGES = 4
_SIDE = 512  # pixels; larger images are kept with every second, third, ... pixel


@contextlib.contextmanager
def watch_tokens(model: nn.Module, count: int = IMAGES) -> Iterator[list[dict[str, np.ndarray]]]:
    """Note, in a block, what the encoder keeps of the first images that the model gets.

    A backbone samples if it has a `sample_ratio`; which tokens it has kept is told by the
    `ids_keep` of what its decoder gets (and by `counts`, where some of them are padding).

    Args:
        model: of which each call is a batch, a list of samples with an `image` (3, H, W) in 0..255.
        count: images to tell of.

    Yields:
        The list that is filled: of each image `image` (H, W, 3) uint8 RGB, as the model sees it,
        `kept` (h, w) bool of its token grid, padding included, and `tokens`, the height and width
        of the image in tokens. It stays empty where all tokens are kept.
    """
    seen: list[dict[str, np.ndarray]] = []
    batch: list[Any] = []
    padded: list[Any] = []

    def remember_batch(module: nn.Module, args: tuple) -> None:
        batch[:] = args[0] if len(seen) < count and isinstance(args[0], list) else []

    # The padded batch, because the grid of tokens is that of it.
    def remember_images(module: nn.Module, args: tuple) -> None:
        padded[:] = args[:1]

    def note(module: nn.Module, args: tuple) -> None:
        encoded = args[0]
        if not batch or getattr(encoded, "ids_keep", None) is None:
            return
        for k in range(min(count - len(seen), len(encoded.ids_keep))):
            seen.append(_describe(batch[k]["image"], is_bgr, padded[0].tensor, encoded, k))

    modules = list(model.modules())
    is_bgr = any(getattr(module, "input_format", None) == "BGR" for module in modules)
    handles = [model.register_forward_pre_hook(remember_batch)]
    for module in modules:
        if hasattr(module, "sample_ratio") and hasattr(module, "decoder"):
            handles.append(module.register_forward_pre_hook(remember_images))
            handles.append(module.decoder.register_forward_pre_hook(note))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _describe(
    image: Tensor, is_bgr: bool, padded: Tensor, encoded: Any, k: int
) -> dict[str, np.ndarray]:
    kept = encoded.ids_keep[k]
    # Where an image has fewer tokens to draw than another, its last slots hold none that counts.
    if encoded.counts is not None:
        kept = kept[encoded.counts[k]]
    grid = np.zeros(tuple(encoded.stem[-1].shape[-2:]), bool)
    grid.flat[kept.cpu().numpy()] = True
    # side of a token in pixels = padded side / tokens on it
    tokens = [
        n * side / whole
        for n, side, whole in zip(grid.shape, image.shape[-2:], padded.shape[-2:], strict=True)
    ]
    step = -(-max(image.shape[-2:]) // _SIDE)
    pixels = image[:, ::step, ::step].permute(1, 2, 0).cpu().numpy().astype(np.uint8)
    pixels = pixels[..., ::-1] if is_bgr else pixels
    return {"image": pixels, "kept": grid, "tokens": np.array(tokens)}


def save_kept_tokens(seen: list[dict[str, np.ndarray]], path: str | os.PathLike) -> None:
    """Write what `watch_tokens` has noted; if it is nothing, remove that of an earlier evaluation.

    Args:
        seen: entry k is written as ``image_k``, ``kept_k`` and ``tokens_k``.
        path: of a ``.npz`` file.
    """
    if not seen:
        Path(path).unlink(missing_ok=True)
        return
    named = {f"{name}_{k}": value for k, entry in enumerate(seen) for name, value in entry.items()}
    with written_whole(path, "wb") as file:
        np.savez_compressed(file, **named)
