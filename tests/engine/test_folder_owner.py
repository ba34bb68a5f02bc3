"""The lock of a folder: who has it, and when it is a dead process's."""

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace

import pytest

from mimdet.engine.folder_owner import LOCK, InUse, Owner, owned, owner_of

OWN = """
import sys, time
from mimdet.engine.folder_owner import owned
with owned(sys.argv[1]):
    print("owned", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def other_owner(folder) -> Iterator[subprocess.Popen]:
    """Another process that owns a folder until its standard input is closed."""
    command = [sys.executable, "-c", OWN, str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "owned\n"
        try:
            yield process
        finally:
            process.kill()


def left(folder, **changes) -> None:
    """A lock file that nobody's kernel knows."""
    owner = replace(Owner.this(), **changes)
    (folder / LOCK).write_text(json.dumps(asdict(owner)))


def no_locks(file, flags) -> None:
    raise OSError(38, "Function not implemented")


def test_a_folder_is_free_after_the_block_however_it_ends(tmp_path):
    with pytest.raises(KeyboardInterrupt), owned(tmp_path) as former:
        assert former is None
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    assert owner_of(tmp_path) is None


def test_a_second_owner_is_refused_with_process_and_machine(tmp_path):
    with other_owner(tmp_path) as process:
        assert owner_of(tmp_path).pid == process.pid
        name = re.escape(f"process {process.pid} on {socket.gethostname()} (since ")
        with pytest.raises(InUse, match=f"{name}.*wait for its end, or name another folder"):
            with owned(tmp_path):
                pass
        assert (tmp_path / LOCK).exists()
        process.stdin.close()
        process.wait()
        with owned(tmp_path) as former:
            assert former is None


def test_the_lock_of_a_killed_owner_is_taken_over(tmp_path):
    with other_owner(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert owner_of(tmp_path) is None
        with owned(tmp_path) as former:
            assert former.pid == process.pid
    assert not list(tmp_path.iterdir())


# The parent of the tests lives, and has not written the file: the number was given again.
@pytest.mark.parametrize("locks", [True, False])
def test_a_number_that_another_process_has_now_is_no_owner(tmp_path, monkeypatch, locks):
    left(tmp_path, pid=os.getppid(), started=1)
    if not locks:
        monkeypatch.setattr(fcntl, "lockf", no_locks)
    assert owner_of(tmp_path) is None
    with owned(tmp_path) as former:
        assert former.pid == os.getppid()


def test_without_locks_of_the_kernel_a_living_process_keeps_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "lockf", no_locks)
    left(tmp_path)
    assert owner_of(tmp_path) == Owner(**json.loads((tmp_path / LOCK).read_text()))
    with pytest.raises(InUse), owned(tmp_path):
        pass
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    left(tmp_path, pid=process.pid)
    with owned(tmp_path):
        pass


def test_another_machine_is_believed_and_how_to_remove_its_lock_is_said(tmp_path):
    left(tmp_path, host="node7", pid=1)
    remedy = f"process 1 on node7 .* this machine cannot see, remove {tmp_path / LOCK}$"
    with pytest.raises(InUse, match=remedy), owned(tmp_path):
        pass
    assert (tmp_path / LOCK).exists()


@pytest.mark.parametrize("job, restarts, lives", [("7", 1, False), ("7", 0, True), ("8", 1, True)])
def test_a_requeued_job_takes_over_from_its_earlier_start(
    tmp_path, monkeypatch, job, restarts, lives
):
    left(tmp_path, host="node7", job="7", restarts=0)
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    assert (owner_of(tmp_path) is not None) == lives


@pytest.mark.parametrize("content", ["", "{}", "[1]", "no JSON", '{"host": "a"}'])
def test_a_file_that_names_nobody_is_taken_over(tmp_path, content, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    (tmp_path / LOCK).write_text(content)
    with owned(tmp_path) as former:
        assert former is None
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_an_owner_whose_file_was_removed_by_hand_leaves_that_of_the_next(tmp_path):
    with owned(tmp_path):
        (tmp_path / LOCK).unlink()
        with other_owner(tmp_path) as process:
            kept = (tmp_path / LOCK).read_text()
            assert json.loads(kept)["pid"] == process.pid
    assert (tmp_path / LOCK).read_text() == kept


def test_a_folder_that_was_deleted_is_no_error_at_the_end(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with owned(folder):
        (folder / LOCK).unlink()
        folder.rmdir()


def test_a_lock_that_a_full_disk_does_not_take_is_named_and_not_left(tmp_path, monkeypatch):
    def full(content, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / LOCK}'"):
        with owned(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


def test_the_owner_is_found_in_a_file_that_may_only_be_read(tmp_path, monkeypatch):
    modes, real = [], open

    def noted(path, mode="r", *args, **kwargs):
        modes.append(mode)
        return real(path, mode, *args, **kwargs)

    with other_owner(tmp_path) as process:
        monkeypatch.setattr("builtins.open", noted)
        assert owner_of(tmp_path).pid == process.pid
        monkeypatch.undo()
    assert set(modes) == {"r"}
