"""One driver for each study and trial store: a lease that lies in the store and is renewed by a heartbeat.

    .leases/<study>.<generation>    who drives the study, and a counter that the driver moves

Whoever made the highest generation drives. The next one is made by a write that fails where the object is there
already, so of two drivers one gets it, in a folder and in S3 alike. Clocks of two machines are never compared: a driver
is dead when its object has not changed for `DEAD_AFTER_S` by the clock of the one who waits, or, on its own machine,
when its process is gone.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError, SweepError
from pipeline.results.objects import Objects
from pipeline.results.store import TrialStore
from pipeline.sweep.workers import meanwhile, word_of

FOLDER = ".leases"

HEARTBEAT_S = 5.0
"""Between two renewals."""

DEAD_AFTER_S = 30.0
"""A lease that has not moved for so long is taken over; six renewals in a row have failed then."""


@contextlib.contextmanager
def sweep_lease(
    store: TrialStore, study: str, *, wait: bool = False, say: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold the lease of a study while the body runs; the body is interrupted if another driver takes it over.

    Args:
        store: Where trained settings are kept.
        study: Its name.
        wait: Whether to wait for another driver to end, and to take over if it is dead; else it is an error.
        say: Where a line goes that says who is waited for; None is standard error.

    Raises:
        SweepError: If another driver holds the lease, or has taken it over meanwhile.
        StoreError: If the store cannot be read or written.
        KeyboardInterrupt: As an error of the package, if the body raises it.
        PipelineError: The same.
    """
    lease = Lease(store.objects.below(FOLDER).hasty(), study)  # the next beat comes anyway
    while (holder := lease.acquire()) is not None:
        if not wait:
            raise SweepError(
                f"study {study!r} is being swept already by {holder} (trial store {store.objects.where}); end it, or "
                "run with --wait: that takes over when it ends or is dead; finished trials are kept"
            )
        (say or _say)(f"study {study!r} is being swept by {holder}: waiting for it to end, or to show no sign of life")
        lease.wait()
    try:
        with meanwhile(lease.beat, HEARTBEAT_S, HEARTBEAT_S):
            yield
    finally:
        lease.release()


def driver_of(objects: Objects, study: str, now_ns: int) -> str | None:
    """Return who sweeps a study; None where nobody does, or shows no sign of life.

    Args:
        objects: Of the trial store.
        study: Its name.
        now_ns: By the clock of the store.

    Raises:
        StoreError: If the store cannot be read.
    """
    leases = objects.below(FOLDER)
    found = leases.listing()
    name = _name(study, max(_generations(found, study), default=0))
    content = leases.read(name) if name in found else None
    if content is None or _has_ended(word_of(content)):
        return None
    return describe(content) if now_ns - found[name].modified_ns < DEAD_AFTER_S * 1e9 else None


def _generations(names: Iterable[str], study: str) -> list[int]:
    """Return the generations of a study's lease that there are."""
    found = [name.rpartition(".") for name in names]
    return [int(number) for of, _, number in found if of == study and number.isdecimal()]


def _name(study: str, generation: int) -> str:
    return f"{study}.{generation:08d}"


class Lease:
    """The lease of one study, held or wanted by this process.

    Attributes:
        generation: That which this process made or is waiting for; 0 where there has been none.
        is_lost: Whether another driver has taken the lease over from this process.
    """

    def __init__(self, objects: Objects, study: str) -> None:
        self.generation, self.is_lost = 0, False
        self._objects, self._study, self._counter, self._seen = objects, study, 0, b""
        self._since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._silent_since: float | None = None

    def acquire(self) -> str | None:
        """Take the lease if it is free or its holder is dead, and return None; else return who holds it."""
        while True:
            newest = self._newest()
            content = self._objects.read(self._name(newest)) if newest else None
            if content is None and newest and self._newest() != newest:
                continue  # taken over between the two
            if content is not None and not self._is_free(content, newest):
                return describe(content)
            if not self._objects.create(self._name(newest + 1), self._content()):
                continue  # another driver was faster
            if (found := self._newest()) == newest + 1:
                self.generation = found
                self._forget_older()
                return None
            self._objects.delete(self._name(newest + 1))  # one that a later driver had removed already

    def wait(self) -> None:
        """Return when it is worth another try to take the lease."""
        while True:
            time.sleep(min(1.0, HEARTBEAT_S))
            with contextlib.suppress(StoreError):  # a store that is away for a while
                newest = self._newest()
                content = self._objects.read(self._name(newest))
                if content is None or self._is_free(content, newest):
                    return

    def beat(self) -> str | None:
        """Renew the lease, or say who has taken it over.

        Raises:
            StoreError: If the store is away: the next beat comes, and the trials themselves say what is wrong.
        """
        if (newest := self._newest()) > self.generation:
            by = describe(self._objects.read(self._name(newest)) or b"")
            self.is_lost = True
            silent = f"since this driver showed no sign of life for {DEAD_AFTER_S:.0f} s"
            return f"study {self._study!r} was taken over by {by}, {silent}; finished trials are kept"
        self._counter += 1
        self._objects.write(self._name(self.generation), self._content())
        return None

    def release(self) -> None:
        """Say that nobody holds the lease; its generation stays, so that they only ever grow."""
        if not self.is_lost:
            with contextlib.suppress(StoreError):  # another driver then waits until the lease is old
                self._objects.write(self._name(self.generation), self._content(released=True))

    def _is_free(self, content: bytes, generation: int) -> bool:
        """Return whether its holder has ended: says so, is gone from this machine, or has been silent for long."""
        if (generation, content) != (self.generation, self._seen) or self._silent_since is None:
            self.generation, self._seen, self._silent_since = generation, content, time.monotonic()
        if (ended := _has_ended(word_of(content))) is not None:
            return ended
        return time.monotonic() - self._silent_since >= DEAD_AFTER_S

    def _newest(self) -> int:
        """Return the highest generation that there is, or 0."""
        return max(_generations(self._objects.names(), self._study), default=0)

    def _forget_older(self) -> None:
        for generation in _generations(self._objects.names(), self._study):
            if generation < self.generation:
                self._objects.delete(self._name(generation))

    def _name(self, generation: int) -> str:
        return _name(self._study, generation)

    def _content(self, *, released: bool = False) -> bytes:
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": self._since,
            "machine": this_machine(),
            "started": process_started(os.getpid()),
            "counter": self._counter,
            "released": released,
        }
        return json.dumps(holder).encode()


def _has_ended(found: Mapping[str, Any]) -> bool | None:
    """Return whether a holder says so or is gone from this machine; None where another machine's says nothing."""
    if found.get("released"):
        return True
    machine = this_machine()
    if machine is not None and found.get("machine") == machine and isinstance(found.get("pid"), int):
        return process_started(found["pid"]) != found.get("started")
    return None


def describe(content: bytes) -> str:
    """Return «pid 17 on node-3 since 2026-01-01T00:00:00+00:00», or that it cannot be said."""
    found = word_of(content)
    if not {"pid", "host", "since"} <= set(found):
        return "another driver, whose lease cannot be read"
    return f"pid {found['pid']} on {found['host']} since {found['since']}"


def this_machine() -> str | None:
    """Return what tells this machine, since it started, from all others; None where the system does not say.

    Two containers of one machine do not see each other's processes, and count as two.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def process_started(pid: int) -> str | None:
    """Return when a process of this machine started, in ticks since the machine did; None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]  # a dead process that nobody has waited for yet


def _say(line: str) -> None:
    print(f"sweep: {line}", file=sys.stderr, flush=True)
