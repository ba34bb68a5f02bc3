"""The table of classes: what each task says of each, worst first."""

from collections.abc import Mapping
from typing import Any

from mimdet.report.names import TASKS

_HEADS = {"AP": "AP", "IoU": "IoU", "ACC": "accuracy", "BoundaryIoU": "boundary IoU"}


def class_table(data: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, list[Any]]]] | None:
    """Columns and rows of the table.

    Returns:
        Names of the columns, and for each class its name and its values: percent as float, counts
        as int, None where undefined. None if nothing is known of single classes.
    """
    columns: dict[str, dict[str, Any]] = {}
    for task, found in data["tasks"].items():
        title = TASKS.get(task, task)
        for name, values in found["classes"].items():
            for metric, value in values.items():
                columns.setdefault(f"{title}: {_HEADS[metric]}", {})[name] = value
    if data["detections"]:
        rows = data["detections"]["by_class"]
        if not columns:  # of a single class Detectron2 tells no more than of all together
            columns["Boxes: AP"] = {row["class"]: row["AP"] for row in rows}
        for key in ("objects", "images", "detections"):
            columns[key] = {row["class"]: row[key] for row in rows}
    if not columns:
        return None
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    table = [(name, [column.get(name) for column in columns.values()]) for name in names]
    table.sort(key=lambda row: (row[1][0] is None, row[1][0] or 0))
    return list(columns), table
