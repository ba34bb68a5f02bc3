"""Images for pretraining and classification: where they come from, and endless repeatable batches.

An image is a record ``{"file_name": ...}``, with a ``"label"`` where there are classes; a mapper
makes it a sample ``{"image": (3, H, W) tensor, ...}``, and a batch is a list of samples.
"""

import contextlib
import functools
import itertools
import logging
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, Sampler

from detectron2.data import DatasetFromList, build_batch_data_loader
from detectron2.utils import comm
from mimdet.data.toy import CLASSES, make_labelled_image

logger = logging.getLogger(__name__)

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif")
_SYNTHETIC = "synthetic:"
_MAX_ATTEMPTS = 100  # images tried for one place in a batch


# --- Where images come from -----------------------------------------------------------------------


def load_images(source: str | os.PathLike) -> list[dict[str, Any]]:
    """List images whose classes do not matter.

    Args:
        source: one of

            * a folder with images at any depth, such as COCO's ``train2017``;
            * the root of ImageNet, of which ``train/`` is taken;
            * a text file with one path per line, relative ones from the folder of the file;
            * ``synthetic:N``, N generated pictures that need no file.

    Returns:
        Records with `file_name`, in an order that depends on the names only.

    Raises:
        FileNotFoundError: if there is no such source, or the text file names missing images.
        ValueError: if there is no image in it.
    """
    source = str(source)
    if source.startswith(_SYNTHETIC):
        records = _synthetic_records(source, "train")
    elif os.path.isdir(source):
        train = os.path.join(source, "train")
        names = _images_below(train if os.path.isdir(train) else source)
        records = [{"file_name": name} for name in names]
    elif os.path.isfile(source):
        records = [{"file_name": name} for name in _listed_images(source)]
    else:
        raise FileNotFoundError(
            f"images must come from a folder, a text file of paths or {_SYNTHETIC}N, and "
            f"{source!r} is none of them (dataloader.train.dataset.source)"
        )
    return _logged(records, source)


def load_labelled_images(root: str | os.PathLike, split: str) -> list[dict[str, Any]]:
    """List the images of a split in which every class has a folder, as in ImageNet.

    Args:
        root: folder with ``<split>/<class>/...``, or ``synthetic:N`` for N generated pictures of
            four shapes.
        split: "train", "val", ...

    Returns:
        Records with `file_name` and `label`, the place of the class among the sorted names of the
        classes in ``train/`` (of `split`, where there is no ``train/``).

    Raises:
        FileNotFoundError: if there is no folder for the split.
        ValueError: if there are no classes or no images, or the split has a class that
            ``train/`` lacks.
    """
    root = str(root)
    if root.startswith(_SYNTHETIC):
        return _logged(_synthetic_records(root, split), f"{root} ({split})")
    folder, train = Path(root) / split, Path(root) / "train"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"a labelled split must be a folder of class folders, and there is no {folder} "
            "(dataloader.*.dataset.root)"
        )
    names = _class_names(train if train.is_dir() else folder)
    unknown = sorted(set(_class_names(folder)) - set(names))
    if unknown:
        raise ValueError(
            f"the classes of {folder} must be among those of {train}, which lacks {unknown[:5]}"
        )
    records = [
        {"file_name": file_name, "label": label}
        for label, name in enumerate(names)
        if (folder / name).is_dir()
        for file_name in _images_below(str(folder / name), may_be_empty=True)
    ]
    if not records:
        raise ValueError(f"no class folder of {folder} holds an image ({', '.join(_SUFFIXES)})")
    return _logged(records, str(folder))


def _class_names(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not names:
        raise ValueError(
            f"{folder} must hold one folder per class, and it holds no folder; images without "
            "classes can only be used for pretraining (mimdet.data.imagenet.load_images)"
        )
    return names


def _images_below(folder: str, may_be_empty: bool = False) -> list[str]:
    found = [
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(_SUFFIXES)
    ]
    if not (found or may_be_empty):
        raise ValueError(
            f"{folder} must hold images ({', '.join(_SUFFIXES)}) at any depth, and there is none "
            "(dataloader.train.dataset.source)"
        )
    return sorted(found)


def _listed_images(path: str) -> list[str]:
    lines = (line.strip() for line in Path(path).read_text().splitlines())
    names = [os.path.join(os.path.dirname(path), line) for line in lines if line]
    if not names:
        raise ValueError(f"{path} must name one image per line, and it names none")
    missing = [name for name in names if not os.path.isfile(name)]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(names)} images that {path} names do not exist: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}; relative paths start "
            "in the folder of that file"
        )
    return names


def _synthetic_records(source: str, split: str) -> list[dict[str, Any]]:
    number = source[len(_SYNTHETIC) :]
    if not number.isdecimal() or int(number) == 0:
        raise ValueError(
            f"generated images must be {_SYNTHETIC}N with N at least 1, got {source!r}"
        )
    return [
        {"file_name": f"{_SYNTHETIC}{split}:{index}", "label": index % len(CLASSES)}
        for index in range(int(number))
    ]


def _logged(records: list[dict[str, Any]], source: str) -> list[dict[str, Any]]:
    first = ", ".join(record["file_name"] for record in records[:3])
    logger.info(f"{len(records)} images in {source}: {first}, ...")
    return records


# --- From a record to a sample --------------------------------------------------------------------


def read_image(file_name: str) -> Image.Image:
    """Read an image file, or generate a picture of the built-in set, as RGB.

    Raises:
        OSError: if the file cannot be read, whatever the decoder says about it.
    """
    if file_name.startswith(_SYNTHETIC):
        return _generated(file_name)
    try:
        with Image.open(file_name) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise OSError(f"{file_name} cannot be read as an image ({type(e).__name__}: {e})") from e


@functools.lru_cache(maxsize=2048)  # drawing takes longer than a toy network; 50 KB each
def _generated(file_name: str) -> Image.Image:
    split, index = file_name[len(_SYNTHETIC) :].split(":")
    seed = [int.from_bytes(split.encode()), int(index)]
    return Image.fromarray(make_labelled_image(seed, int(index) % len(CLASSES)))


class ImageMapper:
    """Reads and transforms the image of a record.

    Args:
        transform: PIL image -> tensor (3, H, W).
        skip_unreadable: return None for a file that cannot be read, with a warning that counts
            them; for training. False raises the error: an evaluation must see every image.
    """

    def __init__(self, transform: Callable[[Image.Image], torch.Tensor], skip_unreadable: bool):
        self.transform = transform
        self.skip_unreadable = skip_unreadable
        self._unreadable: set[str] = set()

    def __call__(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """The record with its `image`; None for an unreadable one that may be skipped."""
        try:
            image = read_image(record["file_name"])
        except OSError as e:
            if not self.skip_unreadable:
                raise
            if record["file_name"] not in self._unreadable:
                self._unreadable.add(record["file_name"])
                logger.warning(f"skipped image {len(self._unreadable)} of this process: {e}")
            return None
        return {**record, "image": self.transform(image)}


# --- From records to batches ----------------------------------------------------------------------


class ImageTrainLoader:
    """Endless batches of augmented images that are a function of a seed and the iteration alone.

    They depend neither on the number of processes and workers nor on what a run did before: one
    that resumes in iteration i sees what it would have seen without the interruption.

    Args:
        dataset: records.
        mapper: record -> sample, or None to have another record take its place.
        total_batch_size: images per iteration over all processes, whose number divides it.
        num_workers: worker processes of each process; 0 loads in the process itself.
        collate_fn: list of samples -> batch; None gives the list.

    Attributes:
        dataset_size: number of records.
        seed: of everything random; drawn, the same on all processes.
    """

    def __init__(
        self,
        dataset: Sequence[dict[str, Any]],
        *,
        mapper: Callable[[dict[str, Any]], Any],
        total_batch_size: int,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ):
        # One buffer, which workers share: a list of 1.3 million dicts would be copied into each.
        self._dataset = DatasetFromList(list(dataset), serialize=True)
        self._mapper = mapper
        self._num_workers = num_workers
        self._collate_fn = collate_fn
        self._total_batch_size = total_batch_size
        self._start = 0
        self.dataset_size = len(self._dataset)
        self.seed = comm.shared_random_seed()

    def set_start(self, iteration: int) -> None:
        """Let iterators made from now on begin with the batch of `iteration`."""
        self._start = iteration

    def __iter__(self) -> Iterator[Any]:
        return iter(
            build_batch_data_loader(
                _Stream(self._dataset, self._mapper, self.seed),
                _Positions(self._start * self._total_batch_size),
                self._total_batch_size,
                num_workers=self._num_workers,
                collate_fn=self._collate_fn,
                seed=self.seed,  # or starting it would draw from the generator of the model
            )
        )


class _Positions(Sampler):
    """The places of the endless stream that are this process's: start + rank, + world size, ..."""

    def __init__(self, start: int):
        self._start = start + comm.get_rank()
        self._step = comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self._start, self._step)


class _Stream(Dataset):
    """Samples by their place in an endless stream of shuffled epochs."""

    def __init__(self, dataset: Dataset, mapper: Callable[[Any], Any], seed: int):
        self._dataset, self._mapper, self._seed = dataset, mapper, seed
        self._epoch, self._order = -1, torch.empty(0)

    def __getitem__(self, position: int) -> Any:
        epoch, place = divmod(position, len(self._dataset))
        candidates = itertools.chain([self._index(epoch, place)], self._replacements(position))
        for index in itertools.islice(candidates, _MAX_ATTEMPTS):
            with seeded(self._seed, position):
                sample = self._mapper(self._dataset[index])
            if sample is not None:
                return sample
        raise RuntimeError(
            f"none of {_MAX_ATTEMPTS} images in a row could be read; the last one was "
            f"{self._dataset[index]['file_name']} (dataloader.train.dataset)"
        )

    def _index(self, epoch: int, place: int) -> int:
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(_mixed(self._seed, epoch))
            self._order = torch.randperm(len(self._dataset), generator=generator)
            self._epoch = epoch
        return int(self._order[place])

    def _replacements(self, position: int) -> Iterable[int]:
        rng = random.Random(_mixed(self._seed, position))
        return (rng.randrange(len(self._dataset)) for _ in itertools.count())


def _mixed(*seeds: int) -> int:
    """One seed from several, such that neighbours have nothing in common."""
    return int(np.random.SeedSequence(seeds).generate_state(1)[0])


@contextlib.contextmanager
def seeded(*seeds: int) -> Iterator[None]:
    """Seed `random`, numpy and torch on the CPU for a block; then all are as they were before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = _mixed(*seeds)
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
