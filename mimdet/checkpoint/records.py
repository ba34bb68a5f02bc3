"""The records of a file of ``torch.save``, a zip archive, and the checksum that each has (CRC-32).

torch writes checksums and does not compare them (2.14: of 300 files with one flipped bit it loaded
all, mapped or not). Reading a file once more takes 0.3 s/GB where saving it takes 3.4 s/GB.
"""

import os
import zipfile

_BLOCK = 1 << 20  # bytes; of records of many GB one block is in memory


def excess_of_records(path: str) -> str | None:
    """Why reading a zip file would take more memory than it is long, as the end of "it ...".

    Records of ``torch.save`` are neither compressed, to a thousandth of what they hold, nor in the
    same place as others.

    Args:
        path: a local file that `zipfile.is_zipfile` takes for one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except Exception:  # of any type; `damage_of_records` tells of it
        return None
    compressed = [r.filename for r in records if r.compress_type != zipfile.ZIP_STORED]
    if compressed:
        return (
            f"has compressed records ({compressed[0][:80]!r}), which torch.save does not write: "
            "unpack it and zip its folder without compression (zip -0 -r)"
        )
    told, size = sum(r.file_size for r in records), os.path.getsize(path)
    if told > size:
        return f"tells of {told:,} bytes in its records and has {size:,}: fetch it again"
    return None


def damage_of_records(path: str, with_tensors: bool = True) -> str | None:
    """What is damaged in a zip file of ``torch.save``, in a few words; None if nothing is.

    Files that torch has saved without checksums (`torch.serialization.set_crc32_options`) are left
    to who reads them.

    Args:
        path: a local file that `zipfile.is_zipfile` takes for one.
        with_tensors: whether the records of tensors are read too, which are nearly all of it.
    """
    name = "its table of contents"
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            if not any(r.CRC for r in records):
                return None
            for record in records:
                if "/data/" in record.filename and not with_tensors:
                    continue
                name = f"record {record.filename[:80]!r}"
                with archive.open(record) as content:
                    while content.read(_BLOCK):  # compares the checksum at the end
                        pass
    except Exception:  # of any type: zipfile reads whatever the bytes may mean to it
        return f"{name} does not match its checksum"
    return None
