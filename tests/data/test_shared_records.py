"""Records in memory that processes share."""

import dataclasses
import multiprocessing
import os
import pickle

import numpy as np
import pytest

from mimdet.data.shared_records import Place, SharedRecords, once_per_machine, read_once

RECORDS = [{"image_id": k, "annotations": [{"bbox": [1.5] * k}] * k} for k in range(4)]


def memories() -> list[str]:
    """What this process holds open of memory for records."""
    links = (os.readlink(entry) for entry in os.scandir("/proc/self/fd") if entry.is_symlink())
    return [link for link in links if "records" in link]


def test_packed_records_are_read_as_they_were_and_each_time_anew():
    shared = SharedRecords.pack(iter(RECORDS))
    assert len(shared) == 4 and list(shared) == RECORDS
    assert shared[-1] == RECORDS[3] and shared[np.int64(2)] == RECORDS[2]
    shared[3]["annotations"].clear()
    assert shared[3] == RECORDS[3]
    with pytest.raises(IndexError):
        shared[4]


def test_no_records_are_none():
    assert list(SharedRecords.pack([])) == []


def test_a_copy_sees_the_same_memory_and_outlives_the_first():
    shared = SharedRecords.pack(RECORDS)
    size = len(pickle.dumps(shared))
    copy = pickle.loads(pickle.dumps(shared))
    del shared
    assert size < 500 and list(copy) == RECORDS


def test_a_spawned_process_reads_the_memory_of_this_one():
    shared = SharedRecords.pack(RECORDS)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(list, (shared,)) == RECORDS


def test_memory_is_let_go_with_the_records():
    before = memories()
    shared = SharedRecords.pack(RECORDS)
    assert len(memories()) > len(before)
    del shared
    assert memories() == before


def test_memory_of_somebody_else_is_not_read(monkeypatch):
    shared = SharedRecords.pack(RECORDS)
    monkeypatch.setattr(pickle, "loads", None)
    with pytest.raises(OSError, match="is not the memory that was shared"):
        SharedRecords(dataclasses.replace(shared.place, token=bytes(16)))


@pytest.mark.parametrize("path", ["/dev/null", "empty"])
def test_what_cannot_be_memory_is_no_other_error_and_stays_open_nowhere(path, tmp_path):
    (tmp_path / "empty").touch()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="is not the memory that was shared"):
        SharedRecords(Place(str(tmp_path / path), bytes(16), 0))
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_process_does_and_loads_itself():
    assert once_per_machine(lambda: 7) == 7
    assert list(read_once(lambda: list(RECORDS))) == RECORDS
    assert read_once(lambda: "a dataset of its own") == "a dataset of its own"
