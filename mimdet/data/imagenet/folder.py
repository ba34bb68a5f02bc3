"""The image files of a folder: each once, without what systems and tools leave beside them."""

import logging
import os
from collections import deque
from collections.abc import Iterator

logger = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif")

# Previews, recycle bins and halves of archives, besides all names with a dot in front: ._a.jpg of
# macOS, .thumbnails, .ipynb_checkpoints, .Trash-1000.
_LEFT_BEHIND = {
    *("@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN"),
    *("System Volume Information", "__MACOSX", "lost+found"),
}


def images_below(folder: str) -> Iterator[str]:
    """Find the images in a folder, at any depth.

    Links are followed, but nothing is found twice: not in a loop of links, and not by a link beside
    the file itself. What was found is in no order.

    Args:
        folder: its own name may be anything; hidden files and folders below it are left out.

    Yields:
        Paths that begin with `folder`. They are regular files when they are found; other names
        that end as images do (broken links, pipes, devices) are told in one warning.

    Raises:
        OSError: if a folder may not be read.
    """
    folders, visited = deque([folder]), set()
    links: list[str] = []
    no_files: list[str] = []
    while folders:
        parent = folders.popleft()
        real = os.path.realpath(parent)
        if real in visited:
            continue
        visited.add(real)
        for entry in _entries(parent):
            if _is_folder(entry):
                # Links last, so that a file is found by its own path and not by that of a link.
                (folders.append if entry.is_symlink() else folders.appendleft)(entry.path)
            elif not _is_image(entry.name):
                continue
            elif entry.is_symlink():
                links.append(entry.path)
            elif entry.is_file():
                yield entry.path
            else:
                no_files.append(entry.path)
    yield from _linked_images(links, visited, no_files)
    if no_files:
        logger.warning(
            f"{len(no_files)} names of images below {folder} are no files that can be read (broken "
            f"links, pipes, devices) and are left out: {', '.join(no_files[:3])}"
        )


def _linked_images(links: list[str], visited: set[str], no_files: list[str]) -> Iterator[str]:
    """The links to images that were not found in the `visited` folders; others join `no_files`."""
    targets: set[str] = set()
    for link in links:
        target = os.path.realpath(link)
        if not os.path.isfile(target):
            no_files.append(link)
            continue
        name = os.path.basename(target)
        found = os.path.dirname(target) in visited and _is_image(name) and not _is_hidden(name)
        if not found and target not in targets:
            targets.add(target)
            yield link


def folders_in(folder: str | os.PathLike) -> list[str]:
    """The names of the folders directly in a folder, sorted, hidden ones and loops left out."""
    return [entry.name for entry in _entries(folder) if _is_folder(entry)]


def image_beside(folder: str, name: str) -> str | None:
    """An image in `folder`, at any depth, that is not in its folder `name`; None if all are."""
    for entry in _entries(folder):
        if entry.name == name:
            continue
        if _is_folder(entry):
            if (image := next(images_below(entry.path), None)) is not None:
                return image
        elif _is_image(entry.name):
            return entry.path
    return None


def _entries(folder: str | os.PathLike) -> list[os.DirEntry]:
    """What the user put into a folder, in the order of names."""
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if not _is_hidden(e.name)), key=lambda e: e.name)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _LEFT_BEHIND


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder, and no link that leads back to a folder it lies in.

    Such a link never brings more than the search began with, or brings what lies outside of it:
    the images of all classes into one class, for instance.
    """
    if not entry.is_symlink():
        return entry.is_dir()
    if not os.path.isdir(entry.path):  # entry.is_dir() raises an error for a link to itself
        return False
    target, place = os.path.realpath(entry.path), os.path.realpath(os.path.dirname(entry.path))
    return os.path.commonpath([target, place]) != target
