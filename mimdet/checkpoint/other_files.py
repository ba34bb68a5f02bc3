"""What a file is that torch cannot read, and the way out."""

import os
import zipfile

_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save began before its zip files
_DAMAGED = "cut short or damaged while it was saved, copied or downloaded: fetch it again"

# beginning of a file -> what it is
_BEGINNINGS = (
    (b"version https://git-lfs", "a pointer of Git LFS: fetch the file itself with `git lfs pull`"),
    (b"<", "a web page (HTML) saved under that name: the download needs a browser or a token"),
    (b"{", "JSON text, without weights"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"BZh", "a bzip2 archive: unpack it first"),
    (b"\xfd7zXZ", "an xz archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"Rar!", "a rar archive: unpack it first"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"\x89HDF", "an HDF5 file, as Keras saves weights: save its arrays with torch.save"),
    (b"\x93NUMPY", "an array of numpy.save: save it in a dict by its name with torch.save"),
    (_TORCH, _DAMAGED),
    (
        b"\x80",
        "a pickle that torch.save has not written: if it is Detectron2's, name it .pkl",
    ),
)


def is_pickle(path: str) -> bool:
    """Whether a file begins as a pickle of protocol 2 or later does, those of torch among them."""
    with open(path, "rb") as file:
        return file.read(1) == b"\x80"


def what_it_is(path: str) -> str | None:
    """What a file that torch cannot read is, as the end of "it is ..."; None if unknown."""
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        return "empty: fetch it again"
    if head.startswith(b"PK"):
        return _zip(path)
    if 0 < int.from_bytes(head[:8], "little") < os.path.getsize(path) and head[8:9] == b"{":
        return "a safetensors file: load it with safetensors.torch and save it with torch.save"
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for beginning, what in _BEGINNINGS:
        if head.startswith(beginning) or text.startswith(beginning):
            return what
    return "text, without weights" if _is_text(head) else None


def _zip(path: str) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return _DAMAGED  # the table of contents is at the end
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program: save the state dict of the module with torch.save"
    if any(name.endswith("/data.pkl") for name in names):
        return None
    return f"a zip archive of other files ({', '.join(names[:3])}): unpack it first"


def _is_text(head: bytes) -> bool:
    text = head.decode(errors="ignore")
    is_utf8 = len(text.encode()) > len(head) - 4  # the last character may be cut
    return is_utf8 and all(c.isprintable() or c in "\t\r\n" for c in text)
