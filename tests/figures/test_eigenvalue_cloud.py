from __future__ import annotations

from dataclasses import replace

import polars as pl

from pipeline.figures import eigenvalue_cloud
from pipeline.quantities import GridTables


def test_share_outside_the_unit_circle(exact: list[GridTables]) -> None:
    rows = [
        {"arm": "elman", "gate": "h", "length": 20, "seed": seed, "step": step, "index": i, "real": x, "imag": y}
        for seed in (0, 1)
        for step, values in ((0, [(0.6, 0.6), (0.0, 0.9)]), (40, [(0.8, 0.8), (-0.5, 0.0)]))
        for i, (x, y) in enumerate(values)
    ]
    place = {"part": pl.lit("recurrent"), "layer": pl.lit(0), "direction": pl.lit("forward")}
    tables = replace(exact[0], eigenvalues=pl.DataFrame(rows).with_columns(**place))
    shares = dict(eigenvalue_cloud.shares_outside(tables).select("stage", "mean").iter_rows())
    assert shares == {"initialisation": 0.0, "end": 0.5}
    assert eigenvalue_cloud.title(tables) == (
        "Training takes the share of the Elman network's eigenvalues outside the unit circle from 0.0 % to 50.0 %"
    )


def test_the_candidate_of_a_gated_cell_stands_in_for_a_missing_elman_network(exact: list[GridTables]) -> None:
    gated = exact[0].eigenvalues.filter(pl.col("arm") == "gru")
    assert eigenvalue_cloud.table(replace(exact[0], eigenvalues=gated))["gate"].unique().to_list() == ["n"]
    assert not eigenvalue_cloud.applies(replace(exact[0], eigenvalues=gated.clear()))


def test_of_many_arms_six_have_a_panel(many: GridTables) -> None:
    assert eigenvalue_cloud.table(many)["arm"].n_unique() == 12
    assert sum(ax.get_visible() for ax in eigenvalue_cloud.draw(many).axes) == 6
    assert "6 of 12 arms are shown" in eigenvalue_cloud.caption(many)
    assert eigenvalue_cloud.title(many).startswith("After training ")


def test_of_several_layers_the_last_one_is_taken(deep: GridTables) -> None:
    drawn = eigenvalue_cloud.table(deep).filter(stage="end", seed=0)
    assert drawn["index"].to_list() == list(range(4))
