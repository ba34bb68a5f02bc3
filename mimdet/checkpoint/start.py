"""Starting weights: parts of a new model take what pretraining left in files, with a report."""

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mimdet.checkpoint.convert.fastmim import has_pixel_mask_token
from mimdet.checkpoint.convert.formats import FORMATS, detect_format, in_our_names
from mimdet.checkpoint.convert.mae import has_decoder, strip_prefixes
from mimdet.checkpoint.convert.match import match
from mimdet.checkpoint.file import read_tensors
from mimdet.checkpoint.identity import START, identify

logger = logging.getLogger(__name__)

_KEY = "train.starting_weights"
_HEADS = ("head", "fc", "norm.")
_TABLES = ("bicubic", "geometric")


@dataclass(frozen=True)
class StartingWeights:
    """What a part of a new model takes from a file: an entry of `train.starting_weights`.

    Attributes:
        path: the file or its address, or None to leave the part as initialised.
        to: dotted name of the part in the model, as `get_submodule` takes it.
        format: a key of `mimdet.checkpoint.convert.formats.FORMATS`, or "auto" to tell it by the
            names in the file. "mae" are MAE's own names, which are also timm's and ours.
        allow_missing: `fnmatch` patterns of names in the part that may be absent in the file or
            have another shape there; they stay as initialised. As in `train.allow_missing`.
        leave: patterns of names in the part that stay as initialised although the file has them.
        grid: (h, w) in tokens of the map for which the part's position table is, if that is not
            square.
        tables: how Swin's tables of relative positions get another size, see
            `mimdet.checkpoint.convert.swin_table.interpolate_rel_pos_table`.
        from_scratch: leave the part as initialised although there is a file.
    """

    path: str | None
    to: str
    format: str = "auto"
    allow_missing: Sequence[str] = ()
    leave: Sequence[str] = ()
    grid: Sequence[int] | None = None
    tables: str = "bicubic"
    from_scratch: bool = False


def load_starting_weights(
    model: nn.Module,
    entries: Sequence[StartingWeights],
    key_of: Callable[[str], str] = str,
) -> None:
    """Start parts of a model from files; each file is read once.

    What was loaded, resized, left as initialised or not used is logged.

    Args:
        model: a freshly built model.
        entries: the list `train.starting_weights`; those without a path are passed over.
        key_of: called with a key like "train.starting_weights.0.path", returns the one that a user
            has set, such as "mae_checkpoint.path"; for messages.

    Raises:
        OSError: if a file does not exist or cannot be fetched.
        ValueError: if an entry names no part of the model, or two entries one part; if a file is
            no checkpoint, is of another kind or size than the part, or lacks the decoder.
    """
    given = [(f"{_KEY}.{i}", entry) for i, entry in enumerate(entries) if entry.path]
    _check_parts(model, given)
    files: dict[str, Mapping[str, Tensor]] = {}
    for key, entry in given:
        name = entry.to or "the model"
        if entry.from_scratch:
            logger.info(f"{name} stays as initialised ({key_of(f'{key}.from_scratch')}=True)")
            continue
        path_key = key_of(f"{key}.path")
        if entry.path not in files:
            files[entry.path] = read_tensors(entry.path, path_key)
        file, part = strip_prefixes(files[entry.path]), model.get_submodule(entry.to)
        own = part.state_dict()
        # A model of timm's may be of any kind: nothing but its head may be left over then.
        if not all(name in own or name.startswith(_HEADS) for name in file):
            check_kind(files[entry.path], entry, path_key)
        if has_decoder(own):
            check_decoder(file, entry, path_key, key_of(f"{key}.from_scratch"))
        format = _format_of(file, entry, key)
        # BEiT has relative positions only
        without = ("pos_embed",) if format == "beit" else ()
        try:
            matched, report = match(
                in_our_names(file, format, own, entry.grid),
                own,
                allow_missing=(*entry.allow_missing, *without),
                leave=entry.leave,
                grid=entry.grid,
                tables=entry.tables,
            )
        except ValueError as e:
            raise ValueError(
                f"{entry.path} does not fit {name} ({path_key}): {e} ({key}); the file is "
                f"{identify(files[entry.path]).what}"
            ) from e
        # Not strict, because `match` has looked at every name already.
        part.load_state_dict(matched, strict=False)
        logger.info(f"{name} from {entry.path}: {report}")


def _check_parts(model: nn.Module, given: Sequence[tuple[str, StartingWeights]]) -> None:
    """Every entry must name a part of the model, and no two the same or one inside the other."""
    parts = dict(model.named_modules())
    owners: dict[str, str] = {}
    for key, entry in given:
        if entry.to not in parts:
            nearest = difflib.get_close_matches(entry.to, parts, n=1, cutoff=0.0)
            raise ValueError(
                f"{key}.to must name a part of the model, got {entry.to!r}; the nearest one is "
                f"{nearest[0]!r}"
            )
        for other, owner in owners.items():
            if entry.to == other or _is_inside(entry.to, other) or _is_inside(other, entry.to):
                raise ValueError(
                    f"a part of the model can start from one file only, but {owner} is for "
                    f"{other!r} and {key} for {entry.to!r}; remove one of them"
                )
        owners[entry.to] = key
        if entry.tables not in _TABLES:
            raise ValueError(f"{key}.tables must be one of {_TABLES}, got {entry.tables!r}")


def _is_inside(name: str, other: str) -> bool:
    return not other or name.startswith(f"{other}.")


def check_kind(file: Mapping[str, Tensor], entry: StartingWeights, path_key: str) -> None:
    """Refuse a file that no part of a model can start from; what else fits, loading tells.

    Args:
        file: its tensors by their names in the file, on any device.
        entry: that names the file; only a format "auto" leaves something to tell.
        path_key: the config key that a user has set, for the message.

    Raises:
        ValueError: if the names of the file are those of a whole detector or of a model that is
            computed in another way than those here.
    """
    identity = identify(file)
    if entry.format == "auto" and START not in identity.keys:
        raise ValueError(
            f"{entry.path} must be a file that a part of a model can start from ({path_key}), but "
            f"it is {identity.what}; {identity.remedy}"
        )


def check_decoder(
    file: Mapping[str, Tensor], entry: StartingWeights, path_key: str, scratch_key: str
) -> None:
    """A file for a decoder of MAE's kind must hold one: without, it would stay random unnoticed.

    Args:
        file: its tensors, prefixes stripped, on any device.
        entry: that names the file and the decoder.
        path_key: the config key that a user has set to give the file, for the message.
        scratch_key: the same for `StartingWeights.from_scratch`.

    Raises:
        ValueError: if the file holds no decoder, or that of FastMIM.
    """
    if has_pixel_mask_token(file):
        raise ValueError(
            f"{entry.path} must hold MAE's decoder for {entry.to}, but it is a file of FastMIM, "
            "whose decoder has another width and no positions, and whose mask is a colour "
            f"({path_key}); use a full MAE checkpoint, or start only the encoder from this file "
            f"with {scratch_key}=True"
        )
    if not has_decoder(file):
        raise ValueError(
            f"{entry.path} must hold MAE's decoder for {entry.to}, but it is an encoder-only file "
            f"({path_key}); use the full MAE checkpoint, or train the decoder from its initial "
            f"weights with {scratch_key}=True"
        )


def _format_of(file: Mapping[str, Tensor], entry: StartingWeights, key: str) -> str:
    """The format of a file: what its names tell, or what the config says if that can be."""
    if entry.format == "auto":
        return detect_format(file)
    if entry.format not in FORMATS:
        raise ValueError(
            f"{key}.format must be 'auto' or one of {list(FORMATS)}, got {entry.format!r}"
        )
    if not FORMATS[entry.format](file):
        raise ValueError(
            f"{entry.path} must be of the format {entry.format!r}, but its names are those of "
            f"{detect_format(file)!r} ({key}.format)"
        )
    return entry.format
