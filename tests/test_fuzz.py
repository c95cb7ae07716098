"""A thousand damaged and hostile files, from a fixed seed: each is refused by name or quarantined, none runs.

What is damaged as a disk or a network would do it has bits, pieces and ends wrong; what is hostile has good checksums.
"""

from __future__ import annotations

import io
import json
import logging
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from pipeline.claims.ledger import load_rules
from pipeline.config import Params, Paths, digest_of_file, load_params, load_study
from pipeline.core.training import MemorySink, TrialResult, run_trial
from pipeline.data import Dataset, load_dataset, read_generator
from pipeline.data import files as data_files
from pipeline.errors import DatasetError, PipelineError, StoreError, TableError
from pipeline.results import files
from pipeline.results.catalogue import FOLDER
from pipeline.results.running import read_running
from pipeline.results.store import CheckpointSlot, StoredTrial, TrialStore
from pipeline.sweep import Setting, current_plan
from pipeline.sweep.adopt import first_difference
from pipeline.sweep.trial import Job, outcome_of, train_setting
from pipeline.sweep.upkeep import export_trials, import_trials
from tests.sweep.fakes import write_project

SEED = 20_261_129


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with one thing wrong."""
    at, length = rng.randrange(len(data)), rng.choice([1, 1, 2, 8, 64, 512])
    return rng.choice([
        lambda: data[:at],
        lambda: data[at:],
        lambda: data[:at] + data[at + length :],
        lambda: data[:at] + bytes(length) + data[at + length :],
        lambda: data[:at] + rng.randbytes(length) + data[at + length :],
        lambda: data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :],
        lambda: data[:at] + data[at : at + length] * 2 + data[at + length :],
        lambda: data + rng.randbytes(length),
        lambda: rng.randbytes(rng.choice([0, 1, 100])),
    ])()  # fmt: skip


VALUES: list[Any] = [
    None, True, 0, -1, 2**63, 1e308, float("nan"), float("-inf"), "", "x" * 5000, "../../etc", "\0", [], {}, [[]],
    {"name": "gru"}, {"": 1}, ["a", None], "2026-01-01", "!!python/name:os.system",
]  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container and key below a value of JSON or YAML."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def changed(value: Any, rng: random.Random) -> Any:
    """Return a value of JSON or YAML with one place of it set to something else, left out, or renamed."""
    value = json.loads(json.dumps(value))
    holder, key = rng.choice(list(places(value)))
    how = rng.randrange(4)
    if how == 0 and isinstance(holder, dict):
        holder[f"{key}{rng.choice('_.s')}"] = holder.pop(key)
    elif how == 1:
        del holder[key]
    else:
        holder[key] = rng.choice(VALUES)
    return value


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def unzipped(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@dataclass(frozen=True)
class Trained:
    """A project with a setting that has trained, and what its store then had of it."""

    paths: Paths
    params: Params
    store: TrialStore
    setting: Setting
    dataset: Dataset
    job: Job
    whole: StoredTrial
    checkpoint: bytes

    @property
    def name(self) -> str:
        return f"{self.setting.trial_id}.zip"

    def train(self) -> StoredTrial:
        """Train the setting from what checkpoint there is, and return it; the store is as before but for quarantine."""
        self.store.objects.delete(self.name)
        outcome = train_setting(self.job, self.setting, self.dataset)
        assert outcome.status == "ok", outcome.traceback
        stored = self.store.read(self.setting.trial_id)
        assert stored is not None
        return stored


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    paths, params = write_project(tmp_path_factory.mktemp("fuzz") / "project")
    store = TrialStore(paths.default_store)
    setting = current_plan(paths, params, "cells", store).settings[0]
    dataset, job = load_dataset(paths.dataset("adding"), 4), Job(store.url, None, "cpu", 1, 60.0)
    half_way = store.checkpoint(setting.trial_id)
    run_trial(setting.spec, dataset, MemorySink(), checkpoints=half_way, stop_at=3)
    checkpoint = half_way.load()
    assert checkpoint is not None
    half_way.clear()
    assert train_setting(job, setting, dataset).status == "ok"
    whole = store.read(setting.trial_id)
    assert whole is not None
    return Trained(paths, params, store, setting, dataset, job, whole, checkpoint)


@pytest.fixture
def rng() -> random.Random:
    return random.Random(SEED)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


def is_refused(read: Callable[[], object], errors: type[PipelineError] = PipelineError) -> bool:
    """Return whether something is refused by an error of the package; every other exception fails the test."""
    try:
        read()
    except errors as error:
        return bool(str(error))
    return False


# The trial store


def test_damaged_trials_are_quarantined_whole(
    trained: Trained, rng: random.Random, caplog: pytest.LogCaptureFixture
) -> None:
    store, good = trained.store, trained.whole.to_bytes()
    for _ in range(150):
        bad = damaged(good, rng)
        store.objects.write(trained.name, bad)
        store.summaries()
        found = store.get(trained.setting.trial_id)
        if found is None:
            assert store.objects.read(f"{trained.name}.damaged") == bad
            assert f"quarantined as {trained.name}.damaged" in caplog.messages[-1]
        else:  # of no consequence: what a zip says of dates and systems
            assert first_difference(trained.whole, found) is None
            assert (found.spec, found.facts) == (trained.whole.spec, trained.whole.facts)
    store.put(trained.whole)


def test_hostile_trials_are_quarantined_or_whole(trained: Trained, rng: random.Random) -> None:
    store, good = trained.store, unzipped(trained.whole.to_bytes())
    trials = trained.whole.tables["trials"]
    for _ in range(100):
        members, table = dict(good), rng.choice(trials.columns)
        name = rng.choice(list(members))
        how = rng.randrange(4)
        if how == 0:
            members["trial.json"] = json.dumps(changed(json.loads(members["trial.json"]), rng)).encode()
        elif how == 1:
            members[name] = damaged(members[name], rng)
        elif how == 2:
            members[rng.choice([name, "../up.parquet", "/etc/x"])] = members.pop(name)
        else:
            wrong = [trials.drop(table), trials.head(0), trials.rename({table: "other"}), trials.select(table)]
            wrong += [trials.with_columns(pl.lit(value).alias(table)) for value in (None, "x", -1, [1])]
            members["trials.parquet"] = parquet(rng.choice(wrong))
        store.objects.write(trained.name, zipped(members))
        for summary in store.summaries().values():
            assert summary.is_final(1.0) in {True, False}
        if (found := store.get(trained.setting.trial_id)) is not None:
            assert outcome_of(found).trial_id == trained.setting.trial_id
    store.put(trained.whole)


def test_a_damaged_catalogue_is_made_again(trained: Trained, rng: random.Random) -> None:
    store, catalogue = trained.store, trained.store.objects.below(FOLDER)
    store.put(trained.whole)
    truth = store.summaries()
    for case in range(60):
        (name, *_) = catalogue.names()
        good = catalogue.read(name) or b""
        frame = pl.read_parquet(io.BytesIO(good))
        column = rng.choice(["facts", "statuses", "spec", "size", "trial_id", "wall_time_s"])
        wrong = [frame.drop(column), frame.with_columns(pl.lit(None, frame.schema[column]).alias(column)), frame[:0]]
        wrong += [frame.with_columns(pl.lit(text).alias("facts")) for text in ("{", "[]", "null", "[" * 5000)]
        catalogue.write(name, damaged(good, rng) if case % 2 else parquet(rng.choice(wrong)))
        found = store.summaries()
        assert found.keys() == truth.keys()
        assert all(summary.is_final(1.0) for summary in found.values())
        for each in catalogue.names():
            catalogue.delete(each)
        assert store.summaries() == truth


def test_a_damaged_export_is_refused_before_the_first_trial_is_kept(
    trained: Trained, rng: random.Random, tmp_path: Path
) -> None:
    trained.store.put(trained.whole)
    export_trials(trained.store, tmp_path / "good.zip")
    good = (tmp_path / "good.zip").read_bytes()
    for case in range(50):
        file, other = tmp_path / "bad.zip", TrialStore(tmp_path / f"store-{case}")
        file.write_bytes(damaged(good, rng))
        if is_refused(lambda file=file, other=other: import_trials(other, file)):
            assert other.ids() == frozenset()


# Checkpoints


def test_training_starts_anew_from_a_damaged_checkpoint_and_ends_the_same(trained: Trained, rng: random.Random) -> None:
    slot = trained.store.checkpoint(trained.setting.trial_id)
    for case in range(160):
        bad = damaged(trained.checkpoint, rng)
        slot.save(bad)
        read_running(trained.store, trained.setting.trial_id)
        assert slot.load(quarantines=False) in {None, bad}
        if case % 16 == 0:
            assert first_difference(trained.whole, trained.train()) is None
    slot.clear()


def test_training_ends_whatever_a_checkpoint_holds(trained: Trained, rng: random.Random) -> None:
    slot = trained.store.checkpoint(trained.setting.trial_id)
    values = [None, "x", -1, 2**70, torch.zeros(3), torch.zeros(2, 2), [], {}, b"", float("nan")]
    for _ in range(15):
        content = torch.load(io.BytesIO(trained.checkpoint), weights_only=True)
        holder, key = rng.choice(list(places(content)))
        if (how := rng.randrange(3)) == 0 and isinstance(holder, dict):
            holder[f"{key}_"] = holder.pop(key)
        elif how == 1:
            del holder[key]
        else:
            holder[key] = rng.choice(values)
        buffer = io.BytesIO()
        torch.save(content, buffer)
        slot.save(buffer.getvalue())
        trained.train()


@pytest.mark.parametrize("error", [OSError("no space left"), MemoryError(), StoreError("away")])
def test_a_failure_of_the_machine_costs_no_checkpoint(trained: Trained, error: Exception) -> None:
    slot = trained.store.checkpoint(trained.setting.trial_id)
    slot.save(trained.checkpoint)

    def train(*_: object, checkpoints: CheckpointSlot, **__: object) -> TrialResult:
        checkpoints.load()
        raise error

    outcome = train_setting(replace(trained.job, train=train), trained.setting, trained.dataset)
    assert outcome.message == f"{type(error).__name__}: {error}"
    assert slot.load() == trained.checkpoint
    slot.clear()


# Configurations and datasets


def use(trained: Trained, which: str) -> object:
    """Read what a user may have written, as far as a plan does."""
    if which == "dataset":
        return read_generator(trained.paths.dataset_config("adding"))
    params = load_params(trained.paths)
    if which == "claims":
        return load_rules(trained.paths, {"cells": load_study(trained.paths, "cells")})
    return current_plan(trained.paths, params, params.studies[0], trained.store)


def config_of(paths: Paths, which: str) -> Path:
    named = {"study": paths.study_config("cells"), "scale": paths.scale_config("tiny"), "params": paths.params}
    named |= {"base": paths.base, "claims": paths.claims, "dataset": paths.dataset_config("adding")}
    return named[which]


CONFIGS = ("params", "study", "scale", "base", "dataset", "claims")


@pytest.mark.parametrize("which", CONFIGS)
def test_changed_configurations_are_refused_by_name_or_read(trained: Trained, rng: random.Random, which: str) -> None:
    path = config_of(trained.paths, which)
    good, num_refused = path.read_bytes(), 0
    try:
        for case in range(50):
            hostile = yaml.safe_dump(changed(yaml.safe_load(good), rng), sort_keys=False).encode()
            path.write_bytes(damaged(good, rng) if case % 2 else hostile)
            num_refused += is_refused(lambda: use(trained, which))
    finally:
        path.write_bytes(good)
    assert num_refused >= 25


LAUGHS = "\n".join(
    [
        "a: &a [x, x, x, x, x, x, x, x]",
        *(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    ]
)
"""A billion values in nine lines."""
YAML = [
    LAUGHS, "a: &a [*a]", "&a {x: *a}", "[" * 3000, "a: " + "- " * 1000, "a: 1\n---\nb: 2", "a: " + "9" * 10_000,
    "!!float x", "!!float ''", "!!int ''", "!!bool x", "!!timestamp x", "a: =", "%YAML 9.9\n---\na: 1", "? [a]\n: b",
    "<<: [1]", "a: *b", "x: 2026-99-99", "!!binary ////=", "!!omap {}", "!!pairs x", "!!map []", "\ufeffa: 1",
    "null: 2",
]  # fmt: skip


@pytest.mark.parametrize("which", ["params", "study", "dataset"])
def test_yaml_that_would_run_or_fill_the_memory_is_refused(trained: Trained, tmp_path: Path, which: str) -> None:
    path, mark = config_of(trained.paths, which), tmp_path / "ran"
    good = path.read_bytes()
    runs = [f"!!python/object/apply:os.system ['touch {mark}']", f"a: !!python/name:os.system ''\nb: {mark}"]
    try:
        for text in (*YAML, *runs):
            path.write_text(text)
            assert is_refused(lambda: use(trained, which)), text[:60]
    finally:
        path.write_bytes(good)
    assert not mark.exists()


def fitting(manifest: dict[str, Any], folder: Path, path: Path) -> dict[str, Any]:
    """Return a manifest that says of a file what it is."""
    for variant in manifest["variants"].values():
        if (entry := variant["files"].get(path.relative_to(folder).as_posix())) is not None:
            entry |= {"sha256": digest_of_file(path), "num_bytes": path.stat().st_size}
    return manifest


def test_changed_datasets_are_refused_by_name_or_whole(trained: Trained, rng: random.Random) -> None:
    folder = trained.paths.dataset("adding")
    manifest, arrays = folder / "manifest.json", sorted(folder.rglob("*.npy"))
    good = {path: path.read_bytes() for path in (manifest, *arrays)}
    for case in range(250):
        said, path = json.loads(good[manifest]), rng.choice((manifest, *arrays))
        if case % 3 == 0:
            path.write_bytes(damaged(good[path], rng))
        elif case % 3 == 1:
            manifest.write_text(json.dumps(changed(said, rng)))
        else:  # what the manifest says fits
            path = rng.choice(arrays)
            path.write_bytes(damaged(good[path], rng))
            manifest.write_text(json.dumps(fitting(said, folder, path)))
        is_refused(lambda: load_dataset(folder, 4, (6,)))
        if case % 25 == 0:
            is_refused(lambda: current_plan(trained.paths, trained.params, "cells", trained.store))
        for changed_file in {manifest, path}:
            changed_file.write_bytes(good[changed_file])


# Nothing is unpickled


def test_a_pickle_runs_nowhere(trained: Trained, tmp_path: Path) -> None:
    """Wherever bytes come from a store, a dataset or a file of the user's, bytes that would make a file do not."""
    mark = tmp_path / "ran"
    plain, tensors, objects = pickle.dumps(Payload(mark)), io.BytesIO(), io.BytesIO()
    torch.save({"code": Payload(mark), "progress": {}, "rows": b""}, tensors)
    np.save(objects, np.array([Payload(mark)], dtype=object), allow_pickle=True)
    rows, inside = io.BytesIO(), io.BytesIO()
    np.savez(rows, **{"curves/value": np.array([Payload(mark)], dtype=object)})
    content = torch.load(io.BytesIO(trained.checkpoint), weights_only=True)
    torch.save({**content, "rows": rows.getvalue()}, inside)
    slot, store = trained.store.checkpoint(trained.setting.trial_id), trained.store
    for data in (plain, tensors.getvalue(), objects.getvalue(), rows.getvalue(), inside.getvalue()):
        slot.save(data)
        assert read_running(store, trained.setting.trial_id) is None
        assert first_difference(trained.whole, trained.train()) is None
        members = {**unzipped(trained.whole.to_bytes()), "trials.parquet": data}
        for bad in (data, zipped(members)):
            store.objects.write(trained.name, bad)
            store.objects.below(FOLDER).write("x.parquet", data)
            assert store.summaries().keys() == set()
            assert store.get(trained.setting.trial_id) is None
        for ending in (".npz", ".parquet", ".csv"):
            (tmp_path / f"x{ending}").write_bytes(data)
            with pytest.raises(DatasetError):
                data_files.read_table(tmp_path / f"x{ending}", ["curves/value"])
        (tmp_path / "curves.parquet").write_bytes(data)
        with pytest.raises(TableError, match="not a readable Parquet file"):
            files.read_table("curves", tmp_path)
    folder = trained.paths.dataset("adding")
    array, manifest = min(folder.rglob("*.npy")), folder / "manifest.json"
    good = {path: path.read_bytes() for path in (array, manifest)}
    array.write_bytes(objects.getvalue())
    manifest.write_text(json.dumps(fitting(json.loads(good[manifest]), folder, array)))
    with pytest.raises(DatasetError, match="not an array .Object arrays cannot be loaded"):
        load_dataset(folder, 4)
    for path, data in good.items():
        path.write_bytes(data)
    assert not mark.exists()
    pickle.loads(plain)
    assert mark.exists()  # it would have


# Nothing is unpacked before it is known how large it is


def test_packed_archives_are_not_unpacked(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, zeros = trained.store, bytes(5_000_000)
    bomb = zipped({**unzipped(trained.whole.to_bytes()), "curves.parquet": zeros}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    with pytest.raises(StoreError, match="expected files that are stored as they are, got packed ones"):
        StoredTrial.from_bytes(bomb, trained.setting.trial_id, "here")
    slot = store.checkpoint(trained.setting.trial_id)
    slot.save(zipped(dict.fromkeys(unzipped(trained.checkpoint), zeros), zipfile.ZIP_DEFLATED))
    assert (slot.load(), slot.is_taken_up) == (None, False)
    assert f"{trained.setting.trial_id}.checkpoint.damaged" in store.objects.names()
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(1_000_000))  # packed, as users may
    assert len(data_files.read_table(tmp_path / "x.npz", ["x"])) == 1_000_000
    monkeypatch.setattr(data_files, "MAX_BYTES", 1_000_000)
    with pytest.raises(DatasetError, match=r"expected at most 1000000 bytes, got 8000128 packed into \d+; divide it"):
        data_files.read_table(tmp_path / "x.npz", ["x"])


def test_members_that_lie_on_each_other_are_not_read() -> None:
    """A zip may name the same bytes many times."""
    one = zipped({"a": bytes(1000)})
    buffer = io.BytesIO(one)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name in "bcdefgh":
            info = zipfile.ZipInfo(name)
            info.file_size = info.compress_size = 1000
            info.CRC, info.header_offset = archive.infolist()[0].CRC, 0
            archive.filelist.append(info)
            archive.NameToInfo[name] = info
            archive._didModify = True
    with pytest.raises(TableError, match="that lie side by side"):
        files.members_of(buffer.getvalue())


def test_more_rows_than_a_table_has_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 1000
    monkeypatch.setattr(files, "MAX_ROWS", limit)
    monkeypatch.setattr(data_files, "MAX_ROWS", limit)
    for num_rows in (limit, limit + 1):
        bomb = parquet(pl.DataFrame({"x": pl.repeat(0.0, num_rows, eager=True)}))
        (tmp_path / "x.parquet").write_bytes(bomb)
        if num_rows == limit:
            assert len(files.parquet_frame(bomb, "here")) == len(data_files.read_table(tmp_path / "x.parquet", ["x"]))
    with pytest.raises(TableError, match=f"here: expected at most {limit} rows, got more"):
        files.parquet_frame(bomb, "here")
    with pytest.raises(DatasetError, match=f"expected at most {limit} rows, got more; divide it"):
        data_files.read_table(tmp_path / "x.parquet", ["x"])
