"""Files that are complete or not there, whatever ends the process that writes them."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def refuse_file(folder: str, name: str = "") -> None:
    """Refuse what is to be a folder, there or not yet, if a file is in its place or above it.

    Args:
        folder: the path.
        name: what to call it in the message; its path if empty.

    Raises:
        NotADirectoryError: naming the file.
    """
    path = Path(folder)
    present = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not present.is_dir():
        raise NotADirectoryError(
            f"{name or folder} must be a folder, and {present} is a file; choose another name"
        )


@contextlib.contextmanager
def written_whole(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path` that takes its place when the block ends well.

    It is called ``NAME.tmp<process id>``: what a killed process leaves can be told by its name,
    and two processes that write the same file do not write into each other's.

    Args:
        path: a local file; its folder exists.
        mode: "w" for text in UTF-8, or "wb".

    Raises:
        OSError: if it cannot be written; then `path` is as it was, and nothing lies beside it.
    """
    temporary = f"{os.fspath(path)}.tmp{os.getpid()}"
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            # Some file systems say only now that the disk is full, and without it a machine that
            # loses power may keep the new name and lose the content.
            os.fsync(file.fileno())
        # Atomic, because both are in one folder and so in one file system.
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
