"""Templates -> pages. A page is one file: no script, no font, no picture from anywhere else."""

from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, FileSystemLoader

from mimdet.report import charts

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """Fill in a template of `mimdet/report/templates`.

    Whatever comes from a run, such as names of classes and files, is escaped: it may be a
    stranger's.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=ChainableUndefined,  # an older run tells less
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for filter_ in (charts.short, percent, duration, when):
        environment.filters[filter_.__name__] = filter_
    environment.globals |= {"bars": charts.bars}
    return environment.get_template(template).render(**values)


def percent(value: float | None) -> str:
    """An AP, which is in percent already; a dash where it is undefined."""
    return "–" if value is None else f"{value:.1f}"


def duration(seconds: float | None) -> str:
    """Seconds as a person would say them."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def when(text: Any) -> str:
    """A time of ISO 8601, to the minute."""
    return str(text)[:16].replace("T", " ") + " UTC"
