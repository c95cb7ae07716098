from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import StoreError
from pipeline.results.catalogue import FOLDER, MOST_FILES
from pipeline.results.objects import FolderObjects
from pipeline.results.schema import SCHEMAS
from pipeline.results.store import StoredTrial, TrialStore

from .test_store import finished_trial


def trial(number: int = 0, *statuses: str) -> StoredTrial:
    identity = f"{number:016x}"
    rows = [
        dict.fromkeys(SCHEMAS["trials"])
        | {"trial_id": identity, "seed": seed, "status": status, "wall_time_s": 1.5 + seed}
        for seed, status in enumerate(statuses or ("ok", "diverged"))
    ]
    stored = finished_trial(identity)
    tables = stored.tables | {"trials": pl.DataFrame(rows, schema=SCHEMAS["trials"])}
    return replace(stored, tables=tables, facts={"hostname": "here", "max_wall_time_s": 60.0})


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trials that were read."""
    names: list[str] = []
    read = FolderObjects.read

    def noted(self: FolderObjects, name: str) -> bytes | None:
        if name.endswith(".zip"):
            names.append(name)
        return read(self, name)

    monkeypatch.setattr(FolderObjects, "read", noted)
    return names


def files(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("*"))


def test_a_summary_is_what_the_trial_says_and_is_read_once(tmp_path: Path, reads: list[str]) -> None:
    store = TrialStore(tmp_path)
    for number in range(3):
        store.put(trial(number))
    expected = {trial(number).trial_id: trial(number).summary for number in range(3)}
    assert expected["0" * 16].statuses == ("ok", "diverged")
    assert expected["0" * 16].wall_time_s == 2.5
    assert store.summaries() == expected
    assert len(reads) == 3
    assert TrialStore(tmp_path).summaries() == expected
    assert len(reads) == 3
    store.put(trial(3))
    assert len(store.summaries()) == 4
    assert reads[3:] == [f"{3:016x}.zip"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_bucket_has_a_catalogue(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TrialStore(bucket)
    store.put(trial())
    assert store.summaries() == {"0" * 16: trial().summary}
    monkeypatch.setattr("pipeline.results.catalogue.Catalogue._summary", None)
    assert TrialStore(bucket).summaries() == {"0" * 16: trial().summary}


def test_a_trial_that_was_written_again_is_read_again(tmp_path: Path) -> None:
    store = TrialStore(tmp_path)
    store.put(trial(0, "timed_out"))
    assert not store.summaries()["0" * 16].is_final(61.0)
    assert store.summaries()["0" * 16].is_final(60.0)
    store.put(trial(0, "ok"))
    os.utime(tmp_path / f"{0:016x}.zip", ns=(1, 1))  # a clock that was moved
    assert store.summaries()["0" * 16].is_final(61.0)


def test_a_trial_that_is_gone_has_no_summary(tmp_path: Path) -> None:
    store = TrialStore(tmp_path)
    store.put(trial())
    assert store.summaries()
    (tmp_path / f"{0:016x}.zip").unlink()
    assert store.summaries() == {}


@pytest.mark.parametrize("damage", [b"", b"PAR1", "other columns"])
def test_a_damaged_catalogue_is_made_again(
    tmp_path: Path, damage: bytes | str, caplog: pytest.LogCaptureFixture
) -> None:
    store = TrialStore(tmp_path)
    store.put(trial())
    expected = store.summaries()
    (file,) = files(tmp_path)
    if isinstance(damage, bytes):
        file.write_bytes(damage)
    else:
        pl.read_parquet(file).rename({"spec": "x"}).write_parquet(file)
    with caplog.at_level(logging.WARNING):
        assert store.summaries() == expected
    assert "not a file of the catalogue" in caplog.text
    caplog.clear()
    assert store.summaries() == expected
    assert not caplog.text


def test_a_store_that_can_only_be_read_has_summaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TrialStore(tmp_path)
    store.put(trial())

    def refuse(*args: object) -> None:
        raise StoreError("cannot be written")

    monkeypatch.setattr(FolderObjects, "write", refuse)
    assert store.summaries() == {"0" * 16: trial().summary}
    assert not files(tmp_path)


def test_a_damaged_trial_is_quarantined(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = TrialStore(tmp_path)
    store.put(trial(0))
    store.put(trial(1))
    path = tmp_path / f"{0:016x}.zip"
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PAR1") - 30] ^= 1
    path.write_bytes(bytes(data))
    with caplog.at_level(logging.WARNING):
        assert list(store.summaries()) == [f"{1:016x}"]
    assert f"quarantined as {0:016x}.zip.damaged" in caplog.text


def test_many_files_become_one(tmp_path: Path, reads: list[str]) -> None:
    store = TrialStore(tmp_path)
    for number in range(MOST_FILES + 1):
        store.put(trial(number))
        assert len(store.summaries()) == number + 1
    assert len(files(tmp_path)) == 1
    assert len(TrialStore(tmp_path).summaries()) == MOST_FILES + 1
    assert len(reads) == MOST_FILES + 1


def test_a_trial_that_was_written_twice_is_read_once_more_only(tmp_path: Path, reads: list[str]) -> None:
    for number in range(8):  # whichever of the two files has the first name
        store = TrialStore(tmp_path / str(number))
        for status in ("timed_out", "ok"):
            store.put(trial(number, status))
            store.summaries()
        num_read = len(reads)
        assert store.summaries()[f"{number:016x}"].statuses[0] == "ok"
        assert len(reads) == num_read
