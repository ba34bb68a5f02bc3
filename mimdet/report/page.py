"""The dict of a run -> one page that needs nothing else, and the JSON beside it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mimdet.report import names
from mimdet.report.classes import class_table
from mimdet.report.collect import collect
from mimdet.report.detection_sections import detection_figures
from mimdet.report.pictures import (
    kept_tokens,
    reconstruction_strips,
    thumbnail,
    truth_and_detections,
)
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
    # Of a folder with a training and evaluations after it, the commands of both count.
    newest = list({start.get("kind"): start for start in data["starts"]}.values())
    return render(
        "report.html",
        data=data,
        names=names,
        outcome=names.OUTCOMES.get(data["state"]["outcome"], (data["state"]["outcome"], "warn")),
        newest=newest,
        earlier=[start for start in data["starts"] if start not in newest],
        last=data["starts"][-1] if data["starts"] else {},
        cards=cards(data),
        training_figures=training_figures(training, data["evaluations"]) if training else [],
        detection_figures=detection_figures(data["detections"]) if data["detections"] else [],
        classes=class_table(data),
        worst=_worst_images(data),
        tokens={name: kept_tokens(Path(data["folder"], name)) for name in data["kept_tokens"]},
        strips=reconstruction_strips(_thinned_files(data)),
        time_bars=time_bars(training["seconds"]) if training else None,
    )


def _worst_images(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries = data["detections"]["worst"]["images"] if data["detections"] else []
    root = data["image_root"]
    return [
        {
            "entry": entry,
            "drawing": truth_and_detections(entry, thumbnail(root, entry["file_name"]), f"w{k}"),
        }
        for k, entry in enumerate(entries)
    ]


def _thinned_files(data: Mapping[str, Any], limit: int = 9) -> list[Path]:
    """The files of reconstructions, the first and the last and some between."""
    names = data["reconstructions"]
    count = min(limit, len(names))
    chosen = sorted({round(k * (len(names) - 1) / max(count - 1, 1)) for k in range(count)})
    return [Path(data["folder"], names[k]) for k in chosen]
