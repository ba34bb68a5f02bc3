"""Records of a dataset in memory that all processes of a machine share (Linux)."""

import contextlib
import mmap
import os
import pickle
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from torch.utils.data import Dataset

from detectron2.utils import comm

T = TypeVar("T")

_TOKEN_BYTES = 16


@dataclass(frozen=True)
class Place:
    """Where records lie.

    Attributes:
        path: of the memory, as other processes of the same user and machine can open it.
        token: the first bytes there. A process in another container may find something else under
            the same path; nobody else's pickles are read.
        ends: where the table of the ends of the records begins.
    """

    path: str
    token: bytes
    ends: int


class SharedRecords(Dataset):
    """Records that one process has packed, and any number of processes read.

    The memory has no name in any folder, so it belongs to this user alone and is free as soon as
    the last of the processes has ended, however it ends. Every access gives a fresh copy.

    Raises:
        OSError: if the memory is not there, or not that of `place`.
    """

    def __init__(self, place: Place):
        self._place = place
        self._file = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            memory = mmap.mmap(self._file, 0, prot=mmap.PROT_READ)
            is_shared = memory[:_TOKEN_BYTES] == place.token
        except (OSError, ValueError):  # of what cannot be mapped, and of an empty file
            is_shared = False
        if not is_shared:
            os.close(self._file)
            raise OSError(f"{place.path} is not the memory that was shared")
        self._memory = memoryview(memory)
        self._ends = np.frombuffer(memory, dtype=np.int64, offset=place.ends)

    @classmethod
    def pack(cls, records: Iterable[Any]) -> "SharedRecords":
        """Put records, which can be pickled, into new memory.

        Raises:
            AttributeError: on systems other than Linux.
        """
        token = secrets.token_bytes(_TOKEN_BYTES)
        with os.fdopen(os.memfd_create("records"), "wb") as f:
            f.write(token)
            ends = [f.tell()]
            for record in records:
                f.write(pickle.dumps(record, protocol=pickle.HIGHEST_PROTOCOL))
                ends.append(f.tell())
            table = ends[-1] + -ends[-1] % 8  # aligned for int64
            f.seek(table)
            f.write(np.array(ends, dtype=np.int64).tobytes())
            # `cls` opens the memory anew and would not see what waits in the buffer of `f`. That
            # second opening keeps the memory when `f` is closed.
            f.flush()
            return cls(Place(f"/proc/{os.getpid()}/fd/{f.fileno()}", token, table))

    @property
    def place(self) -> Place:
        """For other processes, as long as this object is there."""
        return replace(self._place, path=f"/proc/{os.getpid()}/fd/{self._file}")

    def __reduce__(self) -> tuple:
        return SharedRecords, (self.place,)  # for workers that are spawned

    def __del__(self):
        if hasattr(self, "_ends"):
            os.close(self._file)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Any:
        position = range(len(self))[index]  # IndexError beyond the end, as iteration needs it
        start, end = self._ends[position : position + 2].tolist()
        return pickle.loads(self._memory[start:end])


def once_per_machine(do: Callable[[], T]) -> T:
    """``do()`` of the first process of this machine, for all of its processes, which all call this.

    What it returns goes to the others by pickle. Where it fails the others do it themselves, and
    fail in the same way.
    """
    if comm.get_world_size() == 1:
        return do()
    rank = comm.get_local_rank()
    told, error = None, None
    if rank == 0:
        try:
            # in a tuple, so that None as a result is no failure
            told = (do(),)
        except Exception as e:
            error = e
    # The ranks of a machine follow each other, so its first one is `rank` places before.
    told = comm.all_gather(told)[comm.get_rank() - rank]
    # Not before the gathering, in which the others would wait for ever.
    if error is not None:
        raise error
    return told[0] if told else do()


def read_once(load: Callable[[], Any]) -> Any:
    """A dataset that the first process of this machine loads for all, which all call this.

    Args:
        load: gives a list of records, or a dataset that every process has to make itself.

    Returns:
        `SharedRecords` in the place of a list, where the system has such memory.
    """
    own: list[Any] = []  # what this process has loaded itself

    def pack() -> Place | None:
        loaded = load()
        if not (isinstance(loaded, list) and hasattr(os, "memfd_create")):
            own.append(loaded)
            return None
        own.append(SharedRecords.pack(loaded))
        return own[0].place

    place = once_per_machine(pack)
    if not own and place is not None:
        with contextlib.suppress(OSError):  # if every process has a container of its own
            own.append(SharedRecords(place))
    comm.synchronize()  # not before all have opened it may the first process let it go
    return own[0] if own else load()
