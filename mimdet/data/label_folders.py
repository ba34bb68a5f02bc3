"""Find the images, label maps and class names of a dataset of semantic segmentation.

Known are ``images/{train,val}`` beside ``labels/{train,val}``, ADE20K's ``images/{training,
validation}`` beside ``annotations/``, ``train/images`` beside ``train/labels``, ``images`` beside
``masks`` without a split, and what is like them: a folder that holds images is one of label maps if
a word of its path says so, and its split is a word of its path too.
"""

import json
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from mimdet.data.coco.layouts import VAL_SHARE, folders_below, split_of
from mimdet.data.imagenet.folder import SUFFIXES
from mimdet.data.label_maps import check_label_maps
from mimdet.data.sem_seg import labels_in, pair_files
from mimdet.shown import shown

_LABEL_WORDS = {
    *("label", "labels", "labelmaps", "annotation", "annotations", "mask", "masks"),
    *("gt", "truth", "seg", "segmentation", "segmentations"),
}
_CLASS_FILES = ("classes.txt", "classes.json")
IGNORED = 255  # label of pixels that do not count


@dataclass(frozen=True)
class LabelledPart:
    """A part of a dataset: arguments of `load_sem_seg_folder`.

    Attributes:
        image_root: the folder of its images.
        sem_seg_root: the folder of their label maps.
        share: which of the images, from 0 to 1; None for all.
    """

    image_root: str
    sem_seg_root: str
    share: tuple[float, float] | None = None


@dataclass(frozen=True)
class LabelFolders:
    """What `find_label_folders` found.

    Attributes:
        train: to train on.
        val: to evaluate on.
        classes: their names by label; None where no file tells them.
        notes: what was decided, a sentence each.
    """

    train: LabelledPart
    val: LabelledPart
    classes: list[str] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def parts(self) -> tuple[LabelledPart, LabelledPart]:
        """What is trained and what is evaluated on."""
        return self.train, self.val


def find_label_folders(folder: str | os.PathLike) -> LabelFolders:
    """Find what to train and to evaluate on.

    Without images to evaluate on, those of a split "test" are; without both, a fifth of the
    training images, always the same ones.

    Args:
        folder: of the dataset. Names of the classes may be in ``classes.txt``, one a line, or
            ``classes.json``, a list or ``{"0": name, ...}``.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it has no images or no label maps to train on, several folders of them for
            one split, or a damaged file of classes; the message lists what was found.
    """
    root = Path(folder)
    if not (os.fspath(folder) and root.is_dir()):
        raise FileNotFoundError(
            f"--data must be the folder of a dataset, and {str(folder) or 'no name'} is none"
        )
    found = _Found(root)
    splits = {split for (kind, split) in found.folders if kind == _IMAGES}
    train = found.part("train" if "train" in splits else None)
    held_out = next((split for split in ("val", "test") if split in splits), None)
    notes = []
    if held_out is None:
        val = replace(train, share=(0.0, VAL_SHARE))
        train = replace(train, share=(VAL_SHARE, 1.0))
        notes.append(
            f"{train.image_root} is all there is: {VAL_SHARE:.0%} of its images are kept to "
            "evaluate on, chosen by their names, so always the same ones"
        )
    else:
        val = found.part(held_out)
        if held_out == "test":
            notes.append(f"without a split for validation, {val.image_root} is evaluated on")
    return LabelFolders(train, val, read_classes(root), notes)


_IMAGES, _LABELS = "images", "label maps"


class _Found:
    """The folders of a dataset that hold images, by kind (`_IMAGES` or `_LABELS`) and split."""

    def __init__(self, root: Path):
        self.root = root
        self.folders: dict[tuple[str, str | None], list[Path]] = {}
        for folder in folders_below(root):
            if any(p.suffix.lower() in SUFFIXES and p.is_file() for p in folder.iterdir()):
                inside = folder.relative_to(root)
                words = set(re.findall("[a-z]+", str(inside).lower()))
                kind = _LABELS if words & _LABEL_WORDS else _IMAGES
                # `split_of` takes the path of a file: this one's name says nothing.
                self.folders.setdefault((kind, split_of(inside / "any")), []).append(folder)

    def part(self, split: str | None) -> LabelledPart:
        return LabelledPart(self._one(_IMAGES, split), self._one(_LABELS, split))

    def _one(self, kind: str, split: str | None) -> str:
        """The folder of a split; of several, such as one for each city, that in which all lie."""
        wanted = self.folders.get((kind, split), [])
        everything = [folder for folders in self.folders.values() for folder in folders]
        if wanted:
            common = Path(os.path.commonpath(wanted))
            # Files are looked for at any depth, so nothing else may lie in it.
            if [folder for folder in everything if folder.is_relative_to(common)] == wanted:
                return str(common)
        what = f"{kind} {f'of the split {split}' if split else 'to train on'}"
        names = ", ".join(self._name(folder) for folder in wanted) or "none"
        others = ", ".join(self._name(f) for f in everything if f not in wanted) or "no others"
        raise ValueError(
            f"{self.root} must have one folder of {what}, and has {names} (with images in them are "
            f"{others}); lay them out as images/train and images/val beside labels/train and "
            "labels/val (masks or annotations will do as well)"
        )

    def _name(self, folder: Path) -> str:
        return shown(str(folder.relative_to(self.root)))


def read_classes(root: Path) -> list[str] | None:
    """The names of classes that a file in `root` lists, in the order of their labels.

    Returns:
        None where there is no such file.

    Raises:
        ValueError: if it is no such list.
    """
    path = next((root / name for name in _CLASS_FILES if (root / name).is_file()), None)
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = json.loads(text) if path.suffix == ".json" else text.strip().splitlines()
    except ValueError as e:  # of JSON and of UTF-8
        raise ValueError(f"{path} must be JSON or text in UTF-8, and cannot be read: {e}") from e
    if isinstance(names, dict) and set(names) == {str(k) for k in range(len(names))}:
        names = [names[str(k)] for k in range(len(names))]
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        names = [name.strip() for name in names]
        if len(names) > 1 and all(names) and len(set(names)) == len(names):
            return names
    raise ValueError(
        f"{path} must list the names of two classes or more, all different, in the order of their "
        f'labels from 0 on (one a line; as JSON a list, or {{"0": name, ...}}), got {shown(names)}'
    )


def classes_by_labels(labels: set[int], source: str) -> list[str]:
    """Classes 0, 1, ... where no file names them, called by their labels.

    Args:
        labels: that are there.
        source: the folder, for messages.

    Raises:
        ValueError: if they cannot be those of classes.
    """
    found = sorted(labels - {IGNORED})
    if not found:
        raise ValueError(
            "label maps must be images of one channel of 8 bits whose values are the numbers of "
            f"classes, and none of {source} is one, or has another value than {IGNORED}"
        )
    if found != list(range(len(found))):
        raise ValueError(
            f"labels of {source} must be numbered from 0 without gaps ({IGNORED} stands for pixels "
            f"that do not count), got {shown(', '.join(map(str, found)))}; renumber them, or name "
            "all classes from 0 on in classes.txt, one a line"
        )
    if len(found) == 1:
        raise ValueError(
            f"{source} must have labels of two classes or more, and has 0 alone, besides {IGNORED} "
            f"for pixels that do not count; masks of 0 and {IGNORED} must be written as 0 and 1"
        )
    return [f"class {label}" for label in found]


def check_label_folder(folder: str | os.PathLike) -> tuple[int, list[str]]:
    """Look for what would stop a training or evaluation on a folder, or falsify it.

    Args:
        folder: see `find_label_folders`.

    Returns:
        The number of problems, and a line for each kind of them; what was found besides.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    try:
        found = find_label_folders(folder)
        # of a folder without a split both parts are the same files
        parts = dict.fromkeys((part.image_root, part.sem_seg_root) for part in found.parts)
        records = {part: pair_files(*part) for part in parts}
        labels = set().union(*labels_in([r for pairs in records.values() for r in pairs]))
        classes = found.classes or classes_by_labels(labels, found.train.sem_seg_root)
    except ValueError as e:
        return 1, [str(e)]
    lines, count = list(found.notes), 0
    for (image_root, sem_seg_root), pairs in records.items():
        problems = check_label_maps(pairs, sem_seg_root, len(classes), IGNORED)
        count += len(problems)
        lines += problems.lines()
        lines.append(f"{len(pairs)} images of {image_root} with the label maps of {sem_seg_root}")
    lines.append(f"{len(classes)} classes: {shown(', '.join(classes))}")
    if unused := [name for k, name in enumerate(classes) if k not in labels]:
        lines.append(f"{len(unused)} classes have no pixel: {shown(', '.join(unused))}")
    return count, lines
