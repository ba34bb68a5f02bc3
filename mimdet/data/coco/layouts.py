"""Find the annotation files and image folders of a dataset, by content and the usual layouts.

Known are COCO's own (``annotations/instances_train2017.json`` beside ``train2017``), Roboflow's
(``train/_annotations.coco.json`` beside the images), ``train.json`` beside a folder of images, and
what is like them: a file counts for what it holds, its split is a word of its path, and the image
folder is the one in which its images lie. Where there is no such file, label files of YOLO will do
(``images/train`` beside ``labels/train``, ``train/images`` beside ``train/labels``, text files
beside the images): they are read once, and what was read is kept in the user's cache folder.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from mimdet.data.coco.kept import keep_file
from mimdet.data.coco.yolo import class_names, labelled_images, to_coco
from mimdet.shown import shown

_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_DEPTH = 5  # levels of folders that are searched
_MAX_NAMES = 50  # images of a file that are looked for
_BEGINNING = 2**16  # bytes of the annotations that tell what kind they are
VAL_SHARE = 0.2  # of the images, where the data have no split


@dataclass(frozen=True)
class Split:
    """A part of a dataset: arguments of `load_coco_folder`.

    Attributes:
        json_file: its annotations.
        image_root: the folder of the images.
        share: which of the file's images, from 0 to 1; None for all.
    """

    json_file: str
    image_root: str
    share: tuple[float, float] | None = None


@dataclass(frozen=True)
class DataFolder:
    """What `find_data` found.

    Attributes:
        train: to train on.
        val: to evaluate on.
        notes: what was decided, a sentence each.
    """

    train: Split
    val: Split
    notes: list[str] = field(default_factory=list)


class NoAnnotations(ValueError):
    """A folder has no annotations of objects, whole or damaged."""


class _Image(msgspec.Struct):
    file_name: Any = None


# Raw parts are scanned and not built: of gigabytes of annotations the names of the images are
# enough to find them.
class _Sections(msgspec.Struct):
    images: list[_Image]
    annotations: msgspec.Raw
    categories: msgspec.Raw


def find_data(folder: str | os.PathLike) -> DataFolder:
    """Find what to train and to evaluate on.

    Without images to evaluate on, those of a split "test" are; without both, a fifth of the
    training images, always the same ones.

    Args:
        folder: of the dataset.

    Raises:
        FileNotFoundError: if there is no such folder.
        NoAnnotations: if it has none.
        ValueError: if it has no file to train on, several for one split, a damaged one, or
            annotations whose images are not there; the message lists what was found.
    """
    root = Path(folder)
    if not (os.fspath(folder) and root.is_dir()):
        unpack = "; unpack an archive first" if root.is_file() else ""
        raise FileNotFoundError(
            f"--data must be the folder of a dataset, and {str(folder) or 'no name'} is none"
            f"{unpack}"
        )
    folders = list(folders_below(root))
    found, refused = _annotation_files(folders)
    notes = [_reasons({path: why}, root)[2:] for path, why in refused.items()]
    if found:
        by_split = _by_split(root, found)
    else:
        by_split, found = _converted(folders, notes)
    if not found:
        raise NoAnnotations(_nothing(root, folders, refused))
    train = by_split.get("train") or by_split.get(None)
    if train is None:
        names = ", ".join(_name(path, root) for path in found)
        raise ValueError(
            f"{root} has nothing to train on, but only {names}; name one train.json"
            + _reasons(refused, root)
        )
    images = {
        path: _image_root(path, found[path], folders) if path.is_relative_to(root) else root
        for path in by_split.values()
    }
    val = by_split.get("val") or by_split.get("test")
    if val is None:
        if len(found[train]) < 2:
            raise ValueError(
                f"{_name(train, root)} is all there is, and must list 2 images or more, because "
                f"some are kept to evaluate on; it lists {len(found[train])}"
            )
        notes.append(
            f"{_name(train, root)} is all there is: {VAL_SHARE:.0%} of its images are kept to "
            "evaluate on, chosen by their names, so always the same ones"
        )
        parts = (VAL_SHARE, 1.0), (0.0, VAL_SHARE)
        train_part, val_part = (Split(str(train), str(images[train]), part) for part in parts)
        return DataFolder(train_part, val_part, notes)
    if "val" not in by_split:
        notes.append(f"without a split for validation, {_name(val, root)} is evaluated on")
    return DataFolder(
        Split(str(train), str(images[train])), Split(str(val), str(images[val])), notes
    )


def _name(path: Path, root: Path) -> str:
    return shown(str(path.relative_to(root) if path.is_relative_to(root) else path))


def folders_below(root: Path) -> Iterator[Path]:
    """`root` and the folders below it, hidden ones left out, in order of their names.

    Links are followed, because large images often lie on another disk; nothing is found twice.
    """
    visited: set[str] = set()
    for path, names, _ in os.walk(root, followlinks=True):
        if (real := os.path.realpath(path)) in visited:
            names.clear()
            continue
        visited.add(real)
        depth = len(Path(path).relative_to(root).parts)
        names[:] = sorted(n for n in names if not n.startswith(".")) if depth < _DEPTH else []
        yield Path(path)


def _annotation_files(folders: list[Path]) -> tuple[dict[Path, list[str]], dict[Path, str]]:
    """COCO files with the names of their images, and those that seem meant as one, with why not.

    Raises:
        ValueError: if one that is named like a split cannot be read: going on without it would
            train or evaluate on something else than was meant.
    """
    found, refused = {}, {}
    for path in (path for folder in folders for path in sorted(folder.iterdir())):
        if path.suffix.lower() != ".json" or not path.is_file():
            continue
        try:
            sections = msgspec.json.decode(
                path.read_bytes().removeprefix(b"\xef\xbb\xbf"), type=_Sections
            )
        except (msgspec.DecodeError, RecursionError, OSError) as e:
            # Many a folder has JSON files of other kinds; those named like a split are meant.
            if not split_of(Path(path.name)):
                continue
            refused[path] = " ".join(str(e).split())
            if not isinstance(e, msgspec.ValidationError):
                raise ValueError(
                    f"{shown(str(path))} is named like a part of the dataset, and cannot be read "
                    f"as JSON ({refused[path]}); replace it, or move it away"
                ) from e
        else:
            # A view, because `bytes` would copy all of it for its beginning.
            if b'"segments_info"' in memoryview(sections.annotations)[:_BEGINNING].tobytes():
                refused[path] = "it holds panoptic segments, and no objects with boxes"
                continue
            names = (image.file_name for image in sections.images)
            found[path] = [name for name in names if isinstance(name, str)]
    return found, refused


def _reasons(refused: dict[Path, str], root: Path) -> str:
    return "".join(f"; {_name(path, root)} is left out: {why}" for path, why in refused.items())


def split_of(path: Path) -> str | None:
    """The split that the words of a path name, the file's before those of its folders."""
    for part in (path.stem, *reversed(path.parts[:-1])):
        for word in reversed(re.findall("[a-z]+", part.lower())):
            for split, words in _SPLITS.items():
                if word in words:
                    return split
    return None


def _converted(
    folders: list[Path], notes: list[str]
) -> tuple[dict[str | None, Path], dict[Path, list[str]]]:
    """Files made of the label files of YOLO, by split, and the names of their images."""
    images: dict[str | None, list[Path]] = {}
    labelled: dict[str | None, list[Path]] = {}
    for folder in folders:
        split = split_of(folder.relative_to(folders[0]) / "any")
        for group, found in zip((images, labelled), labelled_images(folder), strict=True):
            if found:
                group.setdefault(split, []).extend(found)
    by_split, names = {}, {}
    classes = class_names(folders) if labelled else {}
    for split, with_labels in labelled.items():
        content = to_coco(folders[0], images[split], classes)
        by_split[split] = Path(keep_file(content, f"yolo_{split or 'all'}"))
        names[by_split[split]] = [image["file_name"] for image in content["images"]]
        notes.append(
            f"{split or 'all'}: {len(with_labels)} of {len(images[split])} images have label files "
            f"of YOLO, the others no objects; kept in COCO format as {by_split[split]}"
        )
    return by_split, names


def _by_split(root: Path, found: dict[Path, list[str]]) -> dict[str | None, Path]:
    groups: dict[str | None, list[Path]] = {}
    for path in found:
        groups.setdefault(split_of(path.relative_to(root)), []).append(path)
    for split, paths in groups.items():
        # COCO has keypoints and instances of the same images.
        instances = [path for path in paths if "instances" in path.name]
        if len(instances or paths) > 1:
            names = ", ".join(_name(path, root) for path in instances or paths)
            what = f"{split} data" if split else "files without a split in their names"
            raise ValueError(
                f"{root} must have one annotation file for each split, and has several "
                f"{what}: {names}; move the others away, or name them train.json and val.json"
            )
        groups[split] = instances or paths
    return {split: paths[0] for split, paths in groups.items()}


def _image_root(json_file: Path, names: list[str], folders: list[Path]) -> Path:
    """The folder in which most images lie; among equals that of the split, or the nearest."""
    if not names:
        raise ValueError(
            f"{_name(json_file, folders[0])} must list images, and lists none; move it away if it "
            "is no part of the dataset"
        )
    # From all over the file: its first images may lie in one of several folders.
    sample = names[:: max(1, len(names) // _MAX_NAMES)]
    sample = [name.replace("\\", "/") for name in sample if "\0" not in name]

    split = split_of(json_file.relative_to(folders[0]))

    def fitness(folder: Path) -> tuple[int, bool, int]:
        paths = (os.path.abspath(folder / name) for name in sample)
        # an absolute name is the same file from every folder, but may be below one alone
        hits = sum(_is_below(path, folder) and os.path.isfile(path) for path in paths)
        # train/0.jpg and val/0.jpg may both be there
        is_of_split = split_of(folder.relative_to(folders[0]) / "any") == split
        return hits, is_of_split, len(os.path.commonpath([folder, json_file.parent]))

    best = max(folders, key=fitness)
    if not fitness(best)[0]:
        few = ", ".join(map(shown, sample[:3])) or "none"
        raise ValueError(
            f"the images of {_name(json_file, folders[0])} ({few}) must lie below {folders[0]}, "
            "and none of them does"
        )
    return best


def _is_below(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(os.path.abspath(folder))


def _nothing(root: Path, folders: list[Path], refused: dict[Path, str]) -> str:
    message = (
        f"{root} must hold annotations in COCO format, such as "
        "annotations/instances_train.json, train/_annotations.coco.json or train.json beside the "
        "images, or label files of YOLO (images/train beside labels/train), and there are none"
    )
    message += _reasons(refused, root)
    if any(next(folder.glob("*.zip"), None) for folder in folders):
        message += "; *.zip files must be unpacked first"
    for pattern, what in (("*.xml", "Pascal VOC"), ("*.csv", "tables")):
        if any(next(folder.glob(pattern), None) for folder in folders):
            message += f"; {pattern} files ({what}) must be converted to COCO format first"
    return message
