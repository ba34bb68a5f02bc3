"""A file of a few bytes does not take memory for billions: it is refused, whichever way it asks."""

import collections
import fractions
import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mimdet.checkpoint.file import read_checkpoint

MANY = 10**9


class Call:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def doubled(times: int) -> bytes | Call:
    """Bytes that are as long as 2 to the power of `times`."""
    import _codecs

    return Call(_codecs.encode, doubled(times - 1), "hex") if times else b"a"


def expanded() -> torch.Tensor:
    return torch.zeros(1).expand(MANY)


REFUSED = {
    "expanded": (expanded, "tensors of 4,000,000,000 bytes"),
    "expanded, in a list": (lambda: [{"a": (expanded(),)}], "tensors of 4,000,000,000 bytes"),
    "many that share their numbers": (
        lambda: (lambda t: [t[i:] for i in range(2000)])(torch.zeros(100_000)),
        "tensors of 7",
    ),
    "without numbers": (lambda: torch.empty(MANY, device="meta"), "tensors of 4,000,000,000"),
    "bytearray": (lambda: Call(bytearray, MANY), "bytearray"),
    "Counter": (lambda: Call(collections.Counter, expanded()), "collections.Counter"),
    "set": (lambda: Call(set, expanded()), "a set of something that is no list"),
    "frozenset": (lambda: Call(frozenset, expanded()), "Tensor"),
    "deque": (lambda: Call(collections.deque, expanded()), "Tensor"),
    "array": (lambda: Call(np.ndarray, (MANY,), "int8"), "tensors of 1,000,000,000 bytes"),
    "codec": (lambda: doubled(40), "_codecs.encode with hex"),
    "copy": (
        lambda: Call(
            torch._utils._rebuild_device_tensor_from_cpu_tensor,
            *(expanded(), torch.float64, "cpu", False),
        ),
        "_rebuild_device_tensor_from_cpu_tensor",
    ),
}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(("make", "what"), REFUSED.values(), ids=REFUSED)
def test_what_makes_much_of_little_is_refused(make, what, is_zip, tmp_path):
    path = tmp_path / "a.pth"
    try:
        torch.save({"model": {"a": make()}}, path, _use_new_zipfile_serialization=is_zip)
    except RuntimeError:  # the old format has no such tensors
        assert not is_zip
        return
    with pytest.raises(ValueError, match=r"a\.pth must be .* \(key\), but it contains ") as error:
        read_checkpoint(str(path), "key")
    assert what in str(error.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_sparse_tensor_of_any_shape_is_refused(tmp_path):
    tensor = torch.sparse_coo_tensor([[0]], [1.0], (MANY,), check_invariants=False)
    torch.save({"model": {"a": tensor}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="contains tensors of 4,000,000,000 bytes in"):
        read_checkpoint(str(tmp_path / "a.pth"), "key")


def test_an_exponent_is_no_fraction(tmp_path):
    torch.save({"model": {}, "x": Call(fractions.Fraction, f"1e{MANY}")}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="cannot be read as one"):
        read_checkpoint(str(tmp_path / "a.pth"), "key")


def test_small_tables_may_be_expanded_and_weights_shared(tmp_path):
    weight = torch.ones(400_000)
    content = {"a": weight, "b": weight, "mask": torch.ones(1, 1).expand(64, 64), "c": {(1, 2)}}
    torch.save(content, tmp_path / "a.pth")
    read = read_checkpoint(str(tmp_path / "a.pth"), "key")
    assert read["mask"].sum() == 64 * 64
    assert read["c"] == {(1, 2)}


# --- The archive ----------------------------------------------------------------------------------


def saved(path: Path, **changes: bytes) -> dict[str, bytes]:
    """The records of a checkpoint."""
    torch.save({"model": {"a": torch.zeros(1000)}}, path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_compressed_records_are_refused_with_the_way_out(tmp_path):
    path = tmp_path / "a.pth"
    records = saved(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=r"has compressed records \('a/data.pkl'\).*zip -0 -r"):
        read_checkpoint(str(path), "key")


def test_records_that_lie_in_the_same_place_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    records = saved(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
        tensor = archive.getinfo("a/data/0")
        for i in range(1, 100):
            twin = zipfile.ZipInfo(f"a/data/{i}")
            for key in ("CRC", "compress_size", "file_size", "header_offset"):
                setattr(twin, key, getattr(tensor, key))
            archive.filelist.append(twin)
    with pytest.raises(ValueError, match=r"tells of 40\d,\d{3} bytes in its records and has"):
        read_checkpoint(str(path), "key")


def test_a_storage_that_is_larger_than_its_record_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    records = saved(path)
    number, larger = b"M" + struct.pack("<H", 1000), b"J" + struct.pack("<i", MANY)
    assert number in records["a/data.pkl"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content.replace(number, larger))
    with pytest.raises(ValueError, match=r"a\.pth must be .* \(key\), but it cannot be read as"):
        read_checkpoint(str(path), "key")


# --- Pickles of arrays ----------------------------------------------------------------------------


def test_a_large_number_in_the_memo_of_a_pickle_is_refused(tmp_path):
    put = pickle.LONG_BINPUT + struct.pack("<I", 2**31)
    (tmp_path / "a.pkl").write_bytes(pickle.PROTO + b"\x02}" + put + pickle.STOP)
    with pytest.raises(ValueError, match="contains a memo of 2,147,483,648 entries"):
        read_checkpoint(str(tmp_path / "a.pkl"), "key")


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (Call(np.ndarray, (MANY,), "int8"), "tensors of 1,000,000,000 bytes"),
        (doubled(40), "_codecs.encode"),
        (Call(frozenset, Call(np.ndarray, (MANY,), "int8")), "cut short or damaged"),
        (np.broadcast_to(np.zeros(1), 3), None),
    ],
    ids=["array", "codec", "frozenset", "small"],
)
def test_so_are_calls_of_a_pickle(value, what, tmp_path):
    file = io.BytesIO()
    pickle.dump({"model": {"a": value}}, file, protocol=4)
    (tmp_path / "a.pkl").write_bytes(file.getvalue())
    if what is None:
        assert read_checkpoint(str(tmp_path / "a.pkl"), "key")["model"]["a"].sum() == 0
        return
    with pytest.raises(ValueError, match=r"\(key\), but it") as error:
        read_checkpoint(str(tmp_path / "a.pkl"), "key")
    assert what in str(error.value)


# --- What a refusal reads -------------------------------------------------------------------------


def test_a_foreign_file_is_not_read_to_its_end(tmp_path, monkeypatch):
    torch.save({"model": {"a": torch.zeros(1 << 20)}, "x": Call(eval, "1")}, tmp_path / "a.pth")
    read = []
    original = zipfile.ZipExtFile.read

    def counted(self, n=-1):
        data = original(self, n)
        read.append(len(data))
        return data

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counted)
    with pytest.raises(ValueError, match="contains builtins.eval"):
        read_checkpoint(str(tmp_path / "a.pth"), "key")
    assert 0 < sum(read) < 10_000  # its pickle, and none of the four million bytes of its tensor
