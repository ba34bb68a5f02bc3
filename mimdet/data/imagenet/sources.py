"""Images for pretraining and classification: folders, lists, the built-in set.

An image is a record ``{"file_name": ...}``, with a ``"label"`` where there are classes.
"""

import logging
import os
from pathlib import Path
from typing import Any

from mimdet.data.imagenet.folder import SUFFIXES, folders_in, image_beside, images_below
from mimdet.data.imagenet.read import SYNTHETIC
from mimdet.data.toy import CLASSES
from mimdet.shown import shown

logger = logging.getLogger(__name__)

_OTHER_SPLITS = {"val", "valid", "validation", "test"}


def load_images(source: str | os.PathLike) -> list[dict[str, Any]]:
    """List images whose classes do not matter.

    Args:
        source: one of

            * a folder with images at any depth, such as COCO's ``train2017``; hidden files, and
              what systems and tools leave in folders, are left out;
            * the root of ImageNet, of which ``train/`` is taken: a folder in which ``val/`` or
              another split is beside ``train/``, or no image is;
            * a text file with one path per line, relative ones from the folder of the file;
            * ``synthetic:N``, N generated pictures that need no file.

    Returns:
        Records with `file_name`, in an order that depends on the names only.

    Raises:
        FileNotFoundError: if there is no such source, or the text file names missing images.
        ValueError: if there is no image in it.
    """
    source = str(source)
    if source.startswith(SYNTHETIC):
        records = _synthetic_records(source, "train")
    elif os.path.isdir(source):
        records = [{"file_name": name} for name in _images_of(_training_part(source))]
    elif os.path.isfile(source):
        records = [{"file_name": name} for name in _listed_images(source)]
    else:
        raise FileNotFoundError(
            f"images must come from a folder, a text file of paths or {SYNTHETIC}N, and "
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
    if root.startswith(SYNTHETIC):
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
        for file_name in sorted(images_below(str(folder / name)))
    ]
    if not records:
        raise ValueError(f"no class folder of {folder} holds an image ({', '.join(SUFFIXES)})")
    return _logged(records, str(folder))


def _class_names(folder: Path) -> list[str]:
    names = folders_in(folder)
    if not names:
        raise ValueError(
            f"{folder} must hold one folder per class, and it holds no folder; images without "
            "classes can only be used for pretraining (mimdet.data.imagenet.load_images)"
        )
    return names


def _training_part(root: str) -> str:
    """`root/train` where that is a split; `root` where `train` is one class of several."""
    train = os.path.join(root, "train")
    if not os.path.isdir(train):
        return root
    if _OTHER_SPLITS & set(folders_in(root)) or (image := image_beside(root, "train")) is None:
        return train
    logger.warning(
        f"{train} counts as one folder of {root} among others, because there are images beside it "
        f"({image}) and no val/ or test/; for its images alone, give {train}"
    )
    return root


def _images_of(folder: str) -> list[str]:
    found = sorted(images_below(folder))
    if not found:
        raise ValueError(
            f"{folder} must hold images ({', '.join(SUFFIXES)}) at any depth, and there is none "
            "(dataloader.train.dataset.source)"
        )
    return found


def _listed_images(path: str) -> list[str]:
    # -sig: text files of Windows may begin with a byte-order mark.
    lines = (line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines())
    # `join` leaves absolute paths as they are.
    names = [os.path.join(os.path.dirname(path), line) for line in lines if line]
    if not names:
        raise ValueError(f"{path} must name one image per line, and it names none")
    missing = [name for name in names if not os.path.isfile(name)]
    if missing:
        few = ", ".join(shown(name, 300) for name in missing[:3])
        raise FileNotFoundError(
            f"{len(missing)} of the {len(names)} images that {path} names are no files: "
            f"{few}{', ...' if len(missing) > 3 else ''}; relative paths start in the folder of "
            "that file"
        )
    return names


def _synthetic_records(source: str, split: str) -> list[dict[str, Any]]:
    number = source[len(SYNTHETIC) :]
    if not number.isdecimal() or int(number) == 0:
        raise ValueError(f"generated images must be {SYNTHETIC}N with N at least 1, got {source!r}")
    return [
        {"file_name": f"{SYNTHETIC}{split}:{index}", "label": index % len(CLASSES)}
        for index in range(int(number))
    ]


def _logged(records: list[dict[str, Any]], source: str) -> list[dict[str, Any]]:
    first = ", ".join(shown(record["file_name"], 300) for record in records[:3])
    logger.info(f"{len(records)} images in {source}: {first}, ...")
    return records
