"""Charts as SVG text for a page: drawn without a script, coloured by the page's style.

A chart is drawn `WIDTH` units wide and scales with its place. That is narrow on purpose: its text
can still be read where a telephone shows it 350 pixels wide. Colours are classes (``s0``, ``s1``,
...), for which `templates/base.html` has values for light and for dark pages; lines also differ in
their dashes, so that they can be told apart without colours.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from markupsafe import Markup

WIDTH = 400
_HEIGHT = 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 8, 38  # room around the plot, for ticks and labels
_LEGEND_LINE = 15
_CHARACTER = 5.7  # mean width of one in a legend, in units

PALETTE = 7
"""Number of colours and dashes."""


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        name: for the legend.
        points: (x, y) in the order in which they are joined; where y is None the line has a gap.
        color: number in the palette; None takes the place of the series among the others.
        marks: draw a dot at each point, for few of them.
        deviations: how far up and down each point may be elsewhere, drawn as an upright line; None
            where it is not known.
    """

    name: str
    points: Sequence[tuple[float, float | None]]
    color: int | None = None
    marks: bool = False
    deviations: Sequence[float | None] = ()

    def reach(self) -> list[tuple[float, float, float]]:
        """(x, lowest y, highest y) of the points that have one."""
        deviations = self.deviations or [None] * len(self.points)
        return [
            (x, y - (d or 0.0), y + (d or 0.0))
            for (x, y), d in zip(self.points, deviations, strict=True)
            if y is not None
        ]


@dataclass(frozen=True)
class Bar:
    """A bar of `bars`.

    Attributes:
        label: what it is of.
        value: its length; None where there is none.
        text: what is written behind it.
        color: number in the palette.
    """

    label: str
    value: float | None
    text: str
    color: int = 0


class _Scale:
    """Numbers of the data -> units of the chart, on one axis.

    Args:
        low, high: of the data.
        start, end: where these lie.
        log: by powers of ten; `low` must be positive then.
    """

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False):
        self._only = low if low == high else None
        if low == high:  # a single value lies in the middle
            low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
        self._low, self._high, self._start, self._end = low, high, start, end
        self._log = log

    def __call__(self, value: float) -> float:
        low, high = self._low, self._high
        if self._log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return self._start + (value - low) / (high - low) * (self._end - self._start)

    def ticks(self, count: int) -> list[float]:
        """About `count` round numbers; where the data is a single value, that one."""
        if self._only is not None:
            return [self._only]
        if self._log and self._high > 10 * self._low:
            powers = range(math.floor(math.log10(self._low)), math.ceil(math.log10(self._high)) + 1)
            steps = (1,) if len(powers) > 5 else (1, 2, 5) if len(powers) < 4 else (1, 3)
            found = [step * 10.0**power for power in powers for step in steps]
            return [tick for tick in found if self._low <= tick <= self._high]
        # The smallest round step that gives no more ticks than wanted.
        rough = (self._high - self._low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
        # 1e-9: rounding must not cost the tick at an end of the axis.
        first = math.ceil(self._low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self._high / step + 1e-9) + 1)]


def line_chart(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    title: str = "",
    log_y: bool = False,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
) -> Markup:
    """Draw lines over a common axis.

    Args:
        series: those without a value are left out.
        x_label: what the axis has, with its unit.
        y_label: likewise.
        title: what a screen reader says.
        log_y: powers of ten; values that are not positive are gaps then.
        x_range: of the axis; that of the data by default.
        y_range: likewise, with some room above.
        diagonal: draw the line y = x, on which a perfect curve would lie.

    Returns:
        ``<svg>``, or a sentence where there is nothing to draw.
    """
    series = [s for s in (_drawable(s, k, log_y) for k, s in enumerate(series)) if s]
    if not series:
        return Markup('<p class="none">No values were recorded.</p>')
    # A single line needs no legend: the axis says what it is.
    legend, legend_height = _legend(series) if len(series) > 1 else ("", 0)
    bottom = _HEIGHT - _BOTTOM
    xs = [x for s in series for x, _ in s.points]
    ys = [y for s in series for _, *ends in s.reach() for y in ends]
    x_of = _Scale(*(x_range or (min(xs), max(xs))), _LEFT, WIDTH - _RIGHT)
    y_of = _Scale(*(y_range or _room(min(ys), max(ys), log_y)), bottom, _TOP, log_y)
    parts = [*_axes(x_of, y_of, bottom), *_labels(x_label, y_label, bottom)]
    if diagonal:
        low, high = x_range or (min(xs), max(xs))
        parts.append(
            f'<path class="guide" d="M{x_of(low):.1f} {y_of(low):.1f}L{x_of(high):.1f} '
            f'{y_of(high):.1f}"/>'
        )
    parts += [_line(s, x_of, y_of) for s in series]
    parts.append(f'<g transform="translate({_LEFT} {_HEIGHT + 10})">{legend}</g>' if legend else "")
    height = _HEIGHT + legend_height
    label = html.escape(title or f"{y_label} over {x_label}")
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def _drawable(series: Series, place: int, log_y: bool) -> Series | None:
    """The series with its colour, and None for values that cannot be drawn; None without any."""
    points = [
        (x, y if y is not None and math.isfinite(y) and (y > 0 or not log_y) else None)
        for x, y in series.points
    ]
    # Its colour is that of its place among all series, so that it is the same in every chart.
    if all(y is None for _, y in points):
        return None
    color = (place if series.color is None else series.color) % PALETTE
    return replace(series, points=points, color=color)


def _room(low: float, high: float, log: bool) -> tuple[float, float]:
    if log:
        return low / 1.1, high * 1.1
    # From zero, unless that would squeeze the line; a constant has its height.
    low = 0.0 if 0 <= low < 0.6 * high or 0 <= low == high else low
    room = 0.05 * (high - low)
    return (low - room if low else low), high + room


def _axes(x_of: _Scale, y_of: _Scale, bottom: float) -> list[str]:
    parts = [f'<path class="axis" d="M{_LEFT} {bottom}H{WIDTH - _RIGHT}"/>']
    for tick in y_of.ticks(5):
        y = y_of(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 3.5:.1f}" class="end">{short(tick)}</text>')
    for tick in x_of.ticks(5):
        x = x_of(tick)
        parts.append(f'<path class="axis" d="M{x:.1f} {bottom}v4"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 15}" class="middle">{short(tick)}</text>')
    return parts


def _labels(x_label: str, y_label: str, bottom: float) -> list[str]:
    x, y = (_LEFT + WIDTH - _RIGHT) / 2, (_TOP + bottom) / 2
    return [
        f'<text x="{x}" y="{_HEIGHT - 6}" class="middle label">{html.escape(x_label)}</text>',
        f'<text transform="translate(11 {y}) rotate(-90)" class="middle label">'
        f"{html.escape(y_label)}</text>",
    ]


def _line(series: Series, x_of: _Scale, y_of: _Scale) -> str:
    pieces = [
        [(x_of(x), y_of(y)) for x, y in points]
        for is_gap, points in groupby(series.points, key=lambda point: point[1] is None)
        if not is_gap
    ]
    path = "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in piece) for piece in pieces)
    # A piece of one point has no length: it is seen as a dot.
    for x, low, high in series.reach():
        if low < high:
            path += f"M{x_of(x):.1f} {y_of(low):.1f}V{y_of(high):.1f}"
    dots = [p for piece in pieces if series.marks or len(piece) == 1 for p in piece]
    drawn = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4"/>' for x, y in dots)
    last = next(y for _, y in reversed(series.points) if y is not None)
    told = html.escape(f"{series.name}: last value {short(last)}")
    return f'<g class="s{series.color}"><title>{told}</title><path d="{path}"/>{drawn}</g>'


def _legend(series: Sequence[Series]) -> tuple[str, float]:
    """Its parts, in lines as they fit, and its height."""
    parts, x, line = [], 0.0, 0
    for s in series:
        width = 26 + _CHARACTER * len(s.name) + 10
        if x and _LEFT + x + width > WIDTH:
            x, line = 0.0, line + 1
        y = line * _LEGEND_LINE
        parts.append(
            f'<g class="s{s.color}"><path d="M{x:.0f} {y}h20"/><text x="{x + 25:.0f}" '
            f'y="{y + 3.5}">{html.escape(s.name)}</text></g>'
        )
        x += width
    return "".join(parts), (line + 1) * _LEGEND_LINE + 4


def bars(rows: Sequence[Bar], maximum: float | None = None) -> Markup:
    """Draw bars under each other: label, bar, and what its value is.

    Args:
        rows: from above.
        maximum: the value of a full bar; the largest one by default.
    """
    values = [row.value for row in rows if row.value is not None]
    if not values:
        return Markup('<p class="none">No values were recorded.</p>')
    full = maximum or max(values) or 1.0
    drawn = []
    for row in rows:
        share = max(0.0, min(1.0, (row.value or 0.0) / full))
        drawn.append(
            f'<li><span class="name">{html.escape(row.label)}</span><span class="track">'
            f'<span class="fill f{row.color % PALETTE}" style="width:{100 * share:.1f}%"></span>'
            f'</span><span class="value">{html.escape(row.text)}</span></li>'
        )
    return Markup(f'<ul class="bars">{"".join(drawn)}</ul>')


def short(value: float) -> str:
    """A number as a person would write it: three digits that count, no trailing zeros."""
    if value == 0:
        return "0"
    size = abs(value)
    if 1e6 <= size < 1e9:
        return f"{value / 1e6:.3g}M"
    if 1e4 <= size < 1e6:
        return f"{value / 1e3:.3g}k"
    if 1e3 <= size < 1e4:
        return f"{value:.0f}"
    if not 1e-2 <= size < 1e3:
        digits, power = f"{value:.2e}".split("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:.3g}"
