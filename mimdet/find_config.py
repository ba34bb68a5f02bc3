"""Config files by name, so that a command works in any folder."""

import difflib
from pathlib import Path

from mimdet.installed import folder


def find_config(name: str) -> str:
    """The file that `name` stands for.

    An existing file comes first. Otherwise mimdet's own configs are searched, for the path below
    ``configs`` (``mimdet/NAME.py``) or for the file's name alone; ``configs/`` in front and ``.py``
    behind may be left out.

    Raises:
        FileNotFoundError: if it is neither; the message names the configs that are nearest.
        ValueError: if several configs have this name.
    """
    if Path(name).is_file():
        return name
    own = _own_configs()
    wanted = name.removesuffix(".py").removeprefix("configs/")
    found = [key for key in own if wanted in (key, key.rpartition("/")[2])]
    if len(found) > 1:
        raise ValueError(f"{name!r} is the name of several configs, give one: {', '.join(found)}")
    if found:
        return str(own[found[0]])
    raise FileNotFoundError(
        f"a config file must be given, and {name!r} is none; {_nearest(wanted, list(own))}"
    )


def _own_configs() -> dict[str, Path]:
    root = folder("configs")
    files = (path for path in sorted(root.rglob("*.py")) if "common" not in path.parts)
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in files}


def _nearest(wanted: str, names: list[str]) -> str:
    by_file = {name.rpartition("/")[2]: name for name in names}
    near = [name for name in names if wanted and wanted in name]
    # People mistype the end of a long name more often than its folder, so both are compared.
    near += difflib.get_close_matches(wanted, names, cutoff=0.5)
    near += [by_file[n] for n in difflib.get_close_matches(wanted, by_file, cutoff=0.5)]
    if near:
        return f"the nearest of mimdet's own are {', '.join(list(dict.fromkeys(near))[:3])}"
    return f"mimdet's own are in {folder('configs')}"
