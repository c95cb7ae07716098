"""What every finished trial says of itself in a few words, so that a plan need not read ten thousand trials.

    .catalogue/<digest>.parquet     a row a trial: its summary, and size and time of the object that it was taken from

A row counts while the store's listing has the trial with that size and that time. Whatever no row counts for is read
from the trial itself and written as one more file, so a catalogue that is lost, damaged or old costs time and nothing
else. Files are added and never changed; many small ones become one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import polars as pl

from pipeline.errors import StoreError, TableError
from pipeline.results.files import members_of, parquet_bytes, parquet_frame
from pipeline.results.objects import Entry, Objects
from pipeline.results.schema import STATUSES

_log = logging.getLogger(__name__)

FOLDER = ".catalogue"
MOST_FILES = 16
"""More are made into one."""

NUM_READERS = 16
"""Trials that are read at a time: a store behind a network answers each after a while."""

HEAD = ("trial_id", "spec", "dataset_digest", "code_digest", "facts")
"""What a trial says of itself beside its tables, in `trial.json`."""

_READ = ["status", "wall_time_s", "adopted_from"]
"""Columns of a trial's table `trials` that its summary is made of."""

_SCHEMA: dict[str, Any] = {
    "trial_id": pl.String(),
    "size": pl.Int64(),
    "modified_ns": pl.Int64(),
    "statuses": pl.List(pl.String()),
    "wall_time_s": pl.Float64(),
    "dataset_digest": pl.String(),
    "code_digest": pl.String(),
    "adopted_from": pl.String(),
    "spec": pl.String(),
    "facts": pl.String(),
}


@dataclass(frozen=True)
class Summary:
    """A finished trial in a few words.

    Attributes:
        trial_id: Under which the store has it.
        statuses: How its replicas ended, by seed.
        wall_time_s: How long it took.
        dataset_digest: Of the data that it was trained on.
        code_digest: Of the code under whose identity it stands.
        adopted_from: Of the code that ran, if that is another.
        spec: What was asked, as JSON.
        facts: Where and how it ran: see `StoredTrial`.
    """

    trial_id: str
    statuses: tuple[str, ...]
    wall_time_s: float | None
    dataset_digest: str
    code_digest: str
    adopted_from: str | None
    spec: str
    facts: Mapping[str, Any]

    def check(self) -> None:
        """Check the types of what is said, which whoever wrote it may have got wrong.

        Raises:
            ValueError: If one is another.
        """
        if not isinstance(self.facts, Mapping):
            raise ValueError("expected the facts of where it was trained")
        texts = (self.trial_id, self.dataset_digest, self.code_digest, self.spec, *self.statuses)
        if not (self.statuses and all(isinstance(text, str) for text in texts) and {*self.statuses} <= {*STATUSES}):
            raise ValueError("expected digests, and how at least one replica ended")
        limits = {"timed_out": "max_wall_time_s", "censored": "stop_at"}
        reached = [self.facts.get(limit) for status, limit in limits.items() if status in self.statuses]
        if not (all(isinstance(limit, int | float) for limit in reached) and isinstance(json.loads(self.spec), dict)):
            raise ValueError("expected a spec, and the limits of what ran out of them")

    @property
    def status(self) -> str:
        """How it ended: the worst of its replicas."""
        return max(self.statuses, key=STATUSES.index)

    def is_final(self, max_wall_time_s: float, stop_at: int | None = None) -> bool:
        """Return whether it would end the same under these limits: not if it ran out of less time or fewer steps."""
        if "timed_out" in self.statuses and self.facts["max_wall_time_s"] < max_wall_time_s:
            return False
        return "censored" not in self.statuses or (stop_at is not None and self.facts["stop_at"] >= stop_at)


def summarise(head: Mapping[str, Any], trials: pl.DataFrame) -> Summary:
    """Return the summary of a trial.

    Args:
        head: Its `trial.json`.
        trials: Its table `trials`.

    Raises:
        KeyError: If the head lacks what a summary has.
        pl.exceptions.PolarsError: If the table does.
    """
    said = {name: head[name] for name in HEAD}
    return Summary(
        **said | {"spec": json.dumps(said["spec"], sort_keys=True)},
        statuses=tuple(trials["status"]),
        wall_time_s=trials["wall_time_s"].max(),  # type: ignore[arg-type]
        adopted_from=next(iter(trials["adopted_from"]), None),
    )


class Catalogue:
    """The summaries of a store's finished trials.

    Args:
        objects: Of the store.
    """

    def __init__(self, objects: Objects) -> None:
        self._trials, self._files = objects, objects.below(FOLDER)

    def read(self, listing: Mapping[str, Entry] | None = None) -> tuple[dict[str, Summary], list[str]]:
        """Return every finished trial's summary by id, and the ids of trials that cannot be read.

        What was not known before is kept.

        Args:
            listing: Of the store's objects, where that is known already.

        Raises:
            StoreError: If the store cannot be read. Where it cannot be written, the catalogue stays as it is.
        """
        listed, files = self.listed(listing), self._files.names()
        rows = (row for name in files for row in self._read_file(name))
        summaries = {each.trial_id: each for entry, each in rows if listed.get(each.trial_id) == entry}
        unknown = sorted(listed.keys() - summaries.keys())
        found = {summary.trial_id: summary for summary in self._summaries(unknown)}
        summaries |= found
        if found:
            is_full = len(files) >= MOST_FILES
            self._add(*((summaries, listed, files) if is_full else (found, listed, [])))
        return summaries, [identity for identity in unknown if identity not in found]

    def listed(self, listing: Mapping[str, Entry] | None = None) -> dict[str, Entry]:
        """Return what the store's listing, where it is known already that one, says of every finished trial, by id."""
        objects = (self._trials.listing() if listing is None else listing).items()
        return {name.removesuffix(".zip"): entry for name, entry in objects if name.endswith(".zip")}

    def keep(self, summaries: Iterable[Summary], listed: Mapping[str, Entry]) -> None:
        """Add the summaries of trials that were read whole.

        Args:
            summaries: Of trials.
            listed: By trial, what the store's listing said before it was read.
        """
        if added := {summary.trial_id: summary for summary in summaries}:
            self._add(added, listed, [])

    def _add(self, summaries: Mapping[str, Summary], listed: Mapping[str, Entry], replaced: Sequence[str]) -> None:
        data = parquet_bytes(_frame(summaries.values(), listed))
        name = f"{hashlib.sha256(data).hexdigest()[:16]}.parquet"
        try:
            self._files.write(name, data)
            for old in replaced:
                if old != name:
                    self._files.delete(old)
        except StoreError as error:
            _log.debug("the catalogue stays as it is: %s", error)  # a store that may only be read

    def _read_file(self, name: str) -> list[tuple[Entry, Summary]]:
        """Return the rows of a file; none where it is gone, or damaged: then it is removed, with a warning."""
        data = self._files.read(name)
        if data is None:  # made into one with others since
            return []
        try:
            frame = parquet_frame(data, name)
            if frame.schema == pl.Schema(_SCHEMA):
                return list(_rows(frame))
            what = "has other columns"
        except (TableError, TypeError, ValueError, RecursionError) as error:
            what = str(error)
        _log.warning("%s/%s: not a file of the catalogue: %s; it is made again", self._files.where, name, what)
        with contextlib.suppress(StoreError):
            self._files.delete(name)
        return []

    def _summaries(self, trial_ids: list[str]) -> Iterator[Summary]:
        with ThreadPoolExecutor(NUM_READERS) as readers:
            yield from (found for found in readers.map(self._summary, trial_ids) if found is not None)

    def _summary(self, trial_id: str) -> Summary | None:
        """Return what a trial says of itself; None of one that is damaged, or of before trials said of what code."""
        try:
            members = members_of(self._trials.read(f"{trial_id}.zip") or b"")
            head = json.loads(members["trial.json"])
            summary = summarise(head, parquet_frame(members["trials.parquet"], trial_id, _READ))
            summary.check()
            return summary if summary.trial_id == trial_id else None
        except (KeyError, TypeError, ValueError, RecursionError, TableError, pl.exceptions.PolarsError):
            return None


def _frame(summaries: Iterable[Summary], listed: Mapping[str, Entry]) -> pl.DataFrame:
    rows = [
        vars(summary)
        | listed[summary.trial_id]._asdict()
        | {"statuses": list(summary.statuses), "facts": json.dumps(summary.facts, sort_keys=True)}
        for summary in summaries
    ]
    return pl.DataFrame(rows, schema=_SCHEMA)


def _rows(frame: pl.DataFrame) -> Iterator[tuple[Entry, Summary]]:
    """Yield each row of `_frame`, checked.

    Raises:
        TypeError: If a value has another type.
        ValueError: The same.
    """
    for row in frame.iter_rows(named=True):
        entry = Entry(**{name: row.pop(name) for name in Entry._fields})
        summary = Summary(**row | {"statuses": tuple(row["statuses"]), "facts": json.loads(row["facts"])})
        summary.check()
        yield entry, summary
