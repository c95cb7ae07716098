from __future__ import annotations

import math
from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import clipping_ledger
from pipeline.quantities import GridTables


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


def with_cosines(tables: GridTables, cosines: dict[str, list[list[float]]]) -> GridTables:
    rows = [
        {"arm": arm, "length": 20, "seed": seed, "step": step, "metric": metric, "value": value}
        for arm, seeds in cosines.items()
        for seed, own in enumerate(seeds)
        for step, cosine in enumerate(own, start=1)
        for metric, value in (("grad_norm", 2.0), ("clipped_grad_norm", 1.0), ("clip_cosine", cosine))
    ]
    return replace(tables, curves=pl.DataFrame(rows))


def test_clipping_that_turns_the_gradient_is_the_message(exact: list[GridTables]) -> None:
    turned = {"gru": [[0.8, 0.6], [0.7, 0.9], [0.75, 0.75]]}
    turned |= {"elman": [[1.0, 1.0], [1.0, 1.0 - 1e-9]]}
    tables = with_cosines(exact[0], turned)
    assert dict(clipping_ledger.cosines(tables).select("arm", "mean").iter_rows())["gru"] == pytest.approx(0.75)
    assert clipping_ledger.title(tables) == (
        "Clipping turns the gradient of the GRU: mean cosine of clipped steps 0.75 [0.63, 0.87]; "
        "1 arm only shortened it"
    )


def test_clipping_that_turns_in_some_seeds_only_is_not_shown_to_turn(exact: list[GridTables]) -> None:
    tables = with_cosines(exact[0], {"gru": [[0.8], [1.0]]})
    assert clipping_ledger.title(tables) == "Clipping shortens 100 % of the GRU's steps"


def test_a_cosine_has_a_row_of_panels(exact: list[GridTables]) -> None:
    tables = with_cosines(exact[0], {"gru": [[0.75, 0.75], [0.7, 0.7], [0.65, 0.65]]})
    drawn = clipping_ledger.table(tables).filter(metric="cosine")
    assert drawn["middle"].to_list() == pytest.approx([0.7] * 2)
    assert [ax.get_ylabel() for ax in clipping_ledger.draw(tables).axes] == ["gradient norm", "share clipped", "cosine"]


def test_at_most_four_arms_stand_side_by_side(many: GridTables) -> None:
    assert len(clipping_ledger.draw(many).axes) == 2 * clipping_ledger.MAX_COLUMNS
    assert "4 of 12 arms are shown" in clipping_ledger.caption(many)
    assert clipping_ledger.title(many).startswith("Clipping shortens from ")
