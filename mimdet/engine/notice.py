"""The notice that a process has to end soon: SIGTERM, or SIGUSR1, as schedulers send them."""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

PREEMPTED = 75
"""Exit code of a run that a notice has ended and that ``--resume`` goes on with.

It is EX_TEMPFAIL of sysexits.h, "the user is invited to retry", and no code of Python, a shell or a
signal, so that a script can test for it.
"""

HOW_TO_GO_ON = f"to go on, start the same command with --resume (exit code {PREEMPTED})"

PREEMPTED_SIGN = "preempted"
"""Name of the file in the folder of signs that tells of a notice, and may hold a last word."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

# One notice may come twice: to the whole group, and passed on by the process that started this one.
_SECONDS_OF_ONE_NOTICE = 1.0


class Notice:
    """The first of the `SIGNALS` that this process receives, and what answers it.

    A thread receives them, because the main one may be inside a call that does not return soon: an
    evaluation, or a collective operation that waits for another process. As long as nothing else is
    asked for, a notice ends the process at once: there is nothing to be saved yet.

    A second one ends the process at once in any case.

    Attributes:
        signal: what was received, or None.
        follows_rank_0: whether rank 0 answers for this process: it ends without asking.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self.follows_rank_0 = False
        self._lock = threading.Lock()
        self._answer: Callable[[], None] | None = self._end_in_start
        self._signs: Path | None = None
        self._is_heeded = False

    @contextlib.contextmanager
    def heeded(self, signs: Path | None = None, more: Iterable[int] = ()) -> Iterator[None]:
        """Receive notices within a block; to be called in the main thread.

        Args:
            signs: the folder of `start_ranks` in which a process leaves a file when it ends: if
                there is one, a signal is the order to follow it.
            more: other signals that are to be taken for a notice.
        """
        if self._is_heeded or threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = {*SIGNALS, *more}
        # Before anything is received, which would be forgotten by this afterwards.
        self.signal, self._signs, self._is_heeded = None, signs, True
        read, write = os.pipe()
        # set_wakeup_fd refuses a blocking one: no signal must ever wait for room in the pipe.
        os.set_blocking(write, False)
        # The handlers do nothing: what is wanted of them is that Python writes into the pipe.
        before = {number: signal.signal(number, _nothing) for number in numbers}
        fd_before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        listener = threading.Thread(target=self._listen, args=(read, numbers), daemon=True)
        listener.start()
        try:
            yield
        finally:
            self.signal, self._is_heeded = None, False
            # In this order nothing is written into a pipe that is closed, and the listener ends
            # after the last signal that was written: 0 is the number of none.
            signal.set_wakeup_fd(fd_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.write(write, b"\0")
            listener.join()
            os.close(read), os.close(write)

    @contextlib.contextmanager
    def answered_by(self, answer: Callable[[], None] | None) -> Iterator[None]:
        """Let a function answer a notice within a block, in another thread; or note it, with None.

        The block does not end while the function runs. A notice that came before it and was only
        noted is answered at once.
        """
        with self._lock:
            self._answer, before = answer, self._answer
            if answer and self.signal:
                answer()
        try:
            yield
        finally:
            with self._lock:
                self._answer = before

    def end(self, message: str = "") -> None:
        """End this process with exit code `PREEMPTED`, whatever its main thread is doing.

        The message is printed, by the parent process if that has started several.
        """
        if self._signs:
            self._signs.joinpath(PREEMPTED_SIGN).write_text(message, encoding="utf-8")
        elif message:
            print(message, flush=True)
        end_at_once(PREEMPTED)

    def _end_in_start(self) -> None:
        name = self.signal.name
        self.end(f"{name} came when there was nothing to be saved; {HOW_TO_GO_ON}")

    def _listen(self, pipe: int, numbers: set[int]) -> None:
        while number := os.read(pipe, 1)[0]:
            if number in numbers:
                self._receive(number)

    def _receive(self, number: int) -> None:
        now = time.monotonic()
        others_end = self._signs is not None and any(self._signs.iterdir())
        if others_end or (self.signal and now > self._since + _SECONDS_OF_ONE_NOTICE):
            end_at_once(128 + number)  # as a shell tells that a signal has ended a process
        if self.signal is None:
            self.signal, self._since = signal.Signals(number), now
            # In a thread of its own, because this one listens for the second.
            threading.Thread(target=self._act, daemon=True).start()

    def _act(self) -> None:
        with self._lock:
            try:
                if self._answer:
                    self._answer()
            except BaseException as e:  # a full disk, for instance; a thread would keep it back
                print(e, file=sys.stderr)
                end_at_once(1)


NOTICE = Notice()
"""That of this process: signals belong to a process, not to a part of it."""


def until_notice(main: Callable[..., Any], args: tuple) -> int:
    """Run a function -> 0, or `PREEMPTED` if it has ended because of a notice."""
    try:
        main(*args)
    except SystemExit as e:
        if e.code != PREEMPTED:
            raise
        return PREEMPTED
    except Exception as e:
        if NOTICE.signal is None or not NOTICE.follows_rank_0:
            raise
        logger.info(f"Ended together with rank 0, of which this rank saw: {e!r:.300}")
        return PREEMPTED
    return 0


def end_at_once(code: int) -> None:
    """End this process and those that it has started, whatever their threads are doing."""
    # os._exit skips atexit, where multiprocessing would end the workers of loaders.
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


def _let_workers_live() -> None:
    """Let a forked process, a worker of a loader, live on through signals to the whole group.

    The iteration that is to be finished may still need its images. Only its parent ends it.
    """
    if not NOTICE._is_heeded:
        return
    NOTICE._is_heeded = False
    signal.set_wakeup_fd(-1)  # the pipe is that of the parent
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # Blocked and taken by a thread, because a handler is not told who has sent a signal. The thread
    # is started afterwards and inherits the mask, without which the signal would end the process.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(parent: int) -> None:
    while os.getppid() == parent:  # or it was killed, and nobody needs the worker any more
        received = signal.sigtimedwait({signal.SIGTERM}, 1.0)
        if received and received.si_pid == parent:
            break
    os._exit(0)


os.register_at_fork(after_in_child=_let_workers_live)
