"""The trial store: every finished trial under its id, and the checkpoint of every unfinished one.

The id says what a trial means, so a trial that is there never needs training again, whichever study asks.

    <trial_id>.zip            a finished trial: `trial.json` and one Parquet file per table with rows
    <trial_id>.zip.damaged    one that could not be read, quarantined
    <trial_id>.safetensors    the weights of each seed's best step, where they are kept
    <trial_id>.checkpoint     where an unfinished trial goes on from; `.damaged` as above
    .catalogue/, .leases/, .status/     summaries of finished trials; who sweeps which study; how far it is
"""

from __future__ import annotations

import functools
import io
import json
import logging
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import polars as pl

from pipeline.config import Paths
from pipeline.errors import StoreError, TableError
from pipeline.results import SCHEMAS, TRIAL_TABLES, check
from pipeline.results.catalogue import HEAD, Catalogue, Summary, summarise
from pipeline.results.files import members_of, parquet_bytes, parquet_frame
from pipeline.results.objects import FolderObjects, Objects, open_objects

_log = logging.getLogger(__name__)

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest date of a zip: equal trials make equal bytes."""


def weights_name(trial_id: str) -> str:
    """Return the name of the object with a trial's weights."""
    return f"{trial_id}.safetensors"


@dataclass(frozen=True)
class StoredTrial:
    """A finished trial: what was asked, of which data, where it ran, and its tables.

    Attributes:
        trial_id: The 16 digits under which the store keeps it.
        spec: The spec as nested plain mappings, with `seeds`.
        dataset_digest: Of the data it was trained on.
        code_digest: Of the code under whose identity it stands; that which ran is in the table, if it is another.
        facts: Where and how it ran: `hostname`, `git_revision`, `platform`, `num_cpus`, `max_wall_time_s`, `stop_at`.
        tables: Frames by name, see `TRIAL_TABLES`, each as `pipeline.results` declares it.
    """

    trial_id: str
    spec: dict[str, Any]
    dataset_digest: str
    code_digest: str
    facts: dict[str, Any]
    tables: dict[str, pl.DataFrame]

    @property
    def summary(self) -> Summary:
        """The trial in a few words, as the catalogue has it."""
        return summarise(self._head, self.tables["trials"])

    @property
    def _head(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in HEAD}

    def to_bytes(self) -> bytes:
        """Return the trial as the bytes of one zip.

        Raises:
            TableError: If a table is not what its schema declares.
        """
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(zipfile.ZipInfo("trial.json", EPOCH), json.dumps(self._head, indent=1, sort_keys=True))
            for table in TRIAL_TABLES:
                frame = check(table, self.tables[table], f"trial {self.trial_id}")
                if table == "trials" or len(frame):
                    archive.writestr(zipfile.ZipInfo(f"{table}.parquet", EPOCH), parquet_bytes(frame))
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, trial_id: str, where: str) -> StoredTrial:
        """Return the trial that `to_bytes` made these bytes of.

        Raises:
            StoreError: If the bytes are not such a zip, or hold another trial or other tables.
        """
        try:
            members = members_of(data)
            head = json.loads(members.pop("trial.json"))
            tables = _without_rows().copy()
            if unknown := members.keys() - {f"{table}.parquet" for table in TRIAL_TABLES}:
                raise StoreError(f"{where}: not a stored trial: expected tables, got {sorted(unknown)[0]!r}")
            for name, content in {"trials.parquet": members["trials.parquet"], **members}.items():
                table = name.removesuffix(".parquet")
                tables[table] = check(table, parquet_frame(content, name), where)
            if head["trial_id"] != trial_id:
                raise StoreError(f"{where}: holds trial {head['trial_id']}, expected {trial_id}")
            stored = cls(**{name: head[name] for name in HEAD}, tables=tables)
            stored.summary.check()
        except (KeyError, TypeError, ValueError, RecursionError, TableError, pl.exceptions.PolarsError) as error:
            raise StoreError(f"{where}: not a stored trial: {error}") from error
        return stored


@functools.cache
def _without_rows() -> dict[str, pl.DataFrame]:
    """Return every table of a trial without rows, as most trials have most of them: making one takes a millisecond."""
    return {table: pl.DataFrame(schema=SCHEMAS[table]) for table in TRIAL_TABLES}


class CheckpointSlot:
    """The one checkpoint of an unfinished trial; a new one replaces the old in one move.

    Attributes:
        is_taken_up: Whether it was loaded, and none has been saved since.
    """

    def __init__(self, objects: Objects, name: str) -> None:
        self._objects, self._name, self.is_taken_up = objects, name, False

    def load(self, *, quarantines: bool = True) -> bytes | None:
        """Return what `save` was last given, or None.

        Training begins anew where it can make nothing of it. What it would not see is found here: bits that have
        changed, and files that are packed. Then it is quarantined with a warning, unless it is only looked at.
        """
        data = self._objects.read(self._name)
        try:
            if data is not None and zipfile.is_zipfile(io.BytesIO(data)):
                members_of(data)
        except TableError as error:
            if quarantines:
                self.quarantine(str(error))
            return None
        self.is_taken_up = data is not None
        return data

    def quarantine(self, why: str) -> None:
        """Put the checkpoint aside, with a warning: its trial starts anew."""
        self.is_taken_up = False
        self._objects.rename(self._name, f"{self._name}.damaged")
        where = f"{self._objects.where}/{self._name}"
        _log.warning(
            "%s: not a checkpoint: %s; quarantined as %s.damaged, the trial starts anew", where, why, self._name
        )

    def save(self, data: bytes) -> None:
        """Keep `data` in place of the older checkpoint."""
        self._objects.write(self._name, data)
        self.is_taken_up = False

    def clear(self) -> None:
        """Forget the checkpoint: the trial is finished."""
        self._objects.delete(self._name)


class TrialStore:
    """Finished trials by id, in a folder or behind a URL.

    Args:
        url: A folder, or `s3://bucket/folder`, with `?endpoint_override=host:port` for a server of one's own.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        self.objects = open_objects(self.url)
        self.catalogue = Catalogue(self.objects)

    @classmethod
    def of(cls, paths: Paths, trial_store: str | None) -> TrialStore:
        """Return the store that params.yaml names, or else the one in the project's own folder.

        Ray workers run in other folders, so a relative one is taken from the project's root, and an experiment of DVC
        in a copy of the project, which is removed with all that is in it: then from the project itself.
        """
        if trial_store is None:
            return cls(paths.default_store)
        return cls(trial_store if urlsplit(trial_store).scheme else paths.home / trial_store)

    @property
    def is_local(self) -> bool:
        """Whether the store is a folder: on a cluster, every node must then see that folder."""
        return isinstance(self.objects, FolderObjects)

    def ids(self) -> frozenset[str]:
        """Return the id of every finished trial, from one listing."""
        return frozenset(name.removesuffix(".zip") for name in self.objects.names() if name.endswith(".zip"))

    def get(self, trial_id: str, *, quarantines: bool = True) -> StoredTrial | None:
        """Return a finished trial, or None where there is none that can be read.

        A damaged object is quarantined with a warning, unless it is only looked at: it counts as missing and trains
        again.
        """
        name = f"{trial_id}.zip"
        data = self.objects.read(name)
        try:
            return None if data is None else StoredTrial.from_bytes(data, trial_id, f"{self.objects.where}/{name}")
        except StoreError as error:
            if not quarantines:
                return None
            self.objects.rename(name, f"{name}.damaged")
            _log.warning("%s; quarantined as %s.damaged, the trial counts as missing", error, name)
            return None

    def read(self, trial_id: str) -> StoredTrial | None:
        """Return a finished trial, or None where there is none.

        Raises:
            StoreError: If it is damaged, or the store cannot be read.
        """
        name = f"{trial_id}.zip"
        data = self.objects.read(name)
        return None if data is None else StoredTrial.from_bytes(data, trial_id, f"{self.objects.where}/{name}")

    def summaries(self) -> dict[str, Summary]:
        """Return every finished trial in a few words, by id; those that are damaged are quarantined.

        Raises:
            StoreError: If the store cannot be read.
        """
        summaries, unreadable = self.catalogue.read()
        for trial_id in unreadable:
            self.get(trial_id)
        return summaries

    def put(self, stored: StoredTrial) -> None:
        """Keep a finished trial; nobody ever sees a part of it.

        Raises:
            StoreError: If the store cannot be written; what was there before is still there.
            TableError: If a table is not what its schema declares.
        """
        self.objects.write(f"{stored.trial_id}.zip", stored.to_bytes())

    def put_weights(self, trial_id: str, weights: Mapping[str, np.ndarray[Any, Any]], spec: Mapping[str, Any]) -> None:
        """Keep a trial's weights, (R, *shape) each, and its spec in the header.

        Raises:
            StoreError: If the store cannot be written.
        """
        from safetensors.numpy import save

        arrays = {name: np.ascontiguousarray(array) for name, array in weights.items()}
        told = {"spec": json.dumps(spec, sort_keys=True)}
        self.objects.write(weights_name(trial_id), save(arrays, metadata=told))

    def weights(self, trial_id: str) -> dict[str, np.ndarray[Any, Any]] | None:
        """Return a trial's weights, (R, *shape) each; None where they were not kept.

        Raises:
            StoreError: If they are damaged, or the store cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        data = self.objects.read(weights_name(trial_id))
        try:
            return None if data is None else load(data)
        except SafetensorError as error:
            where = f"{self.objects.where}/{weights_name(trial_id)}"
            raise StoreError(f"{where}: not a file of safetensors: {error}; delete it, and it is made again") from None

    def checkpoint(self, trial_id: str) -> CheckpointSlot:
        """Return the place for the checkpoint of an unfinished trial."""
        return CheckpointSlot(self.objects, f"{trial_id}.checkpoint")

    def probe_writable(self) -> None:
        """Write and remove a small object, so that a sweep fails before it has trained anything.

        Raises:
            StoreError: If the store cannot be reached or written.
        """
        name, objects = f"probe-{uuid.uuid4().hex}", self.objects.hasty()
        objects.write(name, b"writable")
        objects.delete(name)
        if isinstance(self.objects, FolderObjects):
            self.objects.remove_stale_temporaries()
