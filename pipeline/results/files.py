"""Result tables as Parquet files, and archives of them; nothing is unpacked before it is known how large it is."""

from __future__ import annotations

import io
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from pipeline.config import digest_of_file, write_whole
from pipeline.errors import TableError
from pipeline.results.schema import SCHEMAS, check

MAX_ROWS = 2**24
"""No table has more; a few bytes of Parquet can stand for any number."""


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


def parquet_frame(source: bytes | Path, where: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Return a frame, or some columns of it, from a Parquet file or its bytes.

    Raises:
        TableError: If it is damaged, lacks a column, or has more than `MAX_ROWS` rows.
        FileNotFoundError: If there is no such file.
    """
    try:
        frame = pl.read_parquet(source, columns=None if columns is None else [*columns], n_rows=MAX_ROWS + 1)
    except FileNotFoundError:
        raise
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise TableError(f"{where}: not a readable Parquet file: {error}") from None
    if len(frame) > MAX_ROWS:
        raise TableError(f"{where}: expected at most {MAX_ROWS} rows, got more")
    return frame


def members_of(archive: bytes) -> dict[str, bytes]:
    """Return the files of a zip whose files are stored as they are, so that they are no larger than the zip.

    Raises:
        TableError: If it is no zip, damaged, or packed.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            infos = opened.infolist()
            if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
                raise TableError("expected files that are stored as they are, got packed ones")
            if sum(info.file_size for info in infos) > len(archive) or len({*opened.namelist()}) != len(infos):
                raise TableError("expected files of different names that lie side by side")
            return {info.filename: opened.read(info) for info in infos}  # each is checked against its checksum
    except (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, RuntimeError, ValueError) as error:
        raise TableError(f"not a readable zip: {error}") from None


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
        frame = parquet_frame(path, str(path))
    except FileNotFoundError:
        raise TableError(f"{path}: no such table; `dvc repro` makes it (tables: {', '.join(SCHEMAS)})") from None
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
