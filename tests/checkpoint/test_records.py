"""A damaged checkpoint is refused, whichever way it is read."""

import random
import zipfile

import pytest
import torch

from mimdet.checkpoint.file import read_checkpoint
from mimdet.checkpoint.records import damage_of_records


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "whole.pth"
    content = {"model": {f"w{i}": torch.arange(400.0) + i for i in range(4)}, "iteration": 4}
    torch.save(content, path)
    return path


def same(a, b) -> bool:
    return a["iteration"] == b["iteration"] and all(
        torch.equal(value, b["model"][name]) for name, value in a["model"].items()
    )


@pytest.mark.parametrize("mapped", [False, True])
def test_a_flipped_bit_is_never_another_weight(whole, tmp_path, mapped):
    data, content = whole.read_bytes(), torch.load(whole, weights_only=True)
    damaged, rng, refused = tmp_path / "damaged.pth", random.Random(0), 0
    for _ in range(60):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        damaged.write_bytes(flipped)
        try:
            assert same(read_checkpoint(str(damaged), "key", mapped), content)  # in the padding
        except ValueError as e:
            assert str(damaged) in str(e)
            refused += 1
    assert refused > 40


def test_the_record_is_named(whole):
    with zipfile.ZipFile(whole) as archive:
        record = archive.getinfo("whole/data/2")
    data = bytearray(whole.read_bytes())
    # behind the local header of 30 bytes: the name, the extra field that torch aligns with
    start = record.header_offset
    start += 30 + sum(int.from_bytes(data[start + i : start + i + 2], "little") for i in (26, 28))
    data[start] ^= 1
    whole.write_bytes(data)
    message = (
        rf"{whole} must be a torch checkpoint of tensors \(key\), but it is damaged \(record "
        r"'whole/data/2' does not match its checksum\): fetch or save it again"
    )
    with pytest.raises(ValueError, match=message):
        read_checkpoint(str(whole), "key")


def test_a_file_that_was_saved_without_checksums_is_read(tmp_path):
    path = tmp_path / "model.pth"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint(str(path), "key")["a"].tolist() == [1, 1, 1]


def test_other_archives_are_left_to_their_reader(tmp_path):
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", "a" * 99)
    assert damage_of_records(str(path)) is None
