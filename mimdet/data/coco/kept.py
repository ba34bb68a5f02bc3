"""Annotation files that are made here, kept in the user's cache folder."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec


def keep_file(content: dict[str, list[dict[str, Any]]], kind: str) -> str:
    """Write a COCO file that nobody needs to name.

    The file's name is made from its content: whoever finds it there finds what was to be written.

    Args:
        content: of the file.
        kind: how its name begins.

    Returns:
        The path, in the user's cache folder (XDG_CACHE_HOME).
    """
    text = msgspec.json.encode(content)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mimdet"
    folder.mkdir(parents=True, exist_ok=True)
    # 24 digits are 96 bits: no two contents of one user meet in a name.
    path = folder / f"{kind}_{hashlib.sha256(text).hexdigest()[:24]}.json"
    if not path.exists():
        # Several processes may write it at once: each its own file, the last one stays.
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as f:
            try:
                f.write(text)
                f.flush()
                # A full disk is met before the file gets its name, and a machine that loses power
                # afterwards does not leave the name without the content that it promises.
                os.fsync(f.fileno())
                os.replace(f.name, path)
            except BaseException:
                os.unlink(f.name)
                raise
    return str(path)
