"""What a training wrote while it went on, as curves."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from mimdet.report.run_files import number

Curves = dict[str, list[tuple[int, float | None]]]

_POINTS = 400  # a chart has about as many pixels


def curves_of(lines: Iterable[Mapping[str, Any]]) -> Curves:
    """Name of each scalar -> its values by iteration.

    Args:
        lines: of ``metrics.json``. What a resumed run wrote of an iteration again counts; long
            curves become means of as many neighbours as leave `_POINTS` values.
    """
    values: dict[str, dict[int, float | None]] = defaultdict(dict)
    for line in lines:
        for name, value in line.items():
            if name != "iteration":
                values[name][line["iteration"]] = number(value)
    return {name: _thinned(sorted(points.items())) for name, points in sorted(values.items())}


def _thinned(points: list[tuple[int, float | None]]) -> list[tuple[int, float | None]]:
    size = -(-len(points) // _POINTS)
    if size == 1:
        return points
    groups = (points[k : k + size] for k in range(0, len(points), size))
    # At the last iteration of each group, so that a curve ends where the training does.
    return [(group[-1][0], _mean([y for _, y in group])) for group in groups]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def mean_of(curves: Curves, name: str) -> float | None:
    """The mean of a curve; None if there is none."""
    return _mean([y for _, y in curves.get(name, ())])


def largest_of(curves: Curves, name: str) -> float | None:
    """The largest value of a curve; None if there is none."""
    return max((y for _, y in curves.get(name, ()) if y is not None), default=None)
