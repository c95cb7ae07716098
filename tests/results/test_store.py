from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import polars as pl
import pytest

from pipeline.config import Paths
from pipeline.errors import StoreError, TableError
from pipeline.results import SCHEMAS, TRIAL_TABLES
from pipeline.results.store import StoredTrial, TrialStore

IDENTITY = "0123456789abcdef"


def finished_trial(identity: str = IDENTITY) -> StoredTrial:
    tables = {name: pl.DataFrame(schema=SCHEMAS[name]) for name in TRIAL_TABLES}
    curve = {"trial_id": identity, "seed": 0, "step": 1, "metric": "loss", "split": "train", "value": 0.5}
    tables["curves"] = pl.DataFrame([curve], schema=SCHEMAS["curves"])
    row = {**dict.fromkeys(SCHEMAS["trials"]), "trial_id": identity, "seed": 0, "status": "ok"}
    tables["trials"] = pl.DataFrame([row], schema=SCHEMAS["trials"])
    return StoredTrial(
        trial_id=identity,
        spec={"model": {"cell": "gru"}, "seeds": [0]},
        dataset_digest="digest",
        code_digest="code",
        facts={"hostname": "here"},
        tables=tables,
    )


def assert_same(first: StoredTrial | None, second: StoredTrial) -> None:
    assert first is not None
    assert (first.trial_id, first.spec, first.facts) == (second.trial_id, second.spec, second.facts)
    for name, frame in second.tables.items():
        assert first.tables[name].equals(frame)


def test_a_trial_from_before_a_table_existed_has_none_of_its_rows(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TrialStore(tmp_path)
    with monkeypatch.context() as earlier:
        earlier.setattr("pipeline.results.store.TRIAL_TABLES", tuple(t for t in TRIAL_TABLES if t != "gates"))
        store.put(finished_trial())
    assert_same(store.get(IDENTITY), finished_trial())


def use_it(store: TrialStore) -> None:
    """Everything a sweep does with a store."""
    store.probe_writable()
    assert store.ids() == frozenset()
    store.checkpoint(IDENTITY).save(b"half way")
    assert store.checkpoint(IDENTITY).load() == b"half way"
    assert store.ids() == frozenset()
    store.put(finished_trial())
    store.checkpoint(IDENTITY).clear()
    assert store.checkpoint(IDENTITY).load() is None
    assert store.ids() == {IDENTITY}
    assert_same(store.get(IDENTITY), finished_trial())
    store.objects.write(f"{IDENTITY}.zip", b"torn")
    assert store.get(IDENTITY) is None
    assert store.objects.names() == [f"{IDENTITY}.zip.damaged"]


def test_a_folder_keeps_trials_and_checkpoints(tmp_path: Path) -> None:
    store = TrialStore(tmp_path / "deep" / "store")
    assert store.is_local
    use_it(store)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_bucket_keeps_trials_and_checkpoints(bucket: str) -> None:
    store = TrialStore(bucket)
    assert not store.is_local
    use_it(store)


def test_equal_trials_make_equal_bytes() -> None:
    assert finished_trial().to_bytes() == finished_trial().to_bytes()


@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_a_truncated_object_is_quarantined_and_trains_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, keep: int
) -> None:
    store = TrialStore(tmp_path)
    (tmp_path / f"{IDENTITY}.zip").write_bytes(finished_trial().to_bytes()[:keep])
    with caplog.at_level(logging.WARNING):
        assert store.get(IDENTITY) is None
    assert f"quarantined as {IDENTITY}.zip.damaged" in caplog.text
    assert store.ids() == frozenset()
    store.put(finished_trial())
    assert_same(store.get(IDENTITY), finished_trial())


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    store, data = TrialStore(tmp_path), bytearray(finished_trial().to_bytes())
    data[data.index(b"PAR1") + 8] ^= 1
    (tmp_path / f"{IDENTITY}.zip").write_bytes(bytes(data))
    assert store.get(IDENTITY) is None


def test_another_trial_under_this_id_is_refused() -> None:
    with pytest.raises(StoreError, match="here: holds trial aaaa, expected bbbb"):
        StoredTrial.from_bytes(finished_trial("aaaa").to_bytes(), "bbbb", "here")


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(StoreError, match=r"here: not a stored trial: .*trial\.json"):
        StoredTrial.from_bytes((tmp_path / "x.zip").read_bytes(), IDENTITY, "here")


def test_a_wrong_table_is_never_stored(tmp_path: Path) -> None:
    stored = finished_trial()
    stored.tables["curves"] = stored.tables["curves"].drop("value")
    with pytest.raises(TableError, match=f"trial {IDENTITY}: table 'curves' lacks column 'value'"):
        TrialStore(tmp_path).put(stored)


def test_an_unwritable_store_is_an_error_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/store/probe-.*: cannot be written: Not a directory"):
        TrialStore(tmp_path / "file" / "store").probe_writable()


def test_the_probe_leaves_nothing(tmp_path: Path) -> None:
    TrialStore(tmp_path).probe_writable()
    assert list(tmp_path.iterdir()) == []


def test_a_relative_store_lies_below_the_project(tmp_path: Path) -> None:
    paths = Paths.at(tmp_path)
    for told, url in (
        (None, str(tmp_path / ".trials")),
        ("shared/trials", str(tmp_path / "shared" / "trials")),
        ("/shared/trials", "/shared/trials"),
        ("s3://bucket/trials?region=us-east-1", "s3://bucket/trials?region=us-east-1"),
    ):
        assert TrialStore.of(paths, told).url == url
