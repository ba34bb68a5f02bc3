"""The runs of a sweep: every combination of some settings, with some seeds each."""

import itertools
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimdet.config import load_config
from mimdet.report.run_files import starts

_BRACKETS = {"[": "]", "{": "}", "(": ")"}
_OWN = {"train.seed": "--seeds", "train.output_dir": "--output"}
# What stands in a path of an override without quotes.
_PLAIN = re.compile(r"[\w./+-]+")


@dataclass(frozen=True)
class Setting:
    """A combination of a sweep.

    Attributes:
        name: what is set, for tables.
        folder: of its runs.
        overrides: of the config, those that all settings share included.
    """

    name: str
    folder: Path
    overrides: list[str]

    def run(self, seed: int) -> Path:
        """The folder of the run with a seed."""
        return self.folder / f"seed_{seed}"

    def arguments(self, seed: int) -> list[str]:
        """The overrides that make a training this run."""
        return [
            *self.overrides,
            f"train.seed={seed}",
            f"train.output_dir={_quoted(self.run(seed))}",
        ]


def plan(overrides: Sequence[str], output: Path) -> list[Setting]:
    """The settings of a sweep, in the order of the values; that of the last key changes fastest.

    Args:
        overrides: ``key=a,b,c`` for what is swept, ``key=a`` for what all settings share. A list is
            one value: ``key=[1,2],[3,4]`` has two.
        output: folder of the sweep.

    Raises:
        ValueError: if nothing is swept, a key or one of its values is there twice, a value is
            missing, or a key is one that the sweep sets itself.
    """
    keys = [text.partition("=")[0] for text in overrides]
    for key in keys:
        if key.lstrip("+") in _OWN:
            raise ValueError(
                f"{key} is set by the sweep: {_OWN[key.lstrip('+')]} is the flag for it"
            )
    values = [_values(text) for text in overrides]
    axes = [(k, v) for k, v in zip(keys, values, strict=True) if len(v) > 1]
    if not axes:
        raise ValueError(
            "a sweep needs a key with several values, key=a,b,c, and got "
            f"{', '.join(overrides) or 'none'}"
        )
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"each key of a sweep must stand once, and {key} is there twice")
    names = _short_names([key.lstrip("+") for key, _ in axes])
    settings = []
    for combination in itertools.product(*values):
        chosen = dict(zip(keys, combination, strict=True))
        told = [(name, chosen[key]) for name, (key, _) in zip(names, axes, strict=True)]
        folder = "__".join(_for_a_folder(f"{name}_{value}") for name, value in told)
        settings.append(
            Setting(
                name=", ".join(f"{name}={value}" for name, value in told),
                folder=output / folder,
                overrides=[f"{key}={value}" for key, value in chosen.items()],
            )
        )
    folders = [setting.folder for setting in settings]
    if len(set(folders)) < len(folders):
        twice = next(folder for folder in folders if folders.count(folder) > 1)
        raise ValueError(f"the values of a sweep must be unlike, and two are those of {twice.name}")
    return settings


def check(settings: Sequence[Setting], config: str, trusted: Sequence[str] = ()) -> None:
    """Refuse what the config does not take, before the first run begins and not after hours.

    Args:
        settings: of the sweep.
        config: its config file.
        trusted: packages from which a YAML file may name everything.

    Raises:
        FileNotFoundError, KeyError, ValueError: see `load_config`.
    """
    for setting in settings:
        load_config(config, setting.arguments(seed=0), trusted=trusted)


def is_finished(run: Path) -> bool:
    """Whether the run in a folder has come to its end, the last evaluation included."""
    if begun := _trainings(run):
        return begun[-1].get("outcome") == "finished"
    return (run / "model_final.pth").is_file() and (run / "results.json").is_file()


def other_settings(run: Path, overrides: Sequence[str]) -> list[str]:
    """In which overrides the command of a run's newest training and these differ.

    Returns:
        Those that only one of them has, the output folder aside; none where the command is not
        known.
    """
    begun = _trainings(run)
    words = shlex.split(begun[-1].get("command") or "") if begun else []
    given = {word for word in words if "=" in word and not word.startswith("-")}
    return sorted(
        word
        for word in (given ^ set(overrides) if given else ())
        if not word.startswith("train.output_dir=")
    )


def _trainings(run: Path) -> list[dict[str, Any]]:
    return [start for start in starts(run) if start.get("kind", "training") == "training"]


def _values(override: str) -> list[str]:
    """The values of an override, parted at commas that stand in no bracket and no quotes."""
    key, _, text = override.partition("=")
    values, open_until, start = [], [], 0
    for k, character in enumerate(text):
        # The quote that closes is asked for before anything else: inside of quotes brackets mean
        # nothing.
        if open_until and character == open_until[-1]:
            open_until.pop()
        elif open_until and open_until[-1] in "'\"":
            continue
        elif character in "'\"":
            open_until.append(character)
        elif character in _BRACKETS:
            open_until.append(_BRACKETS[character])
        elif character == "," and not open_until:
            values.append(text[start:k])
            start = k + 1
    values.append(text[start:])
    if len(values) > 1 and "" in values:
        raise ValueError(f"between two commas of a sweep there must be a value, got {key}={text}")
    return values


def _short_names(keys: Sequence[str]) -> list[str]:
    """The last part of each key, or the whole key where parts are alike."""
    last = [key.rpartition(".")[2] for key in keys]
    return last if len(set(last)) == len(last) else list(keys)


def _for_a_folder(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")


def _quoted(path: Path) -> str:
    """A path as the grammar of overrides takes it."""
    text = str(path)
    return text if _PLAIN.fullmatch(text) else "'" + text.replace("'", r"\'") + "'"
