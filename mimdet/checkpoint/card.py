"""What a checkpoint says of itself: the config, the classes and the settings it was trained with.

It lies in the file beside the weights, as text and plain values. Detectron2 loads such a file like
any other and leaves this entry alone.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_origin

from mimdet.shown import shown

KEY = "card"


@dataclass(frozen=True)
class Card:
    """The card of a checkpoint.

    Attributes:
        config: of the run, as `config.yaml` has it; read it with `mimdet.config.load_config_text`,
            because the file may be a stranger's.
        classes: their names, in the order of their numbers.
        category_ids: for each class its id in the annotation file of the training.
        protocol: settings of the model that change its detections, by name.
        versions: of what trained it, by package.
    """

    config: str
    classes: list[str] = field(default_factory=list)
    category_ids: list[Any] = field(default_factory=list)
    protocol: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def as_entry(card: Card) -> dict[str, Any]:
    """The card as the entry `KEY` of a checkpoint: only types that ``weights_only`` loads."""
    return dataclasses.asdict(card)


def card_of(checkpoint: Any, path: str) -> Card | None:
    """The card of a checkpoint that was read; None if it has none.

    Args:
        checkpoint: what the file holds.
        path: the file, for messages.

    Raises:
        ValueError: if its card is not what `as_entry` writes.
    """
    entry = checkpoint.get(KEY) if isinstance(checkpoint, Mapping) else None
    if entry is None:
        return None
    types = {f.name: get_origin(f.type) or f.type for f in dataclasses.fields(Card)}
    if not isinstance(entry, Mapping):
        raise ValueError(f"the card of {path} must be a dict, got {type(entry).__name__}")
    known = {name: entry[name] for name in types if name in entry}
    for name, value in known.items():
        if not isinstance(value, types[name]):
            raise ValueError(
                f"{name} in the card of {path} must be {types[name].__name__}, got "
                f"{type(value).__name__}"
            )
    if "config" not in known:
        raise ValueError(f"the card of {path} must have the config of its run, and has none")
    # They are printed and drawn, and the file may be a stranger's.
    known["classes"] = [shown(name) for name in known.get("classes", ())]
    return Card(**known)
