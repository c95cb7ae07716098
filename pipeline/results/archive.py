"""A finished trial as one object: a zip of `trial.json` and one Parquet file per table."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from typing import Any

import polars as pl

from pipeline.core.training.spec import TRIAL_VERSION
from pipeline.errors import StoreError, TableError
from pipeline.results import TRIAL_TABLES, check

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date of a zip: equal trials make equal bytes


@dataclass(frozen=True)
class StoredTrial:
    """A finished trial: what was asked, of which data, where it ran, and its tables.

    Attributes:
        trial_id: The 16 digits under which the store keeps it.
        spec: The canonical spec, nested plain mappings, with `seeds`.
        dataset_digest: Of the data it was trained on.
        facts: Where and how it ran: `hostname`, `git_revision`, `platform`, `num_cpus`, `max_wall_time_s`.
        tables: Frames by name, see `TRIAL_TABLES`, each as `pipeline.results` declares it.
    """

    trial_id: str
    spec: dict[str, Any]
    dataset_digest: str
    facts: dict[str, Any]
    tables: dict[str, pl.DataFrame]

    def is_final(self, max_wall_time_s: float) -> bool:
        """Return whether it would end the same under this time limit: not if it ran out of a shorter one."""
        ran_out = (self.tables["trials"]["status"] == "timed_out").any()
        return not ran_out or self.facts["max_wall_time_s"] >= max_wall_time_s


def pack(stored: StoredTrial) -> bytes:
    """Return the trial as the bytes of one zip.

    Raises:
        TableError: If a table is not what its schema declares.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("trial.json", _EPOCH), json.dumps(_head(stored), indent=1, sort_keys=True))
        for table in TRIAL_TABLES:
            frame = check(table, stored.tables[table], f"trial {stored.trial_id}")
            parquet = io.BytesIO()
            frame.write_parquet(parquet, compression="zstd", statistics=False)
            archive.writestr(zipfile.ZipInfo(f"{table}.parquet", _EPOCH), parquet.getvalue())
    return buffer.getvalue()


def unpack(data: bytes, trial_id: str, where: str) -> StoredTrial:
    """Return the trial that `pack` made these bytes of.

    Raises:
        StoreError: If the bytes are not such a zip, or hold another trial or other tables.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            head = json.loads(archive.read("trial.json"))
            tables = {table: pl.read_parquet(archive.read(f"{table}.parquet")) for table in TRIAL_TABLES}
        if head["trial_id"] != trial_id:
            raise StoreError(f"{where}: holds trial {head['trial_id']}, expected {trial_id}")
        tables = {table: check(table, frame, where) for table, frame in tables.items()}
        return StoredTrial(trial_id, head["spec"], head["dataset_digest"], head["facts"], tables)
    except (
        zipfile.BadZipFile,
        KeyError,
        ValueError,
        OSError,
        EOFError,
        TableError,
        pl.exceptions.PolarsError,
    ) as error:
        raise StoreError(f"{where}: not a stored trial: {error}") from error


def _head(stored: StoredTrial) -> dict[str, Any]:
    return {
        "trial_id": stored.trial_id,
        "spec": stored.spec,
        "dataset_digest": stored.dataset_digest,
        "trial_version": TRIAL_VERSION,
        "facts": stored.facts,
    }
