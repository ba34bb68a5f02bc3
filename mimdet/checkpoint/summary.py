"""What a checkpoint file holds, in a few lines for people."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from mimdet.checkpoint.average import averaged_weights
from mimdet.checkpoint.card import KEY as CARD_KEY
from mimdet.checkpoint.card import Card, card_of
from mimdet.checkpoint.file import read_checkpoint, state_dict_of, tensors_in
from mimdet.checkpoint.identity import identify
from mimdet.shown import shown


def summarize(path: str) -> str:
    """Say what a file is, what to do with it, how large it is and what it holds besides.

    Tensors stay in the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no checkpoint; the message says what it is.
    """
    content = read_checkpoint(path, "the checkpoint to inspect", mapped=True)
    tensors = tensors_in(content, path, "the checkpoint to inspect")
    identity = identify(tensors)
    types = Counter(str(t.dtype).removeprefix("torch.") for t in tensors.values())
    card = card_of(content, path)
    knows = f"it tells its config and classes: mimdet predict {path} IMAGES --output FOLDER"
    lines = [
        f"{path} is {identity.what}",
        f"what to do: {knows if card else identity.remedy}",
        f"{len(tensors)} tensors, {sum(t.numel() for t in tensors.values()):,} numbers "
        f"({', '.join(f'{n} of {name}' for name, n in types.most_common())})",
    ]
    if average := averaged_weights(content):
        lines.append(f"their moving average (EMA): {len(average)} tensors")
    if card:
        lines += _card_lines(card)
    if others := _others(content, tensors):
        lines.append(f"besides: {', '.join(others)}")
    return "\n".join(lines)


def _card_lines(card: Card) -> Iterator[str]:
    """The card without its config, of which there are hundreds of lines."""
    if card.classes:
        names = ", ".join(card.classes[:10]) + (", ..." if len(card.classes) > 10 else "")
        yield f"{len(card.classes)} classes: {names}"
    for what, values in (("settings", card.protocol), ("trained with", card.versions)):
        if values:
            pairs = (f"{shown(key)} {shown(value)}" for key, value in values.items())
            yield f"{what}: {', '.join(pairs)}"


def _others(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[str]:
    """The entries of a file beside its weights, with their values where these are short."""
    weights = state_dict_of(content)
    return [
        f"{shown(key)} {shown(value, 40)}" if isinstance(value, int | float | str) else shown(key)
        for key, value in content.items()
        if value is not weights and key not in tensors and key != CARD_KEY
    ]
