import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from iopath.common.file_io import HTTPURLHandler, PathHandler
from iopath.common.file_io import PathManager as PathManagerBase

__all__ = ["PathHandler", "PathManager", "atomic_write"]


class Detectron2Handler(PathHandler):
    """Reads `detectron2://name` as a file of the public Detectron2 download server."""

    PREFIX = "detectron2://"
    SERVER = "https://dl.fbaipublicfiles.com/detectron2/"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        url = self.SERVER + path.removeprefix(self.PREFIX)
        return PathManager.get_local_path(url, force=force, **kwargs)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO:
        return PathManager.open(self._get_local_path(path), mode, buffering, **kwargs)


PathManager = PathManagerBase()
"""Opens local files, http(s) addresses and `detectron2://` names; downloads are cached."""

PathManager.register_handler(HTTPURLHandler())
PathManager.register_handler(Detectron2Handler())


@contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path` that takes its place when the block ends well.

    A reader, or a run that is killed while writing, sees either the old file or the new one.

    Args:
        path: local file; its folder must exist.
        mode: "w" for text (UTF-8) or "wb" for bytes.

    Yields:
        The open temporary file. It is removed, and `path` left alone, if the block raises.
    """
    # Of this process, as another one may be writing the same file.
    temporary = f"{os.fspath(path)}.tmp{os.getpid()}"
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            # Before the rename, or a machine that goes down might leave the new name without its
            # content.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
