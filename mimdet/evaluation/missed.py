"""AP of a detector that found nothing: 0 where there was something to find."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Areas in pixels, both ends included, by the rules of COCO (Lin et al. 2014, arXiv 1405.0312).
_AREAS = {"APs": (0, 32**2), "APm": (32**2, 96**2), "APl": (96**2, 1e5**2)}
_FREQUENCIES = {"APr": "r", "APc": "c", "APf": "f"}  # of LVIS


def ap_of_nothing(
    metrics: Sequence[str], truth: Mapping[str, Any], class_ids: Mapping[str, int]
) -> dict[str, float]:
    """The metrics of a task without a single detection.

    Detectron2 reports all of them as NaN then. But precision is 0 at every recall above 0, so AP
    is 0; undefined is only what has no objects in the truth to be found.

    Args:
        metrics: their names, such as "AP" and "APs".
        truth: the content of the annotation file.
        class_ids: category id of each class by its name, for metrics "AP-NAME"; those of a single
            class are left out, as they are with detections.

    Returns:
        0 or NaN by name.
    """
    objects = [a for a in truth.get("annotations", ()) if not a.get("iscrowd", 0)]
    frequencies = {c["id"]: c.get("frequency") for c in truth.get("categories", ())}

    def zero_if_any(counts: Callable[[Mapping[str, Any]], bool]) -> float:
        return 0.0 if any(map(counts, objects)) else math.nan

    def is_counted(name: str, annotation: Mapping[str, Any]) -> bool:
        if name in _AREAS:
            low, high = _AREAS[name]
            return low <= annotation["area"] <= high
        if name in _FREQUENCIES:
            return frequencies.get(annotation["category_id"]) == _FREQUENCIES[name]
        return True

    values = {name: zero_if_any(lambda a, name=name: is_counted(name, a)) for name in metrics}
    if len(class_ids) > 1:
        present = {annotation["category_id"] for annotation in objects}
        for name, category_id in class_ids.items():
            values[f"AP-{name}"] = 0.0 if category_id in present else math.nan
    return values
