"""Result tables as Parquet files."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import polars as pl

from pipeline.config import digest_of_file, write_whole
from pipeline.errors import TableError
from pipeline.results.schema import SCHEMAS, check


def write_table(table: str, frame: pl.DataFrame, folder: Path) -> Path:
    """Write `frame` as `<folder>/<table>.parquet` and return that path; readers never see half a file.

    Raises:
        TableError: If the frame is not what the schema declares, or the folder cannot be written.
    """
    path = folder / f"{table}.parquet"
    write_whole(path, parquet_bytes(check(table, frame, str(path))), TableError)
    return path


def parquet_bytes(frame: pl.DataFrame) -> bytes:
    """Return a frame as Parquet; equal frames make equal bytes."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=False)
    return buffer.getvalue()


def probe_writable(folder: Path) -> None:
    """Make `folder` and write a small file there, so that a run fails before its work and not after it.

    Raises:
        TableError: If the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"writable")
    except OSError as error:
        raise TableError(f"{folder}: results cannot be written there: {error.strerror or error}") from error


def read_table(table: str, folder: Path) -> pl.DataFrame:
    """Return the table in `<folder>/<table>.parquet`, checked against its schema.

    Raises:
        TableError: If the file is missing, damaged or has other columns.
    """
    path = folder / f"{table}.parquet"
    try:
        frame = pl.read_parquet(path)
    except FileNotFoundError:
        raise TableError(f"{path}: no such table; `dvc repro` makes it (tables: {', '.join(SCHEMAS)})") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TableError(f"{path}: not a readable Parquet file: {error}") from error
    return check(table, frame, str(path))


def digest_tables(folder: Path) -> dict[str, str]:
    """Return the sha256 of every table of a study by the table's name: what the report of the study depends on.

    Raises:
        TableError: If a table is missing.
    """
    digests = {}
    for table in SCHEMAS:
        try:
            digests[table] = digest_of_file(folder / f"{table}.parquet")
        except OSError as error:
            raise TableError(f"{folder / table}.parquet: cannot be read: {error.strerror or error}") from error
    return digests
