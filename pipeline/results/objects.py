"""Named blobs in a local folder or behind a URL; each is there whole or not at all.

A folder writes under a temporary name and moves the file into place; an object store such as S3 makes an object
visible only when its upload is complete.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from pipeline.config import write_whole
from pipeline.errors import StoreError

STALE_TEMPORARY_S = 86_400.0
"""A temporary file this old was left by a killed writer."""


class Entry(NamedTuple):
    """What a listing says of an object: its size, and when it was written by the clock of the store."""

    size: int
    modified_ns: int


ATTEMPTS = 10
"""At each request to S3, the waits in between twice as long each time, up to 20 s: a minute in the mean."""

HASTY_ATTEMPTS = 4
"""Where another try comes anyway, or somebody waits: some seconds."""


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

    def listing(self) -> dict[str, Entry]:
        """Return every object by name, sorted."""
        found = {}
        with _store_errors(self.where, "read"):
            for name in self.names():
                with contextlib.suppress(FileNotFoundError):  # removed since
                    status = (self.folder / name).stat()
                    found[name] = Entry(status.st_size, status.st_mtime_ns)
        return found

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

    def create(self, name: str, data: bytes) -> bool:
        """Make an object and return whether it was not there before; of two that try, one succeeds."""
        temporary = f".{name}.{uuid.uuid4().hex}.tmp"
        self.write(temporary, data)
        with _store_errors(f"{self.where}/{name}", "written"):
            try:
                os.link(self.folder / temporary, self.folder / name)
            except FileExistsError:
                return False
            finally:
                (self.folder / temporary).unlink(missing_ok=True)
        return True

    def below(self, folder: str) -> FolderObjects:
        """Return the objects of a folder of this one."""
        return FolderObjects(self.folder / folder)

    def hasty(self) -> FolderObjects:
        """Return the same objects; a folder is not tried again."""
        return self

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

    def __init__(self, filesystem: Any, prefix: str, where: str, url: str = "") -> None:
        self.filesystem, self.prefix, self.where, self.url = filesystem, prefix.rstrip("/"), where, url

    def names(self) -> list[str]:
        """Return the name of every object, sorted."""
        return list(self.listing())

    def listing(self) -> dict[str, Entry]:
        """Return every object by name, sorted."""
        from pyarrow.fs import FileSelector

        with _store_errors(self.where, "read"):
            infos = self.filesystem.get_file_info(FileSelector(self.prefix, allow_not_found=True))
        files = sorted((info for info in infos if info.is_file), key=lambda info: info.base_name)
        return {info.base_name: Entry(info.size, info.mtime_ns) for info in files}

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

    def create(self, name: str, data: bytes) -> bool:
        """Make an object and return whether it was not there before; of two that try, one succeeds.

        Arrow has no conditional write, so S3 is asked by boto3.

        Raises:
            StoreError: If it cannot be written, or the store is not S3.
        """
        if urlsplit(self.url).scheme != "s3":
            raise StoreError(f"{self.where}: expected a folder or s3://, where one driver alone can take a lease")
        bucket, _, key = self._path(name).partition("/")
        try:
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as error:
            raise StoreError(f"{self.where}: the lease of a study on S3 needs boto3: pip install boto3") from error
        try:
            _s3_client(self.url).put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in {409, 412}:  # there, or being made by another
                return False
            raise StoreError(f"{self.where}/{name}: cannot be written: {error}") from None
        except BotoCoreError as error:
            raise StoreError(f"{self.where}/{name}: cannot be written: {error}") from None
        return True

    def below(self, folder: str) -> FilesystemObjects:
        """Return the objects of a folder of this one."""
        return FilesystemObjects(self.filesystem, f"{self.prefix}/{folder}", f"{self.where}/{folder}", self.url)

    def hasty(self) -> FilesystemObjects:
        """Return the same objects, for requests that do not outlast a server that is away for a while."""
        if not self.url:
            return self
        return FilesystemObjects(_filesystem(self.url, HASTY_ATTEMPTS)[0], self.prefix, self.where, self.url)

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


def now_ns(objects: FolderObjects | FilesystemObjects) -> int:
    """Return the time by the clock of the store itself: of an object that is written for it, or else the newest one.

    Raises:
        StoreError: If the store cannot be read.
    """
    name = f"clock-{uuid.uuid4().hex}"
    try:
        objects.write(name, b"now")
        found = objects.listing()
        objects.delete(name)
    except StoreError:  # one that may only be read
        found = objects.listing()
    return found[name].modified_ns if name in found else max((e.modified_ns for e in found.values()), default=0)


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
    filesystem, prefix = _filesystem(url, ATTEMPTS)
    return FilesystemObjects(filesystem, prefix, without_secrets(url).split("?", maxsplit=1)[0], url)


def _filesystem(url: str, attempts: int) -> tuple[Any, str]:
    """Return Arrow's file system for a URL, and the path that it has there.

    Arrow tries again what an S3 server refused for a while (503, a lost or refused connection), three times unless it
    is told otherwise, which a URL cannot do.

    Raises:
        StoreError: If nothing understands the URL.
    """
    from pyarrow import ArrowException
    from pyarrow.fs import AwsStandardS3RetryStrategy, FileSystem

    try:
        filesystem, prefix = FileSystem.from_uri(_in_single_requests(url))
    except (ArrowException, OSError, ValueError) as error:
        shown = without_secrets(url)
        what = str(error).replace(_in_single_requests(url), shown).replace(url, shown)
        raise StoreError(f"{shown}: expected a folder or a URL such as s3://bucket/folder: {what}") from None
    if filesystem.type_name == "s3":
        make, (options,) = filesystem.__reduce__()
        filesystem = make({**options, "retry_strategy": AwsStandardS3RetryStrategy(max_attempts=attempts)})
    return filesystem, prefix


def without_secrets(url: str) -> str:
    """Return a URL without the key and secret that `s3://key:secret@bucket` holds."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else url


@functools.cache
def _s3_client(url: str) -> Any:
    """Return boto3's client for the server, the region and the keys that Arrow takes from a URL."""
    import boto3
    from botocore.config import Config

    parts, options = urlsplit(url), dict(parse_qsl(urlsplit(url).query))
    endpoint = options.get("endpoint_override")
    return boto3.client(
        "s3",
        endpoint_url=f"{options.get('scheme', 'https')}://{endpoint}" if endpoint else None,
        region_name=options.get("region"),
        aws_access_key_id=unquote(parts.username) if parts.username else None,
        aws_secret_access_key=unquote(parts.password) if parts.password else None,
        config=Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 5}),
    )


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
