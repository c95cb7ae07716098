from __future__ import annotations

import math
from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import clipping_ledger
from pipeline.statistics import GridTables


def with_norms(tables: GridTables, norms: dict[int, list[float]], threshold: float = 1.0) -> GridTables:
    rows = []
    for seed, own in norms.items():
        for step, norm in enumerate(own, start=1):
            base = {"arm": "gru", "length": 20, "seed": seed, "step": step}
            rows.append(base | {"metric": "grad_norm", "value": norm})
            rows.append(base | {"metric": "clipped_grad_norm", "value": min(norm, threshold)})
    return replace(tables, curves=pl.DataFrame(rows))


def test_share_of_clipped_steps_is_a_mean_over_seeds(exact: list[GridTables]) -> None:
    tables = with_norms(exact[0], {0: [2.0, 2.0, 0.5, 0.5], 1: [2.0, 2.0, 2.0, 0.5]})
    assert clipping_ledger.shares(tables)["mean"].to_list() == pytest.approx([0.625])
    assert clipping_ledger.title(tables) == "Clipping shortens 62 % of the GRU's steps"
    drawn = clipping_ledger.table(tables)
    assert drawn.filter(metric="clipped")["middle"].to_list() == [1.0, 1.0, 0.5, 0.0]
    assert drawn.filter(metric="clipped_grad_norm")["middle"].to_list() == [1.0, 1.0, 0.75, 0.5]


def test_steps_are_gathered_into_bins(exact: list[GridTables]) -> None:
    drawn = clipping_ledger.table(with_norms(exact[0], {0: [0.1] * 200, 1: [0.3] * 200}))
    norms = drawn.filter(metric="grad_norm")
    assert norms.height == clipping_ledger.MAX_BINS
    assert norms["middle"].to_list() == pytest.approx([0.2] * norms.height)
    assert norms["step"].is_sorted()


def test_infinite_norms_are_counted(exact: list[GridTables]) -> None:
    drawn = clipping_ledger.table(with_norms(exact[0], {0: [0.1, math.inf], 1: [0.3, 0.3]}))
    counts = drawn.filter(metric="grad_norm").select("num_seeds", "num_nonfinite").rows()
    assert counts == [(2, 0), (1, 1)]


def test_no_clipping_is_said(exact: list[GridTables]) -> None:
    assert clipping_ledger.title(with_norms(exact[0], {0: [0.1, 0.2]})) == "No step was clipped"
