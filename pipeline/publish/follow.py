"""Follows the trial store and shows in W&B what trains, while it trains.

Training never knows of it and never waits: the follower reads what trials leave in the store for their own sake, from
any machine that sees it, and may come, go and be killed at any time. What it did not send, `Publisher` does later.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import polars as pl
from filelock import FileLock, Timeout

from pipeline.config import Paths
from pipeline.errors import PipelineError, StoreError
from pipeline.publish.client import LiveRun, is_refused
from pipeline.publish.mode import hosts
from pipeline.publish.publisher import Publisher, cause_of
from pipeline.publish.views import view_of_running, view_of_setting
from pipeline.results.objects import Entry
from pipeline.results.running import read_running
from pipeline.results.store import TrialStore

INTERVAL_S = 5.0
"""Between two looks into the store."""

RETRY_S = 60.0
"""After a failure nothing is sent for so long; trials go on, and nothing of them is lost."""

MAX_LIVE = 64
"""Runs that grow at once; of further trials the runs appear when they end."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Followed:
    """What is planned of a study: its `settings` table, and what each trial trains, as plain mappings by trial id."""

    settings: pl.DataFrame
    specs: Mapping[str, Mapping[str, Any]]


@dataclass
class _Stopped:
    """A trial that ended where a search stopped it.

    Attributes:
        trial: The finished trial, as the listing had it; it is replaced when it has gone on.
        checkpoint: Where it goes on from; a later one shows that it does.
        goes_on: Whether there was a later one.
    """

    trial: Entry
    checkpoint: Entry | None
    goes_on: bool = False


def _entries(listing: Mapping[str, Entry], trial_id: str) -> tuple[Entry | None, Entry | None]:
    """Return the finished trial and the checkpoint of an id, where they are there."""
    return listing.get(f"{trial_id}.zip"), listing.get(f"{trial_id}.checkpoint")


class Follower:
    """Shows the settings of some studies that are not in the store yet: live while they train, whole when they end.

    Args:
        publisher: Who sends; must be online.
        paths: The project.
        store: Where trials train to.
        studies: What to follow. What the store has already is left to `Publisher.study`, but what it has begun as well:
            a search has stopped it, or its time was over, and it may go on.
        stream: Where it says what it does.
        clock: Seconds; only differences count.
    """

    def __init__(
        self,
        publisher: Publisher,
        paths: Paths,
        store: TrialStore,
        studies: Sequence[Followed],
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher, self._paths, self._store, self._stream, self._clock = publisher, paths, store, stream, clock
        listing = store.objects.listing()
        self._stopped: dict[tuple[str, str], _Stopped] = {}
        self._waiting: dict[tuple[str, str], tuple[pl.DataFrame, Mapping[str, Any]]] = {}
        for study in studies:
            for setting in study.settings.iter_slices(1):
                row = setting.row(0, named=True)
                key = (row["trial_id"], f"{row['study']}, {row['grid']}: {row['label']}")
                ended, begun = _entries(listing, key[0])
                if ended is None or begun is not None:
                    self._waiting[key] = setting, study.specs[row["trial_id"]]
                if ended is not None and begun is not None:
                    self._stopped[key] = _Stopped(ended, begun)
        self._live: dict[tuple[str, str], LiveRun | None] = {}
        self._silent_until = float("-inf")
        self.num_sent = 0

    @property
    def num_waiting(self) -> int:
        """Settings that have not ended, or not been sent, without those that are stopped."""
        return len(self._waiting) - self.num_stopped

    @property
    def num_stopped(self) -> int:
        """Settings that a search has stopped at a rung, and may let go on."""
        return sum(not stopped.goes_on for stopped in self._stopped.values())

    def look(self) -> None:
        """Look into the store once, and send what is new.

        Raises:
            PublishError: If the server refuses the key.
        """
        if self._clock() < self._silent_until:
            return
        try:
            listing = self._store.objects.listing()
            for key in list(self._waiting):
                ended, begun = _entries(listing, key[0])
                stopped = self._stopped.get(key)
                if stopped is not None and begun not in {stopped.checkpoint, None}:
                    stopped.goes_on = True
                if ended is not None and (stopped is None or ended != stopped.trial):
                    self._ended(key, ended, begun)
                elif begun is not None and (stopped is None or stopped.goes_on):
                    self._goes_on(key)
        except StoreError as error:
            _log.warning("W&B: %s; looking again", error)
        except Exception as error:
            if is_refused(error):
                raise PublishError(f"{hosts(os.environ)[0]} refuses the API key: {cause_of(error)}") from error
            self._silent_until = self._clock() + RETRY_S
            self._let_go()
            self._publisher.close()  # a run that failed to start still holds its id in the service process
            _log.warning(
                "W&B: %s failed: %s; training goes on, trying again in %.0f s",
                hosts(os.environ)[0],
                cause_of(error),
                RETRY_S,
            )

    def close(self) -> None:
        """Let go of every run; each is taken up where it is by the next one who sends."""
        self._let_go()
        self._publisher.close()

    def _goes_on(self, key: tuple[str, str]) -> None:
        if key not in self._live and sum(run is not None for run in self._live.values()) >= MAX_LIVE:
            return
        found = read_running(self._store, key[0])
        if found is None:
            return
        view = view_of_running(*self._waiting[key], found)
        if key not in self._live:
            self._live[key] = self._publisher.open_live(view)
            self._say(f"{key[1]}: live" if self._live[key] else f"{key[1]}: W&B has it, of an earlier training")
        if (run := self._live[key]) is not None:
            run.advance(view)

    def _ended(self, key: tuple[str, str], ended: Entry, begun: Entry | None) -> None:
        setting, _ = self._waiting[key]
        stored = self._store.get(key[0], quarantines=False)
        if stored is None:  # damaged: whoever trains quarantines it, and it trains again
            return
        if (run := self._live.pop(key, None)) is not None:
            run.finish()
        if "censored" in stored.summary.statuses:  # it may go on, and a history that was ended cannot
            self._stopped[key] = _Stopped(ended, begun)
            self._say(f"{key[1]}: stopped by the search, for now or for good; `stages/publish.py` sends how it ends")
            return
        view = view_of_setting(self._paths, setting, stored.tables)
        self._publisher.send_online(view)
        del self._waiting[key]
        self._stopped.pop(key, None)
        self.num_sent += 1
        self._say(f"{key[1]}: {view.summary['status']}")

    def _let_go(self) -> None:
        for key, run in list(self._live.items()):
            del self._live[key]
            try:
                if run is not None:
                    run.finish()
            except Exception as error:
                _log.warning("W&B: %s: %s", key[1], cause_of(error))

    def _say(self, line: str) -> None:
        print(f"[{self.num_sent} sent, {self.num_waiting} to come] {line}", file=self._stream, flush=True)


class PublishError(PipelineError):
    """Nothing can be sent."""


def follow(
    follower: Follower, folder: Path, interval_s: float, is_over: Callable[[], bool], is_swept: Callable[[], bool]
) -> None:
    """Look every `interval_s` seconds until nothing is waited for, or `is_over`; then once more.

    Args:
        follower: Who looks.
        folder: Where W&B keeps its run folders: of two followers there, the second is refused.
        interval_s: Seconds between two looks.
        is_over: Whether to end early.
        is_swept: Whether somebody sweeps the studies: then what is stopped is waited for, too.

    Raises:
        PublishError: If another follower is at work, or the server refuses the key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "follow.lock", timeout=0):
            while not is_over() and (follower.num_waiting or (follower.num_stopped and is_swept())):
                follower.look()
                _sleep(interval_s, is_over)
            if follower.num_waiting or follower.num_stopped:
                follower.look()
    except Timeout:
        raise PublishError(
            f"{folder / 'follow.lock'}: another follower is at work here; W&B has one run per setting"
        ) from None


def _sleep(seconds: float, is_over: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not is_over():
        time.sleep(min(0.2, seconds))
