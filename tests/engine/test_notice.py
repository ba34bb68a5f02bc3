"""Notices are received from the moment on at which there is somebody to receive them."""

import os
import signal
import threading
import time

from mimdet.engine.notice import Notice


def test_a_notice_that_comes_while_its_listener_starts_is_not_forgotten(monkeypatch):
    notice = Notice()
    start = threading.Thread.start

    def start_and_be_noticed(thread):
        start(thread)
        monkeypatch.undo()
        os.kill(os.getpid(), signal.SIGUSR1)
        end = time.monotonic() + 5
        while notice.signal is None and time.monotonic() < end:
            time.sleep(0.01)

    with notice.answered_by(None):
        monkeypatch.setattr(threading.Thread, "start", start_and_be_noticed)
        with notice.heeded():
            assert notice.signal == signal.SIGUSR1
