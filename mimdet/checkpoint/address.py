"""Checkpoints at addresses: fetched once, when a user names one."""

import hashlib
import os
import re
from urllib.parse import urlparse

from detectron2.utils.file_io import PathManager

# As torch.hub names files: the beginning of their SHA-256 stands before the suffix.
_HASH = re.compile(r"-([0-9a-f]{8,64})\.\w+$")


def is_address(path: str) -> bool:
    """Whether this is ``https://...`` or the like, and no path of a file."""
    return "://" in path


def local_file(path: str, given_by: str) -> str:
    """The file of a path; of an address the copy that is kept where Detectron2 keeps downloads.

    A progress bar is shown. If the name of the file at the address tells its SHA-256, as the names
    of torch.hub do (``mae-8cad7c1a.pth``), the copy must have it.

    Args:
        path: a path, or an address that Detectron2 knows (``http``, ``https``, ``detectron2``).
        given_by: the config key or option that names it, for messages.

    Raises:
        OSError: if nothing can be fetched from the address.
        ValueError: if the copy has another SHA-256 than its name tells; it is removed.
    """
    if not is_address(path):
        return path
    try:
        copy = PathManager.get_local_path(path)
    except OSError as e:
        raise OSError(
            f"{path} cannot be fetched ({given_by}): {e}; fetch it by hand and give the file"
        ) from e
    if told := _HASH.search(urlparse(path).path):
        _check_hash(copy, told[1], path, given_by)
    return copy


def _check_hash(copy: str, told: str, path: str, given_by: str) -> None:
    with open(copy, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(told):
        os.remove(copy)
        raise ValueError(
            f"the file of {path} must have a SHA-256 that begins with {told}, as its name says "
            f"({given_by}), got {found}; the copy is removed: try again, or ask who offers it"
        )
