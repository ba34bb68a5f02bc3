"""Evaluation results as log lines and as flat metric names."""

import logging
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)


def print_csv_format(results: Mapping[str, Any]) -> None:
    """Log the main metrics as comma-separated lines that paste into a spreadsheet.

    Args:
        results: metrics in percent by task, as in `{"bbox": {"AP": 38.1, "AP-person": 50.0}}`.
            Per-class metrics (those with "-" in the name) are left out. A value that is not a
            mapping is logged as `key=value`.

    Raises:
        AssertionError: `results` is neither a mapping nor empty.
    """
    assert isinstance(results, Mapping) or not len(results), (
        f"results must map tasks to metrics, got {type(results).__name__}: {results}"
    )
    if not results:
        return
    for task, metrics in results.items():
        if not isinstance(metrics, Mapping):
            logger.info(f"copypaste: {task}={metrics}")
            continue
        main = {name: value for name, value in metrics.items() if "-" not in name}
        logger.info(f"copypaste: Task: {task}")
        logger.info("copypaste: " + ",".join(main))
        logger.info("copypaste: " + ",".join(f"{value:.4f}" for value in main.values()))


def flatten_results_dict(results: Mapping[str, Any]) -> dict[str, Any]:
    """Nested results as one level: `{"bbox": {"AP": 1.0}}` becomes `{"bbox/AP": 1.0}`."""
    flat = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            inner = flatten_results_dict(value)
            flat.update({f"{key}/{name}": metric for name, metric in inner.items()})
        else:
            flat[key] = value
    return flat
