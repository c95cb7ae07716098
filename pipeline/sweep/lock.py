"""One sweep at a time for each study and results folder, by a lock that the operating system lets go of itself.

`kill -9` of `dvc repro` leaves its sweep running: the next `dvc repro` must not start a second one beside it.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import SweepError


@contextlib.contextmanager
def sweep_lock(path: Path, study: str) -> Iterator[None]:
    """Hold the lock file while the body runs; it is free again when this process ends, however it ends.

    Args:
        path: The lock file; it stays, only the lock on it goes.
        study: For the message.

    Raises:
        SweepError: If another process holds it, or the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise SweepError(f"{path}: the lock of study {study!r} cannot be made: {error.strerror}") from error
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SweepError(_held(path, study, file.read().strip())) from None
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()} since {started}\n")
        file.flush()
        yield


def _held(path: Path, study: str, holder: str) -> str:
    return (
        f"study {study!r} is being swept already by {holder or 'another process'} (lock {path}); wait for it "
        "or end it, then run again: finished trials are kept"
    )
