"""Predictions for images, folders of them and videos; as pictures, label maps and one JSON file."""

import glob
import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mimdet.analysis.pictures import picture_paths
from mimdet.analysis.predictor import ClassMap, Prediction, Predictor, read_pixels
from mimdet.analysis.videos import VIDEOS, annotate_video
from mimdet.analysis.visualize import draw_prediction
from mimdet.data.imagenet.folder import images_below
from mimdet.evaluation.results import write_json
from mimdet.progress import progress
from mimdet.shown import shown

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.json"
LABEL_MAPS = "label_maps"


@dataclass
class Written:
    """What `predict_files` did.

    Attributes:
        images: that were read.
        objects: that were detected in them.
        label_maps: that were written.
        unreadable: files that could not be read.
    """

    images: int = 0
    objects: int = 0
    label_maps: int = 0
    unreadable: list[str] = field(default_factory=list)


def predict_files(
    predictor: Predictor, sources: Sequence[str], output: str, batch: int = 1, draw: bool = True
) -> Written:
    """Detect in all images and videos of `sources`, or tell the classes of their pixels.

    ``predictions.json`` in `output` lists the detections as COCO results do, with the file's name
    besides the id, which is its place in the order of names, from 1. Of a segmentor it lists the
    images, with the classes that are there and their shares of the pixels, and ``label_maps`` has
    each image as PNG, whose grey levels are the numbers of classes; of videos there are none.

    Pictures lie in `output` as the images do below their common folder. A file that cannot be read
    is told and left out.

    Args:
        predictor: detects, or tells the class of each pixel.
        sources: images, folders, patterns such as ``photos/*.jpg``, videos.
        output: folder to make.
        batch: images that pass through the model together.
        draw: whether pictures are written, label maps apart.

    Raises:
        FileNotFoundError: if a source is not there, or brings no image.
        ValueError: if what is drawn would take the place of an image or a video.
    """
    # A file that two sources stand for is read once.
    files = list(dict.fromkeys(itertools.chain(*map(files_of, sources))))
    videos = [file for file in files if file.lower().endswith(VIDEOS)]
    images = [file for file in files if file not in set(videos)]
    pictures = dict(zip(images, picture_paths(output, images, ".jpg"), strict=True))
    label_maps = picture_paths(os.path.join(output, LABEL_MAPS), images)
    label_maps = dict(zip(images, label_maps, strict=True))
    # of different names, and never in the place of a video that is read
    films = dict(zip(videos, picture_paths(output, videos, ".mp4"), strict=True))
    written, entries = Written(), []
    Path(output).mkdir(parents=True, exist_ok=True)
    numbers = {file: number for number, file in enumerate(files, start=1)}
    detected = _detect(predictor, images, batch, written)
    for file, pixels, found in progress(detected, len(images), "prediction", "image"):
        more = {}
        if isinstance(found, ClassMap):
            label_maps[file].parent.mkdir(parents=True, exist_ok=True)
            found.to_label_map().save(label_maps[file])
            more["label_map"] = str(label_maps[file].relative_to(output))
            written.label_maps += 1
        entries += _named(found, numbers[file], file, **more)
        if draw:
            pictures[file].parent.mkdir(parents=True, exist_ok=True)
            draw_prediction(pixels, found).save(pictures[file], quality=90)
        _count(written, found)
    for file in videos:
        films[file].parent.mkdir(parents=True, exist_ok=True)
        target = films[file] if draw else None
        for frame, found in annotate_video(predictor, file, target, batch):
            entries += _named(found, numbers[file], file, frame=frame)
            _count(written, found)
    write_json(entries, Path(output, PREDICTIONS))
    return written


def files_of(source: str) -> list[str]:
    """The files that a source stands for: itself, those below a folder, those of a pattern.

    Raises:
        FileNotFoundError: if there are none.
    """
    if os.path.isdir(source):
        found = sorted(images_below(source))
    elif os.path.exists(source):
        found = [source]
    else:
        found = sorted(path for path in glob.glob(source, recursive=True) if os.path.isfile(path))
    if not found:
        raise FileNotFoundError(
            f"a source must be an image, a video, a folder of images or a pattern that fits some, "
            f"and {source!r} is none of them"
        )
    return found


def _detect(
    predictor: Predictor, images: Sequence[str], batch: int, written: Written
) -> Iterator[tuple[str, np.ndarray, Prediction | ClassMap]]:
    """The images that can be read, their pixels and what was predicted."""
    for start in range(0, len(images), batch):
        names, pixels = [], []
        for file in images[start : start + batch]:
            try:
                pixels.append(read_pixels(file, "RGB"))
                names.append(file)
            except (OSError, ValueError) as e:
                written.unreadable.append(file)
                why = shown(str(e), 600)
                logger.warning(f"{shown(file, 300)} cannot be read and is left out ({why})")
        yield from zip(names, pixels, predictor.predict(pixels) if pixels else (), strict=True)


def _named(
    found: Prediction | ClassMap, number: int, file: str, **more: int | str
) -> list[dict[str, Any]]:
    if isinstance(found, ClassMap):
        classes = [
            {"category_id": k, "category_name": found.class_names[k], "share": share}
            for k, share in found.shares.items()
        ]
        return [{"image_id": number, "file_name": file, **more, "classes": classes}]
    return [
        {**entry, "category_name": name, "file_name": file, **more}
        for entry, name in zip(found.to_coco(number), found.names, strict=True)
    ]


def _count(written: Written, found: Prediction | ClassMap) -> None:
    written.images += 1
    written.objects += len(found) if isinstance(found, Prediction) else 0
