"""What workers say of themselves in the trial store as long as they train, for `status` and for the driver.

    .status/<worker>.worker      what, where, since when; how often it has made progress, and how long ago

Progress is a row that a trial writes: of each update, of each evaluation and measurement. It says nothing of what
hangs, be it a data loader, a lock or a call of C. The thread that writes the word may live on in such a process, or
may not (one that is stopped, or holds Python's lock): either way the number of signs no longer moves.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline import stopping
from pipeline.errors import PipelineError, StoreError, SweepError
from pipeline.results.store import TrialStore
from pipeline.sweep.plan import Setting
from pipeline.sweep.progress import duration_text

FOLDER = ".status"

BEAT_S = 5.0
"""Between two words of a driver or a worker."""

SILENT_S = 2.0
"""A worker that is done by then has said nothing: of short trials only the driver tells."""

DEAD_AFTER_S = 30.0
"""A word that was not written again for so long is of a worker that is gone."""

LOOKS = 20
"""In the time after which a worker counts as hanging its driver looks so often, though not more than once a second."""

START_UP = 4
"""So many times as long a worker may take to its first row: it loads data, builds networks, compiles loops."""


@dataclass
class Signs:
    """Of a worker's progress.

    Attributes:
        number: How many there were.
        last_s: When the last one was, by this process's clock.
    """

    number: int = 0
    last_s: float = field(default_factory=time.monotonic)

    def note(self) -> None:
        """Count one more."""
        self.number, self.last_s = self.number + 1, time.monotonic()


@contextlib.contextmanager
def seen(store: TrialStore, settings: Sequence[Setting]) -> Iterator[Signs]:
    """Tell the store what this worker trains while the body runs, unless that is over in a moment.

    Yields:
        Where the body notes its progress.
    """
    objects, name, is_said = store.objects.below(FOLDER), f"{uuid.uuid4().hex}.worker", threading.Event()
    signs = Signs()
    worker = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "trials": [setting.trial_id for setting in settings],
    }

    def tell() -> None:
        is_said.set()
        now = {"signs": signs.number, "silent_s": round(time.monotonic() - signs.last_s, 1)}
        objects.write(name, json.dumps(worker | now).encode())

    try:
        with meanwhile(tell, SILENT_S, BEAT_S):
            yield signs
    finally:
        if is_said.is_set():
            with contextlib.suppress(StoreError):
                objects.delete(name)


@contextlib.contextmanager
def meanwhile(work: Callable[[], str | None], first_s: float, every_s: float) -> Iterator[None]:
    """Work while the body runs, after `first_s` and then every `every_s`; a store that is away is left alone.

    Args:
        work: May return why the body cannot go on, which is then interrupted.
        first_s: Seconds before the first time.
        every_s: Seconds between two times.

    Raises:
        SweepError: If the work has said so.
        KeyboardInterrupt: If something else interrupted the body.
        PipelineError: If the body raises it.
    """
    ended, lost = threading.Event(), list[str]()

    def keep_working() -> None:
        wait_s = first_s
        while not lost and not ended.wait(wait_s):
            wait_s = every_s
            with contextlib.suppress(StoreError):
                if (why := work()) is not None:
                    lost.append(why)
        if lost and not ended.is_set():
            stopping.interrupt(lost[0])

    thread = threading.Thread(target=keep_working, daemon=True)
    thread.start()
    try:
        yield
    except (KeyboardInterrupt, PipelineError):
        if not lost:
            raise
        raise SweepError(lost[0]) from None
    finally:
        ended.set()
        thread.join(min(every_s, BEAT_S))


def living(store: TrialStore, now_ns: int) -> list[dict[str, Any]]:
    """Return the words of the workers that have shown a sign of life.

    Args:
        store: That they train into.
        now_ns: By its clock.

    Raises:
        StoreError: If it cannot be read.
    """
    objects = store.objects.below(FOLDER)
    written = {name: entry.modified_ns for name, entry in objects.listing().items()}
    words = _words(store, [name for name, at_ns in written.items() if now_ns - at_ns < DEAD_AFTER_S * 1e9])
    return list(words.values())


def forget_dead(store: TrialStore, now_ns: int) -> None:
    """Remove the words of workers that were lost.

    Raises:
        StoreError: If the store cannot be read or written.
    """
    objects = store.objects.below(FOLDER)
    for name, entry in objects.listing().items():
        if name.endswith(".worker") and now_ns - entry.modified_ns > 2 * DEAD_AFTER_S * 1e9:
            objects.delete(name)


def trained_by(words: Sequence[dict[str, Any]], wanted: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return who trains the trials that are wanted: the last to begin, where an earlier worker was lost."""
    found: dict[str, dict[str, Any]] = {}
    for word in sorted(words, key=lambda each: each["since"]):
        found |= {identity: word for identity in word["trials"] if identity in wanted}
    return found


@dataclass
class _Attempt:
    """A trial that runs: signs by word as of the last look, and since which one they are the same."""

    signs: Mapping[str, int] | None = None
    since_s: float = 0.0


class Silence:
    """Finds the running trials that make no progress, for the driver that can start them anew elsewhere.

    Time is what passes between two looks into the store, and not more of it than twice what is meant to, so that nobody
    is silent for as long as the driver itself was frozen or the store was away. No clock but this process's counts.

    Args:
        store: Of the sweep.
        limit_s: A trial that is silent for so long hangs; before its first row `START_UP` times as long.
        clock: Seconds; only differences count.
    """

    def __init__(self, store: TrialStore, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._limit_s, self._clock = store, limit_s, clock
        self.every_s = max(1.0, limit_s / LOOKS)
        self._now_s, self._looked_s = 0.0, clock()
        self._attempts: dict[str, _Attempt] = {}
        self._found: dict[str, tuple[_Attempt, str]] = {}

    def begun(self, trial_id: str) -> None:
        """Note that a trial runs from now on."""
        self._attempts[trial_id] = _Attempt()

    def ended(self, trial_id: str) -> None:
        """Note that it does no more."""
        self._attempts.pop(trial_id, None)
        self._found.pop(trial_id, None)

    def lost(self, trial_id: str) -> None:
        """Note that its worker is gone, whose word counts no more."""
        self.ended(trial_id)
        with contextlib.suppress(StoreError):
            for name, word in _words(self._store).items():
                if trial_id in word["trials"]:
                    self._store.objects.below(FOLDER).delete(name)

    def look(self) -> None:
        """Look into the store once.

        Raises:
            StoreError: If it cannot be read: nobody was silent meanwhile.
        """
        attempts, now = dict(self._attempts), self._clock()
        elapsed_s, self._looked_s = now - self._looked_s, now
        words = _words(self._store)
        self._now_s += min(elapsed_s, 2 * self.every_s)
        for identity, attempt in attempts.items():
            own = {name: word for name, word in words.items() if identity in word["trials"]}
            signs = {name: int(word.get("signs", 0)) for name, word in own.items()}
            if signs != attempt.signs:
                attempt.signs, attempt.since_s = signs, self._now_s
            limit_s = self._limit_s * (1 if any(signs.values()) else START_UP)
            if (silent_s := self._now_s - attempt.since_s) >= limit_s:
                where = "; ".join(f"pid {word['pid']} on {word['host']}" for word in own.values())
                self._found[identity] = attempt, f"no progress for {duration_text(silent_s)}{where and f', {where}'}"

    def found(self) -> dict[str, str]:
        """Return what hangs by the last look: by trial id, since when and where."""
        found = list(self._found.items())  # another thread may add one
        return {identity: why for identity, (attempt, why) in found if self._attempts.get(identity) is attempt}


def _words(store: TrialStore, names: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Return the words of workers that can be read, all of them or some, by name."""
    objects, found = store.objects.below(FOLDER), dict[str, dict[str, Any]]()
    for name in objects.names() if names is None else names:
        if name.endswith(".worker"):
            word = word_of(objects.read(name))
            if {"host", "pid", "since", "trials"} <= word.keys():
                found[name] = word
    return found


def word_of(data: bytes | None) -> dict[str, Any]:
    """Return what a word says; nothing where there is none, or it is damaged: the next one comes soon."""
    try:
        word = json.loads(data or b"")
    except ValueError:
        return {}
    return word if isinstance(word, dict) else {}
