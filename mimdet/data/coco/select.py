"""A part of a dataset: some of its classes, some of its images."""

import dataclasses
import hashlib
import logging
import os
from collections.abc import Sequence
from typing import Any

from mimdet.data.coco.read import CocoData, read_coco
from mimdet.shown import shown

logger = logging.getLogger(__name__)


def read_part(
    json_file: str | os.PathLike,
    image_root: str | os.PathLike,
    allow_outside_root: bool = False,
    classes: Sequence[str] | None = None,
    share: tuple[float, float] | None = None,
) -> CocoData:
    """`read_coco`, reduced.

    Args:
        json_file: annotations in COCO format.
        image_root: folder to which the file names are relative.
        allow_outside_root: accept file names that lead out of `image_root`.
        classes: names of the classes to keep, in the order of their numbers; objects of others are
            left out. None keeps all.
        share: which images, from 0 to 1 in an order that follows from their names alone; None for
            all. A part that is not empty has at least one image.

    Returns:
        The data; shared by all callers, not to be changed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no COCO file, a class is not in it, or `share` is no part.
    """
    data = read_coco(json_file, image_root, allow_outside_root)
    if share is not None:
        data = dataclasses.replace(data, records=part_of(data.records, data.image_root, share))
    return data if classes is None else _only(data, list(classes))


def part_of(
    records: Sequence[dict[str, Any]], image_root: str | os.PathLike, share: Sequence[float]
) -> list[dict[str, Any]]:
    """Some of the images, chosen by their names alone.

    Args:
        records: with `file_name`.
        image_root: folder to which names are relative, so that they do not depend on its place.
        share: see `read_part`.

    Raises:
        ValueError: if `share` is no part.
    """
    start, stop = share
    if not 0 <= start < stop <= 1:
        raise ValueError(
            f"share must be two rising numbers from 0 to 1, got {start} and {stop} "
            "(dataloader.*.dataset.share)"
        )

    def place(record: dict[str, Any]) -> str:
        # by a hash, because names next to each other are often of one scene
        name = os.path.relpath(record["file_name"], image_root)
        return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()

    count = len(records)
    # Rounding must leave neither side of an edge without images.
    bounds = [min(max(round(e * count), e > 0), count - (e < 1)) for e in (start, stop)]
    ordered = sorted(records, key=place)
    # By identity, which needs no comparison of dicts and leaves the records in their order.
    chosen = {id(record) for record in ordered[slice(*bounds)]}
    return [record for record in records if id(record) in chosen]


def _only(data: CocoData, classes: list[str]) -> CocoData:
    if unknown := [name for name in classes if name not in data.classes]:
        raise ValueError(
            f"classes must be some of {data.json_file}, and {', '.join(map(shown, unknown))} is "
            f"none of {', '.join(map(shown, data.classes))} (dataloader.*.dataset.classes)"
        )
    numbers = {data.classes.index(name): place for place, name in enumerate(classes)}
    records, left_out = [], 0
    for record in data.records:
        kept = [a for a in record["annotations"] if a["category_id"] in numbers]
        left_out += len(record["annotations"]) - len(kept)
        kept = [{**a, "category_id": numbers[a["category_id"]]} for a in kept]
        records.append({**record, "annotations": kept})
    if left_out:
        logger.warning(f"{data.json_file}: {left_out} objects of other classes are left out")
    ids = [data.category_ids[number] for number in numbers]
    return dataclasses.replace(
        data,
        records=records,
        classes=classes,
        category_ids=ids,
        file_category_ids={i: own for i, own in data.file_category_ids.items() if i in ids},
    )
