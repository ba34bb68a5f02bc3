"""Where the processes of a job meet, and what they say while they wait for each other."""

import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from urllib.parse import urlsplit

import torch.distributed as dist

from mimdet.engine.job import Job

TIMEOUT = timedelta(minutes=30)  # that of Detectron2
PERIOD = 30.0  # seconds from one word about waiting to the next


def meet(job: Job, device: str = "", period: float = PERIOD) -> dist.Store:
    """A store that all processes of a job share, once all of them have come.

    Args:
        job: of this process.
        device: what only this process may use on its machine, such as a GPU; "" for nothing.
        period: seconds between two messages about those who are missing.

    Raises:
        ValueError: if two processes have come with the same device.
        TimeoutError: if some have not come within 30 minutes.
    """
    place = job.meeting_point
    awaited = "rank 0" if job.rank else "the other ranks"
    with repeated(f"{job.starter}: waiting for {awaited} of {job.world_size} at {place}", period):
        if job.starter == "torchrun":
            store, _, _ = next(dist.rendezvous(place, job.rank, job.world_size, timeout=TIMEOUT))
            store = dist.PrefixStore(_agree_on_name(store, job), store)
        else:
            store = _tcp_store(place, is_host=job.rank == 0)
    roll_call(store, "process", job.rank, job.world_size, place, period)
    if device:
        _check_devices(store, job, f"{socket.gethostname()} {device}")
    return store


def _tcp_store(url: str, is_host: bool) -> dist.Store:
    parts = urlsplit(url)
    # By default the host would wait for the others in silence, without knowing who is missing.
    return dist.TCPStore(
        parts.hostname, parts.port, is_master=is_host, timeout=TIMEOUT, wait_for_workers=False
    )


def roll_call(
    store: dist.Store, kind: str, number: int, total: int, place: str, period: float = PERIOD
) -> None:
    """Come as one of `total`, and return when all have; say now and then who is missing.

    Args:
        store: of all of them.
        kind: "process" or "machine", of which `number` is one.
        number: from 0.
        total: how many must come.
        place: where they meet, for messages.
        period: seconds between two messages.

    Raises:
        TimeoutError: if some have not come within 30 minutes.
    """
    store.set(f"{kind}/{number}", "")
    plural = "processes" if kind == "process" else f"{kind}s"
    missing = set(range(total))
    start = time.monotonic()
    words = 0
    # Asked, because the store's own `wait` does not tell who is missing when its time is over.
    while missing := {n for n in missing if not store.check([f"{kind}/{n}"])}:
        waited = time.monotonic() - start
        who = f"{len(missing)} of {total} {plural} at {place}, {waited:.0f} s (missing: {missing})"
        if waited > TIMEOUT.total_seconds():
            raise TimeoutError(f"waited in vain for {who}; see the output of those")
        if waited > (words + 1) * period:
            words += 1
            print(f"waiting for {who}", flush=True)
        time.sleep(0.02)


def _check_devices(store: dist.Store, job: Job, device: str) -> None:
    """Refuse two processes on one GPU, on which NCCL would fail without a word about the cause."""
    # `get` waits for a key that is not there yet. All have come, so all will set theirs.
    store.set(f"device/{job.rank}", device)
    devices = [store.get(f"device/{rank}").decode() for rank in range(job.world_size)]
    first = devices.index(device)
    if devices.count(device) > 1:
        second = devices.index(device, first + 1)
        raise ValueError(
            f"{job.starter}: ranks {first} and {second} see the same GPU ({device}); start as many "
            "processes on a machine as it has GPUs, and give each its own (--gpus-per-task=1)"
        )


def _agree_on_name(store: dist.Store, job: Job) -> str:
    """A name for this start of the job, which no earlier one has used.

    torchrun keeps its store when it starts the processes again, and with it the addresses of those
    that have died. Machines may count restarts differently, so rank 0 draws a name. The others
    cannot take it for an older one: it comes as the answer to a word that each draws anew.
    """
    word = uuid.uuid4().hex
    if job.rank > 0:
        store.set(f"asked/{job.rank}", word)
        try:
            store.wait([f"answer/{word}"], TIMEOUT)
        except dist.DistStoreError as e:
            raise TimeoutError("waited in vain for rank 0; see its output") from e
        name = store.get(f"answer/{word}").decode()
        store.set(f"{name}/{job.rank}", "")
        return name
    # A new process overwrites what its predecessor asked, so that its own word gets an answer
    # sooner or later; that it has taken the name is told below a key that no earlier start has
    # written.
    missing = list(range(1, job.world_size))
    end = time.monotonic() + TIMEOUT.total_seconds()
    while missing:
        if time.monotonic() > end:
            raise TimeoutError(f"waited in vain for ranks {missing}; see the output of those")
        for rank in missing:
            if store.check([f"asked/{rank}"]):  # perhaps by one that has died: ask again later
                store.set(f"answer/{store.get(f'asked/{rank}').decode()}", word)
        missing = [rank for rank in missing if not store.check([f"{word}/{rank}"])]
        time.sleep(0.01)
    return word


@contextlib.contextmanager
def announced_machines(
    url: str | None, machine: int, machines: int, period: float = PERIOD
) -> Iterator[None]:
    """Say for which machines this one waits, while Detectron2's `launch` lets them meet at `url`.

    It works from beside: Detectron2 opens the store, in the first process of machine 0.
    """
    ended = threading.Event()
    if machines > 1 and url and url.startswith("tcp://"):
        arguments = (url, machine, machines, period, ended.is_set)
        threading.Thread(target=_announce, args=arguments, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _announce(
    url: str, machine: int, machines: int, period: float, has_ended: Callable[[], bool]
) -> None:
    parts = urlsplit(url)
    with repeated(f"waiting for machine 0 of {machines} at {url}", period):
        # Not by the store's own attempts, which nobody could end.
        while not has_ended() and not _is_open(parts.hostname, parts.port):
            time.sleep(0.1)
    # Where the run has failed, the store goes while this thread still asks it. That failure is
    # told by `launch`; this thread has nothing to add.
    with contextlib.suppress(dist.DistError, TimeoutError):
        if not has_ended():
            store = _tcp_store(url, is_host=False)
            roll_call(store, "machine", machine, machines, url, period)


def _is_open(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def repeated(message: str, period: float = PERIOD) -> Iterator[None]:
    """Print a message and the seconds again and again, until the block ends."""
    ended = threading.Event()
    start = time.monotonic()

    def tell() -> None:
        while not ended.wait(period):
            print(f"{message}, {time.monotonic() - start:.0f} s", flush=True)

    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
