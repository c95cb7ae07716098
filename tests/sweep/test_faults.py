"""What the weather does to a sweep: the store is away for a while."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from pipeline.errors import StoreError
from pipeline.results import objects
from pipeline.results.store import TrialStore
from tests.s3_proxy import Proxy

from .fakes import NUM_STEPS, FakeTrain, assert_same_tables, grid, sweep, write_project

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
        proxy.goes_away(after=0, seconds=60.0)
        begun = time.monotonic()
        with pytest.raises(StoreError, match=r"s3://bucket-\w+/trials/probe-\w+: cannot be written: "):
            TrialStore(url).probe_writable()
        assert time.monotonic() - begun < 10
