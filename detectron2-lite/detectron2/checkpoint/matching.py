"""Finds the entries of a checkpoint for those of a model by the ends of their names."""

import logging
import os
from collections.abc import Mapping
from typing import Any

from tabulate import tabulate
from torch import Tensor

logger = logging.getLogger(__name__)


def match_by_suffix(model: Mapping[str, Tensor], checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Rename checkpoint entries to the model entries whose names they end.

    Args:
        model: state dict of the model.
        checkpoint: name to tensor or array.

    Returns:
        The renamed entries, followed by those that match nothing.

    Raises:
        ValueError: one checkpoint entry matches two model entries.
    """
    mapping: dict[str, str] = {}
    for name, value in model.items():
        match = _longest_suffix(name, checkpoint)
        if match is None:
            continue
        shape = tuple(checkpoint[match].shape)
        if shape == tuple(value.shape):
            mapping[name] = match
        else:
            logger.warning(
                f"Shape of {match} in checkpoint is {shape}, while shape of {name} in model is "
                f"{tuple(value.shape)}; {match} will not be loaded"
            )
    if not mapping:
        logger.warning("No weights in the checkpoint matched with the model.")
    else:
        _check_unambiguous(mapping)
        _log_matches(mapping, model)
    taken = set(mapping.values())
    rest = {name: value for name, value in checkpoint.items() if name not in taken}
    return {name: checkpoint[match] for name, match in mapping.items()} | rest


def _longest_suffix(name: str, candidates: Mapping[str, Any]) -> str | None:
    """The longest of `candidates` that equals `name` or ends it after a dot."""
    parts = name.split(".")
    # From the whole name on: the first that is found is the longest.
    suffixes = (".".join(parts[start:]) for start in range(len(parts)))
    return next((suffix for suffix in suffixes if suffix in candidates), None)


def _check_unambiguous(mapping: Mapping[str, str]) -> None:
    takers: dict[str, list[str]] = {}
    for name, match in mapping.items():
        takers.setdefault(match, []).append(name)
    for match, names in takers.items():
        if len(names) > 1:
            raise ValueError(
                f"ambiguous names: checkpoint entry {match!r} matches the model entries {names}; "
                "rename the checkpoint entries to the full names and load without heuristics"
            )


def _log_matches(mapping: Mapping[str, str], model: Mapping[str, Tensor]) -> None:
    rows = [(name, match, tuple(model[name].shape)) for name, match in mapping.items()]
    table = tabulate(
        rows, headers=["Names in Model", "Names in Checkpoint", "Shapes"], tablefmt="pipe"
    )
    # Of lists, not of texts: so no part of a name is cut through.
    owner = ".".join(os.path.commonprefix([name.split(".")[:-1] for name in mapping]))
    place = f"submodule {owner}" if owner else "model"
    logger.info(f"Following weights matched with {place} - Total num: {len(mapping)}\n{table}")
