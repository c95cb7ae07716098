from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.results.objects import FilesystemObjects, FolderObjects, Objects, open_objects


@pytest.fixture(params=["folder", "filesystem"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "folder":
        return FolderObjects(tmp_path / "store")
    fs = pytest.importorskip("pyarrow.fs")
    (tmp_path / "bucket" / "store").mkdir(parents=True)
    return FilesystemObjects(
        fs.SubTreeFileSystem(str(tmp_path / "bucket"), fs.LocalFileSystem()), "store/", "test://store"
    )


def test_what_is_written_is_read_and_listed(objects: Objects) -> None:
    objects.write("b", b"two")
    objects.write("a", b"one")
    assert objects.names() == ["a", "b"]
    assert objects.read("a") == b"one"


def test_a_second_write_replaces_the_first(objects: Objects) -> None:
    objects.write("a", b"one")
    objects.write("a", b"longer than one")
    assert objects.read("a") == b"longer than one"


def test_an_absent_object_reads_as_none_and_deletes_quietly(objects: Objects) -> None:
    objects.delete("a")
    assert objects.read("a") is None


def test_rename_and_delete(objects: Objects) -> None:
    objects.write("a", b"one")
    objects.rename("a", "b")
    assert objects.names() == ["b"]
    objects.delete("b")
    assert objects.names() == []


def test_an_empty_place_lists_nothing(tmp_path: Path) -> None:
    assert FolderObjects(tmp_path / "none").names() == []


def test_a_full_disk_keeps_the_older_object_and_leaves_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = FolderObjects(tmp_path)
    objects.write("a", b"older")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"/a: cannot be written: No space left on device"):
        objects.write("a", b"newer")
    assert objects.read("a") == b"older"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_killed_writers_temporary_is_never_listed_and_goes_after_a_day(tmp_path: Path) -> None:
    for name, age_s in ((".old.tmp", 90_000), (".new.tmp", 10)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    objects = FolderObjects(tmp_path)
    assert objects.names() == []
    objects.remove_stale_temporaries()
    assert [path.name for path in tmp_path.iterdir()] == [".new.tmp"]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda objects: objects.names(), "store: cannot be read"),
        (lambda objects: objects.read("a"), "store/a: cannot be read"),
        (lambda objects: objects.write("a", b""), "store/a: cannot be written"),
        (lambda objects: objects.rename("a", "b"), "store/a: cannot be renamed"),
        (lambda objects: objects.delete("a"), "store/a: cannot be removed"),
    ],
)
def test_a_place_that_is_a_file_is_an_error_that_names_it(tmp_path: Path, act: object, message: str) -> None:
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(StoreError, match=message):
        act(FolderObjects(tmp_path / "store"))


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    open_objects(f"file://{tmp_path}/with%20space").write("a", b"one")
    assert (tmp_path / "with space" / "a").read_bytes() == b"one"


def test_an_unknown_url_is_an_error() -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(StoreError, match=r"ftp2://host/x: expected a folder or a URL such as s3://"):
        open_objects("ftp2://host/x")
