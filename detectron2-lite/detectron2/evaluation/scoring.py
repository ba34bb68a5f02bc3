"""Average precision by the rules of COCO and of LVIS, computed by faster-coco-eval."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

logger = logging.getLogger(__name__)


class GroundTruth:
    """The annotations that detections are scored against.

    Args:
        content: of an annotation file; its entries are changed.
        json_file: for messages.
        required: the keys that evaluation needs in each entry, by section.

    Attributes:
        category_ids: the ids of all categories, ascending.
        annotated: whether there is a list of annotations, of which the files of test sets have
            none.

    Raises:
        KeyError: an entry lacks a key, which would otherwise be found after hours of inference.
    """

    def __init__(
        self,
        content: dict[str, Any],
        json_file: str | os.PathLike,
        required: Mapping[str, set[str]],
    ):
        for section, keys in required.items():
            for entry in content.get(section, []):
                if missing := keys - entry.keys():
                    raise KeyError(
                        f"evaluation needs {sorted(keys)} in each of the {section}, but id "
                        f"{entry['id']} in {json_file} has no {min(missing)!r}"
                    )
        self.annotated = "annotations" in content
        self.category_ids = sorted(entry["id"] for entry in content.get("categories", []))
        # The engine takes integers only. Numbers in the order of the ids keep the order of ties.
        ids = sorted({image["id"] for image in content["images"]})
        self._numbers = {image_id: number for number, image_id in enumerate(ids)}
        for image in content["images"]:
            image["id"] = self._numbers[image["id"]]
        annotations = content.get("annotations", [])
        known = [a for a in annotations if a["image_id"] in self._numbers]
        for annotation in known:
            annotation["image_id"] = self._numbers[annotation["image_id"]]
        self._index = COCO({**content, "annotations": known})

    @property
    def image_ids(self) -> set[Any]:
        """The ids of all images."""
        return set(self._numbers)

    def score(
        self,
        results: Sequence[Mapping[str, Any]],
        task: str,
        max_dets: Sequence[int],
        image_ids: Sequence[Any] | None = None,
        lvis: bool = False,
    ) -> tuple[dict[str, float], np.ndarray]:
        """Score detections; a summary goes to stdout.

        Args:
            results: entries of a COCO result list, whose images are all known.
            task: "bbox" or "segm".
            max_dets: ascending; so many detections of each category count in an image, by score.
                Precision is that of the last one.
            image_ids: the images to score on; None takes all.
            lvis: whether a detection counts only where its category is known to be present or
                absent.

        Returns:
            Shares of 1, or -1 where undefined, by name: AP_all, AP_50, AP_75, AP_small, AP_medium,
            AP_large, and with `lvis` APr, APc, APf. And the precision (T, R, K, A, M) at T
            overlaps, R recalls, for K categories, A areas and M limits.
        """
        # Without a box the engine takes the area of a mask, not of its box, for small, medium and
        # large.
        dropped = "bbox" if task == "segm" else "segmentation"
        detections = [
            {k: v for k, v in result.items() if k != dropped}
            | {"image_id": self._numbers[result["image_id"]]}
            for result in results
        ]
        engine = COCOeval_faster(
            self._index,
            self._index.loadRes(detections),
            task,
            print_function=logger.debug,
            lvis_style=lvis,
        )
        engine.params.maxDets = list(max_dets)
        if image_ids is not None:
            engine.params.imgIds = [self._numbers[image_id] for image_id in image_ids]
        engine.evaluate()
        engine.accumulate()
        lines: list[str] = []
        engine.print_function = lines.append
        engine.summarize()
        # The last two are not among those of COCO: recall at a single overlap.
        print(*lines[:-2], sep="\n")
        return engine.stats_as_dict, engine.eval["precision"]


def mean_precision(precision: np.ndarray) -> float:
    """The mean of the entries that are defined, not -1; NaN if none is."""
    defined = precision[precision > -1]
    return float(np.mean(defined)) if defined.size else float("nan")
