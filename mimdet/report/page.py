"""The dict of a run -> one page that needs nothing else, and the JSON beside it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimdet.report import names
from mimdet.report.collect import collect
from mimdet.report.render import render
from mimdet.report.sections import cards, time_bars, training_figures
from mimdet.whole_files import written_whole

PAGE, DATA = "report.html", "report.json"


def make_report(run: str | os.PathLike, output: str | os.PathLike | None = None) -> Path:
    """Write the report of a run: ``report.html``, and what it shows as ``report.json``.

    Args:
        run: its folder, `train.output_dir`.
        output: folder for both files, made if it is not there; that of the run by default.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: see `collect`.
        OSError: if the files cannot be written.
    """
    data = collect(run)
    folder = Path(output or run)
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / DATA) as file:
        json.dump(data, file, allow_nan=False, indent=1)
    with written_whole(folder / PAGE) as file:
        file.write(page_of(data))
    return folder / PAGE


def page_of(data: Mapping[str, Any]) -> str:
    """The page of a run's dict.

    Args:
        data: from `collect`. Pictures are read from the files that it names.
    """
    training = data["training"]
    return render(
        "report.html",
        data=data,
        names=names,
        outcome=names.OUTCOMES.get(data["state"]["outcome"], (data["state"]["outcome"], "warn")),
        last=data["starts"][-1] if data["starts"] else {},
        cards=cards(data),
        training_figures=training_figures(training, data["evaluations"]) if training else [],
        time_bars=time_bars(training["seconds"]) if training else None,
    )
