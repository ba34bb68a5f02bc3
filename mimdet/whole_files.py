"""Files that are complete or not there, whatever ends the process that writes them."""

import contextlib
import os
import tempfile
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


@contextlib.contextmanager
def complete_or_not_there(path: str | os.PathLike) -> Iterator[str]:
    """Another path, for who writes files by their names; what is there takes the place of `path`.

    It has the same file name, which may tell the format, in a folder of its own beside `path`.
    Other files that are written into that folder come along.

    Args:
        path: a local file; its folder exists.

    Raises:
        FileNotFoundError: if there is no folder for it.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"there is no folder {folder} for {path}; make it first")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished_") as temporary:
        unfinished = Path(temporary, Path(path).name)
        unfinished.touch()
        mode = unfinished.stat().st_mode  # the user's own; safetensors writes files for nobody else
        yield str(unfinished)
        # Its companions first, such as the weights of a large ONNX model: who finds it finds them.
        for written in sorted(Path(temporary).iterdir(), key=lambda p: p == unfinished):
            written.chmod(mode)
            os.replace(written, Path(folder, written.name))
