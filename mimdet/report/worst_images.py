"""The images on which a detector errs most, with what it missed and what it only imagined."""

from typing import Any

import numpy as np

from mimdet.report.detections import Evaluated, image_slices
from mimdet.report.errors import FALSE_ALARMS, RIGHT, Mistakes


def operating_score(evaluated: Evaluated, mistakes: Mistakes) -> float:
    """The score from which on detections are taken when the F1 of all classes together is best.

    Below it lie the many detections of low scores that AP needs and nobody would be shown. It is 1
    if nothing that counts was found.
    """
    matches = mistakes.matches
    is_judged = ~matches.is_ignored[0]
    score, is_true = evaluated.found.score[is_judged], matches.is_true[0][is_judged]
    order = np.argsort(-score, kind="stable")
    right = np.cumsum(is_true[order])
    if not len(right) or not right[-1]:
        return 1.0
    # F1 = 2 right / (taken + objects)
    f1 = 2 * right / (np.arange(1, len(order) + 1) + matches.counts.sum())
    return float(score[order][f1.argmax()])


def mistakes_per_image(
    evaluated: Evaluated, mistakes: Mistakes, score: float
) -> tuple[np.ndarray, np.ndarray]:
    """(images,) false alarms and (images,) misses of each image among detections from a score on.

    An object is a miss if no such detection found it at an IoU of 0.5.
    """
    shown = evaluated.found.score >= score
    false_alarms = np.bincount(
        evaluated.found.image[shown & (mistakes.kind != RIGHT)], minlength=len(evaluated.images)
    )
    is_missed = _missed_from(evaluated, mistakes, score)
    return false_alarms, np.bincount(
        evaluated.truth.image[is_missed], minlength=len(evaluated.images)
    )


def worst_images(evaluated: Evaluated, mistakes: Mistakes, count: int = 12) -> dict[str, Any]:
    """The images with the most false alarms and misses at the operating score.

    Returns:
        ``score``, that of `operating_score`, and ``images``, at most `count`, as `describe_image`
        has them; images without a mistake are none of them.
    """
    score = operating_score(evaluated, mistakes)
    total = np.add(*mistakes_per_image(evaluated, mistakes, score))
    worst = np.argsort(-total, kind="stable")[:count]
    return {
        "score": score,
        "images": [
            describe_image(evaluated, mistakes, int(i), score) for i in worst if total[i] > 0
        ],
    }


def describe_image(
    evaluated: Evaluated, mistakes: Mistakes, number: int, score: float
) -> dict[str, Any]:
    """One image, its objects and its detections from a score on.

    Args:
        evaluated: of the images.
        mistakes: of its detections.
        number: place of the image in ``evaluated.images``.
        score: the least one of a detection that is listed.

    Returns:
        ``image_id``, ``file_name``, ``height``, ``width``; ``false_alarms`` and ``misses``, their
        numbers; ``truth``: ``{"box", "class", "is_crowd", "is_missed"}`` of each object;
        ``detections``: ``{"box", "class", "score", "kind"}`` with a kind of `FALSE_ALARMS`, or
        "right", or "ignored" in a crowd region. Boxes are XYXY in pixels.
    """
    image = evaluated.images[number]
    truth, found, names = evaluated.truth, evaluated.found, evaluated.categories
    d, g = image_slices(len(evaluated.images), found, truth)[number]
    is_missed = _missed_from(evaluated, mistakes, score)
    objects = [
        {
            "box": truth.box[k].round(1).tolist(),
            "class": names[truth.category[k]],
            "is_crowd": bool(truth.is_crowd[k]),
            "is_missed": bool(is_missed[k]),
        }
        for k in range(g.start, g.stop)
    ]
    detections = [
        {
            "box": found.box[k].round(1).tolist(),
            "class": names[found.category[k]],
            "score": round(float(found.score[k]), 4),
            "kind": _kind(mistakes, k),
        }
        for k in range(d.start, d.stop)
        if found.score[k] >= score
    ]
    return {
        "image_id": image.id,
        "file_name": image.file_name,
        "height": image.height,
        "width": image.width,
        "false_alarms": sum(found["kind"] in FALSE_ALARMS for found in detections),
        "misses": sum(entry["is_missed"] for entry in objects),
        "truth": objects,
        "detections": detections,
    }


def _missed_from(evaluated: Evaluated, mistakes: Mistakes, score: float) -> np.ndarray:
    """(G,) bool, True for objects that no detection of at least this score found."""
    matches = mistakes.matches
    is_missed = matches.counts.copy()
    shown = matches.is_true[0] & (evaluated.found.score >= score)
    is_missed[matches.matched[0][shown]] = False
    return is_missed


def _kind(mistakes: Mistakes, detection: int) -> str:
    if mistakes.matches.is_ignored[0, detection]:
        return "ignored"
    kind = mistakes.kind[detection]
    return "right" if kind == RIGHT else FALSE_ALARMS[kind]
