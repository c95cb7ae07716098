"""What a week does to a sweep: the store is away for a while, the clock is set."""

from __future__ import annotations

import itertools
import re
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from pipeline.config import Params, Paths
from pipeline.errors import StoreError
from pipeline.results import objects
from pipeline.results.store import TrialStore
from pipeline.sweep import lease
from tests.s3_proxy import Proxy

from .fakes import NUM_STEPS, FakeTrain, assert_same_tables, grid, sweep, write_project

Project = tuple[Paths, Params]
MOTO_WARNS = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def behind(url: str, **options: float) -> tuple[Proxy, str]:
    """A proxy before the server of a store, and the store's URL through it."""
    server = dict(parse_qsl(urlsplit(url).query))["endpoint_override"]
    proxy = Proxy(server, **options)
    return proxy, url.replace(server, proxy.address)


@MOTO_WARNS
def test_a_store_that_is_away_and_refuses_one_request_in_ten_costs_nothing_but_time(
    bucket: str, tmp_path: Path
) -> None:
    two = grid(model__cell=["elman"], optimiser__learning_rate=[0.1, 0.2])
    paths, params = write_project(tmp_path / "project", grids=two)
    other, _ = write_project(tmp_path / "undisturbed", grids=two)
    journal = tmp_path / "journal"
    proxy, url = behind(bucket, refused=0.1, seed=3)
    with proxy:
        proxy.goes_away(after=30, seconds=1.0)
        shown = sweep(paths, replace(params, trial_store=url), FakeTrain(journal=journal))
    assert "2 trained, 0 diverged, 0 failed" in shown
    assert proxy.num_away > 0
    assert proxy.num_refused > 0
    lines = journal.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 2 * NUM_STEPS  # no step twice
    sweep(other, params, FakeTrain())
    assert_same_tables(other.results("cells"), paths.results("cells"))
    assert "2 from the store, 0 trained" in sweep(paths, replace(params, trial_store=bucket), FakeTrain())


@MOTO_WARNS
def test_a_store_that_stays_away_is_an_error_in_bounded_time(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "ATTEMPTS", 2)
    monkeypatch.setattr(objects, "HASTY_ATTEMPTS", 2)
    proxy, url = behind(bucket, refused=0.0, seed=3)
    with proxy:
        proxy.goes_away(after=0, seconds=300.0)
        begun = time.monotonic()
        with pytest.raises(StoreError, match=r"s3://bucket-\w+/trials/probe-\w+: cannot be written: "):
            TrialStore(url).probe_writable()
        assert time.monotonic() - begun < 60


def test_a_clock_that_jumps_by_an_hour_changes_nothing(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To and fro at every look, in the driver: leases and times count on clocks that cannot be set."""
    other, params = write_project(tmp_path / "undisturbed")
    sweep(other, params, FakeTrain())
    real, jumps = time.time, itertools.cycle([3600.0, -3600.0])
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.02)
    paths, params = project
    begun = time.monotonic()
    shown = sweep(paths, params, FakeTrain(delay_s=0.01))
    took_s = time.monotonic() - begun
    assert "4 trained, 0 diverged, 0 failed" in shown
    assert_same_tables(other.results("cells"), paths.results("cells"))
    assert float(re.findall(r"([\d.]+) s$", shown)[-1]) <= took_s + 0.1  # «4 settings: ..., 0.5 s»
