"""The label maps of ADE20K as Detectron2 reads them.

The data set has 0 for "none of the classes" and its 150 classes from 1 on; models number classes
from 0 and leave out what is 255.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from mimdet.data.coco.problems import Kind, Problems, Severity
from mimdet.data.sem_seg import pair_files
from mimdet.whole_files import written_whole

SPLITS = ("training", "validation")
NUM_CLASSES = 150
_IGNORED = 255

_UNREADABLE = Kind(
    Severity.REFUSED, "label maps cannot be read", "unpack the archive of ADE20K again"
)
_MODE = Kind(
    Severity.REFUSED,
    "label maps are no images of one channel of 8 bits",
    "take annotations/ of ADEChallengeData2016.zip, not the colours of the full data set",
)
_RANGE = Kind(
    Severity.REFUSED,
    f"label maps have labels above {NUM_CLASSES}",
    "take annotations/ of ADEChallengeData2016.zip; what another tool has shifted is ready as it "
    "is, for annotations_detectron2/",
)

_SHIFTED = np.full(256, _IGNORED, dtype=np.uint8)
_SHIFTED[1 : NUM_CLASSES + 1] = np.arange(NUM_CLASSES)


def find_label_maps(root: str | os.PathLike) -> list[tuple[Path, Path]]:
    """Find what is to be converted.

    Args:
        root: the folder ADEChallengeData2016, with ``images/`` and ``annotations/``, in which are
            ``training/``, ``validation/`` or both.

    Returns:
        For each label map of an image its path, and that of its converted form, below
        ``annotations_detectron2/``.

    Raises:
        FileNotFoundError: if there are no such folders.
        ValueError: if an image or a label map has no partner.
    """
    root = Path(root)
    splits = [split for split in SPLITS if (root / "annotations" / split).is_dir()]
    if not splits:
        raise FileNotFoundError(
            f"{root} must be the folder ADEChallengeData2016, with annotations/training and "
            "annotations/validation, and has neither; unpack ADEChallengeData2016.zip, and name "
            "the folder or set DETECTRON2_DATASETS to the one it lies in"
        )
    found = []
    for split in splits:
        folder = root / "annotations" / split
        for record in pair_files(str(root / "images" / split), str(folder)):
            source = Path(record["sem_seg_file_name"])
            target = root / "annotations_detectron2" / split / source.relative_to(folder)
            found.append((source, target.with_suffix(".png")))
    return found


def convert_label_maps(files: list[tuple[Path, Path]], problems: Problems) -> Iterator[bool]:
    """Write label maps with 0 for the first class and 255 for none, in as many threads as cores.

    What is there already stays, so that an interrupted conversion goes on where it was.

    Args:
        files: from `find_label_maps`.
        problems: gets what cannot be converted; those files are left out.

    Yields:
        For each file whether it was written.
    """
    for folder in {target.parent for _, target in files}:
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for (source, _), done in zip(files, threads.map(_convert, files), strict=True):
            if isinstance(done, bool):
                yield done
            else:
                problems.add(done[0], str(source), done[1])
                yield False


def _convert(files: tuple[Path, Path]) -> bool | tuple[Kind, str]:
    """Whether the label map was written; of one that cannot be converted what is wrong."""
    source, target = files
    if target.exists():
        return False
    try:
        with Image.open(source) as image:
            if image.mode != "L":
                return _MODE, f"mode {image.mode}"
            labels = np.asarray(image)
    except Exception as e:  # decoders raise many types; all are told
        return _UNREADABLE, str(e)
    values = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist()
    # 255 stays what it is; there is none in the data set, but others mean the same by it.
    if wrong := [value for value in values if NUM_CLASSES < value < _IGNORED]:
        return _RANGE, ", ".join(map(str, wrong))
    with written_whole(target, "wb") as file:
        Image.fromarray(_SHIFTED[labels]).save(file, format="png")
    return True
