"""Named blobs in a local folder or behind a URL; each is there whole or not at all.

A folder writes under a temporary name and moves the file into place; an object store such as S3 makes an object
visible only when its upload is complete.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.config import write_whole
from pipeline.errors import StoreError

STALE_TEMPORARY_S = 86_400.0
"""A temporary file this old was left by a killed writer."""


class FolderObjects:
    """Objects that are files of one folder, on this machine or on a shared file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.where = str(folder)

    def names(self) -> list[str]:
        """Return the name of every object, sorted."""
        with _store_errors(self.where, "read"):
            if not self.folder.exists():
                return []
            return sorted(entry.name for entry in os.scandir(self.folder) if not entry.name.startswith("."))

    def read(self, name: str) -> bytes | None:
        """Return an object's bytes, or None where there is no such object."""
        with _store_errors(f"{self.where}/{name}", "read"):
            try:
                return (self.folder / name).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Make or replace an object; an older one survives a failure."""
        write_whole(self.folder / name, data, StoreError)

    def rename(self, name: str, new_name: str) -> None:
        """Give an object another name, replacing what had it."""
        with _store_errors(f"{self.where}/{name}", "renamed"):
            os.replace(self.folder / name, self.folder / new_name)

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with _store_errors(f"{self.where}/{name}", "removed"):
            (self.folder / name).unlink(missing_ok=True)

    def remove_stale_temporaries(self) -> None:
        """Remove what writers killed more than a day ago left behind."""
        for path in self.folder.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE_TEMPORARY_S:
                    path.unlink()


class FilesystemObjects:
    """Objects below a prefix of a `pyarrow.fs.FileSystem`, which must show only complete uploads (S3 does)."""

    def __init__(self, filesystem: Any, prefix: str, where: str) -> None:
        self.filesystem, self.prefix, self.where = filesystem, prefix.rstrip("/"), where

    def names(self) -> list[str]:
        """Return the name of every object, sorted."""
        from pyarrow.fs import FileSelector

        with _store_errors(self.where, "read"):
            infos = self.filesystem.get_file_info(FileSelector(self.prefix, allow_not_found=True))
        return sorted(info.base_name for info in infos if info.is_file)

    def read(self, name: str) -> bytes | None:
        """Return an object's bytes, or None where there is no such object."""
        with _store_errors(f"{self.where}/{name}", "read"):
            try:
                with self.filesystem.open_input_stream(self._path(name)) as stream:
                    data: bytes = stream.read()
            except FileNotFoundError:
                return None
        return data

    def write(self, name: str, data: bytes) -> None:
        """Make or replace an object in one upload."""
        with (
            _store_errors(f"{self.where}/{name}", "written"),
            self.filesystem.open_output_stream(self._path(name)) as stream,
        ):
            stream.write(data)

    def rename(self, name: str, new_name: str) -> None:
        """Give an object another name, replacing what had it."""
        with _store_errors(f"{self.where}/{name}", "renamed"):
            self.filesystem.move(self._path(name), self._path(new_name))

    def delete(self, name: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with _store_errors(f"{self.where}/{name}", "removed"), contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self.prefix}/{name}"


Objects = FolderObjects | FilesystemObjects
"""What holds a trial store; every failure is a `StoreError` that names the place, `where`."""


def open_objects(url: str) -> Objects:
    """Return the objects of a folder, or of a URL such as `s3://bucket/folder?endpoint_override=host:port`.

    Raises:
        StoreError: If nothing understands the URL.
    """
    scheme = urlsplit(url).scheme
    if scheme in ("", "file"):
        return FolderObjects(Path(unquote(urlsplit(url).path) if scheme else url))
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem

    try:
        filesystem, prefix = FileSystem.from_uri(_in_single_requests(url))
    except (ArrowException, OSError, ValueError) as error:
        raise StoreError(f"{url}: expected a folder or a URL such as s3://bucket/folder: {error}") from error
    return FilesystemObjects(filesystem, prefix, url.split("?", maxsplit=1)[0])


def _in_single_requests(url: str) -> str:
    """Return an S3 URL by which Arrow writes a small object in one request, where it would take three."""
    option = "allow_delayed_open"
    if urlsplit(url).scheme != "s3" or option in url:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}{option}=true"


@contextlib.contextmanager
def _store_errors(where: str, verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{where}: cannot be {verb}: {error.strerror or error}") from error
