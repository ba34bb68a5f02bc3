"""The processes that a run starts itself: they end together, by a notice, a failure or Ctrl-C."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from detectron2 import engine
from mimdet.engine.notice import (
    NOTICE,
    PREEMPTED,
    PREEMPTED_SIGN,
    SIGNALS,
    end_at_once,
    until_notice,
)

_BLOCKED = (*SIGNALS, signal.SIGINT)
_FAILED_SIGN = "failed"
_ENDED_SIGN = "ended"  # holds an exit code and, if a process left one, a sentence for the user


def start_ranks(
    main: Callable[..., Any],
    num_gpus: int,
    num_machines: int,
    machine_rank: int,
    dist_url: str | None,
    args: tuple,
) -> None:
    """`detectron2.engine.launch`, with an answer to signals.

    A notice (`mimdet.engine.notice`) is passed on to the processes of this machine; Ctrl-C ends
    them at once, and only this process says so.

    Raises:
        SystemExit: with `PREEMPTED` after a notice, with 130 after Ctrl-C; with the code of a
            process that has ended by one, behind whose sentence (a full disk) nothing is printed.
    """
    if num_gpus * num_machines == 1:
        with NOTICE.heeded():
            here = (main, num_gpus, num_machines, machine_rank, dist_url, args)
            if code := until_notice(engine.launch, here):
                raise SystemExit(code)
        return
    with tempfile.TemporaryDirectory(prefix="mimdet_") as folder:
        signs = Path(folder)
        with NOTICE.heeded(more=[signal.SIGINT]), NOTICE.answered_by(partial(_pass_on, signs)):
            # Processes are born with the mask of this thread: what comes while they import torch
            # waits until they can answer it. Here another thread receives it.
            signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
            try:
                rank_args = (main, args, signs)
                engine.launch(_rank, num_gpus, num_machines, machine_rank, dist_url, rank_args)
            except Exception:
                if not (signs / PREEMPTED_SIGN).exists():
                    _end_as_told(signs)
                    raise
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)
        if (signs / PREEMPTED_SIGN).exists():
            print((signs / PREEMPTED_SIGN).read_text(encoding="utf-8"), end="")
            raise SystemExit(PREEMPTED)


def _end_as_told(signs: Path) -> None:
    if (signs / _ENDED_SIGN).exists():
        code, _, sentence = (signs / _ENDED_SIGN).read_text(encoding="utf-8").partition(" ")
        if sentence:
            print(sentence, file=sys.stderr)
        raise SystemExit(int(code)) from None


def _pass_on(signs: Path) -> None:
    is_interrupt = NOTICE.signal == signal.SIGINT
    if is_interrupt:
        (signs / _FAILED_SIGN).touch()  # makes SIGTERM an order, which ends their workers too
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGTERM if is_interrupt else NOTICE.signal)
    if is_interrupt:
        # Lets them end by themselves, each with its workers, before the rest are killed.
        time.sleep(1.0)
        # By hand, because os._exit skips the end of the block in `start_ranks`.
        shutil.rmtree(signs)
        print("Interrupted: all processes of this machine have ended", file=sys.stderr)
        end_at_once(128 + signal.SIGINT)  # and with it the processes that still import torch


def _rank(main: Callable[..., Any], args: tuple, signs: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C comes to all; the parent answers it
    with NOTICE.heeded(signs):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _BLOCKED)
        try:
            if until_notice(main, args):
                (signs / PREEMPTED_SIGN).touch()
        except SystemExit as e:
            code, sentence = (e.code, "") if isinstance(e.code, int) else (1, str(e.code))
            # Of the first one alone: what the others say follows from its end.
            with contextlib.suppress(FileExistsError), open(signs / _ENDED_SIGN, "x") as sign:
                sign.write(f"{code} {sentence}")
            (signs / _FAILED_SIGN).touch()
            raise SystemExit(code) from None
        except BaseException:
            (signs / _FAILED_SIGN).touch()
            raise
