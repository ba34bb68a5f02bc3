"""A folder has one owner: the training that holds its lock, a file that says who that is.

The file is made exclusively, which NFS keeps too, and the kernel's lock on it tells whether the
process in it still lives. The file of a process that has died is taken over.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

LOCK = "run.lock"


@dataclass(frozen=True)
class Owner:
    """The process that a lock names.

    Attributes:
        host: its machine.
        pid: its number there.
        started: when it started, in the kernel's ticks; a number is given to another process later.
        since: when it took the folder, for people.
        job: SLURM's number of its job, "" without SLURM.
        restarts: how often SLURM had requeued that job.
    """

    host: str
    pid: int
    started: int | None
    since: str
    job: str = ""
    restarts: int = 0

    @classmethod
    def this(cls) -> "Owner":
        """This process."""
        return cls(
            socket.gethostname(),
            os.getpid(),
            _start_of(os.getpid()),
            time.strftime("%Y-%m-%d %H:%M:%S"),
            os.environ.get("SLURM_JOB_ID", ""),
            int(os.environ.get("SLURM_RESTART_COUNT") or 0),
        )

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (since {self.since})"


class InUse(ValueError):
    """A folder belongs to another training."""


def owner_of(folder: str | os.PathLike) -> Owner | None:
    """The process that owns a folder and lives, or may live on another machine; None without one.

    Not to be asked by the owner itself, whose lock would go with the file that is closed here.
    """
    # read only, because another user's training may be evaluated
    with contextlib.suppress(FileNotFoundError), open(Path(folder, LOCK)) as file:
        owner, lives = _look(file)
        return owner if lives else None
    return None


@contextlib.contextmanager
def owned(folder: str | os.PathLike) -> Iterator[Owner | None]:
    """Own a folder until the block ends, however it ends.

    Yields:
        The owner that died without freeing it, if there was one.

    Raises:
        InUse: if it belongs to a process that lives, or may live on another machine.
        OSError: if no file can be written there.
    """
    path = Path(folder, LOCK)
    file, former = None, None
    while file is None:
        file, former = _attempt(path)
    with file:
        try:
            yield former
        finally:
            # While the kernel's lock is still ours, so that nobody else has taken the folder; but
            # somebody may have removed the file by hand, and another run be its owner now.
            with contextlib.suppress(OSError):
                if _is_at(file, path):
                    os.unlink(path)


def _attempt(path: Path) -> tuple[IO[str] | None, Owner | None]:
    """Make or open the lock file and write this process into it.

    Returns:
        The open file and a dead former owner; (None, None) where the file has just been removed by
        an owner that ended, so that the next attempt may find nobody.
    """
    try:
        file = open(path, "x+")
        is_new = True
    except FileExistsError:
        try:
            file = open(path, "r+")
        except FileNotFoundError:
            return None, None
        is_new = False
    try:
        former, lives = _look(file, is_new)
        if lives:
            raise in_use(former, path.parent)
        # Locked, but perhaps on a file that its owner removed after it was opened here: that lock
        # keeps nobody out of the folder.
        if not _is_at(file, path):
            file.close()
            return None, None
        _write(file)
    except BaseException:
        with contextlib.suppress(OSError):  # what a full disk has not taken is tried again
            file.close()
        raise
    return file, former


def _write(file: IO[str]) -> None:
    """Let a lock file name this process."""
    try:
        file.seek(0)
        file.truncate()
        json.dump(asdict(Owner.this()), file)
        file.flush()
    except OSError as e:  # which names no file
        os.unlink(file.name)  # ours: nobody else has the kernel's lock on it
        raise OSError(e.errno, e.strerror, file.name) from e


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _look(file: IO[str], is_new: bool = False) -> tuple[Owner | None, bool]:
    """Who a lock file names, and whether it lives; if not, the kernel's lock is ours now."""
    is_free = _lock(file)
    text = file.read()
    # Whoever made the file locks it a moment later, so it may be locked here first, still empty.
    # The one who made it then finds the lock taken and is refused: there is one owner in any order.
    if not (text or is_new):  # another machine may just be about to write it
        time.sleep(1)
        text = file.read()
    owner = _parse(text)
    if is_free is False or owner is None:
        return owner, is_free is False
    if owner.host != socket.gethostname():
        # A kernel's lock may hold on its own machine only. But of a job that was requeued, SLURM
        # has ended the earlier start.
        this = Owner.this()
        return owner, not (owner.job and owner.job == this.job and owner.restarts < this.restarts)
    return owner, is_free is None and _runs(owner)


def _lock(file: IO[str]) -> bool | None:
    """Take the kernel's lock on a file; False if another process has it, None if there are none.

    It goes with the process, however that ends. A lock of `lockf` and not of `flock`: the workers
    of a loader, which may outlive a killed training for seconds, do not inherit it.
    """
    # An exclusive lock needs a file that is open for writing (fcntl(2), EBADF).
    kind = fcntl.LOCK_EX if file.writable() else fcntl.LOCK_SH
    try:
        fcntl.lockf(file, kind | fcntl.LOCK_NB)
    except OSError as e:
        # POSIX leaves open which of the two tells of another's lock. Anything else, such as ENOLCK
        # or EOPNOTSUPP, means that this file system has no locks.
        return False if e.errno in (errno.EACCES, errno.EAGAIN) else None
    return True


def _parse(text: str) -> Owner | None:
    try:
        return Owner(**json.loads(text))
    except (ValueError, TypeError):
        return None


def _runs(owner: Owner) -> bool:
    """Whether a process of this machine is still the one that took the folder."""
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    # The number may have been given to another process since.
    return _start_of(owner.pid) == owner.started


def _start_of(pid: int) -> int | None:
    """When a process started, in ticks since the machine did; None if the system does not say."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # Field 22 of proc(5), counted here from field 3, the state.
    return int(text.rpartition(")")[2].split()[19])  # behind the name, which may hold anything


def in_use(owner: Owner | None, folder: str | os.PathLike) -> InUse:
    """The error for a folder that belongs to `owner`; None if that has not yet written its name."""
    message = (
        f"train.output_dir={str(folder)!r} is used by another training, "
        f"{owner or 'which has just begun'}: their files would mix; wait for its end, or name "
        "another folder (train.output_dir=...)"
    )
    if owner and owner.host != socket.gethostname():
        message += f". If it has ended, which this machine cannot see, remove {Path(folder, LOCK)}"
    return InUse(message)
