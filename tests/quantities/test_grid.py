from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from pipeline.quantities import Grid, Tables, grids_of
from pipeline.results import SCHEMAS
from tests.synthetic_results import Shape, study_tables

OVER = ("optimiser.learning_rate",)


def test_grids_hold_the_selected_settings_by_arm_and_length() -> None:
    adding, digits = grids_of("cells", study_tables(Shape(cells=("gru", "elman"))), OVER)
    assert (adding.arms, adding.lengths, adding.dataset) == (("gru", "elman"), [10, 20], "adding")
    assert (digits.arms, digits.lengths) == (("gru", "elman"), [16])
    assert (adding.runs.height, adding.all_runs.height) == (2 * 2 * 3, 2 * 2 * 2 * 3)
    assert adding["curves"]["trial_id"].n_unique() == adding.runs["trial_id"].n_unique() == 4
    assert adding.at("longest")["traces"]["timestep"].max() == 20


def test_the_timesteps_of_a_decoder_are_no_length_of_the_input() -> None:
    tables = study_tables(Shape(cells=("gru",)))
    part, timestep = pl.col("part").replace("input", "decoder"), pl.col("timestep")
    longer = pl.when(part == "decoder").then(timestep + 100).otherwise(timestep)
    tables["traces"] = tables["traces"].with_columns(part, timestep=longer)
    assert grids_of("cells", tables, OVER)[1].lengths == [16]


def test_an_axis_that_is_not_selected_over_tells_arms_apart() -> None:
    tables = study_tables(Shape(cells=("gru",), lengths=(10,), digits_length=None))
    tables["settings"] = tables["settings"].with_columns(selected=pl.lit(value=True))
    (grid,) = grids_of("cells", tables, ())
    assert grid.arms == (
        "gru, learning_rate=0.003",
        "gru, learning_rate=0.01",
    )


def one_grid(over: Sequence[str] = (), **columns: Sequence[object]) -> Grid:
    """Return a grid of as many settings as the columns have values (`__` for a point): `cell`, and axes."""
    axes = pl.DataFrame({name.replace("__", "."): values for name, values in columns.items()}, strict=False)
    shape = Shape(cells=("gru", "lstm"), lengths=(10,), learning_rates=(0.1, 0.2, 0.3), digits_length=None, num_seeds=1)
    tables = study_tables(shape)
    settings = (
        tables["settings"].head(axes.height).select(*SCHEMAS["settings"]).with_columns(selected=pl.lit(value=True))
    )
    tables["settings"] = settings.with_columns(axes)
    return grids_of("cells", tables, over)[0]


def test_a_variant_is_the_arm_and_an_axis_of_cells_follows() -> None:
    labels = ["clip + Ω", "clip + Ω", "plain", "plain"]
    assert one_grid(variant=labels).arms == (
        "clip + Ω",
        "plain",
    )
    assert one_grid(variant=labels, model__cell=["gru", "lstm"] * 2).arms == (
        "clip + Ω, gru",
        "clip + Ω, lstm",
        "plain, gru",
        "plain, lstm",
    )
    assert one_grid(variant=labels, model__cell=["gru"] * 4).arms == (
        "clip + Ω",
        "plain",
    )
    assert one_grid(variant=labels, dataset__length=[5, 6] * 2).arms == (
        "clip + Ω",
        "plain",
    )


def test_what_is_selected_over_is_in_no_arm_with_or_without_the_axis() -> None:
    labels, rates = ["a", "a", "b", "b"], [0.1, 0.2] * 2
    assert one_grid(OVER, variant=labels, optimiser__learning_rate=rates).arms == (
        "a",
        "b",
    )
    assert one_grid(OVER, variant=labels).arms == (
        "a",
        "b",
    )
    assert one_grid(("variant",), variant=["a", "b", "c"], model__cell=["gru"] * 3).arms == ("gru",)


def test_a_whole_object_is_said_by_its_name() -> None:
    optimisers = {"optimiser__name": ["sgd", "momentum"], "optimiser__momentum": [None, 0.9]}
    assert one_grid(**optimisers).arms == (
        "gru, sgd",
        "gru, momentum",
    )
    clippings = {"clipping__name": ["norm", "norm", "none"], "clipping__threshold": [0.1, 1.0, None]}
    assert one_grid(**clippings, clipping__kind=["l2"] * 3).arms == (
        "gru, norm, threshold=0.1",
        "gru, norm, threshold=1.0",
        "gru, none",
    )
    assert one_grid(clipping__name=["norm"] * 2, optimiser__name=["sgd", "adam"]).arms == (
        "gru, sgd",
        "gru, adam",
    )


def test_an_object_without_a_name_is_said_by_what_differs() -> None:
    windows = {"training__truncation__window": [5, None], "training__truncation__stride": [1, None]}
    assert one_grid(**windows).arms == (
        "gru, window=5, stride=1",
        "gru",
    )


def test_objects_inside_objects_are_said_by_name() -> None:
    start = {"start__recurrent__name": ["orthogonal", "uniform"], "start__recurrent__gain": [1.0, None]}
    assert one_grid(**start, start__input__name=["uniform"] * 2).arms == (
        "gru, orthogonal",
        "gru, uniform",
    )


def test_arms_that_short_words_would_confuse_say_every_field() -> None:
    gates = {"gates__f__name": ["unit", None], "gates__i__name": [None, "unit"]}
    assert one_grid(**gates).arms == (
        "gru, gates.f.name=unit",
        "gru, gates.i.name=unit",
    )


def test_a_failed_setting_has_the_length_of_its_dataset() -> None:
    shape = Shape(cells=("gru", "elman"), broken={"elman, lr=0.01": "error"})
    _, digits = grids_of("cells", study_tables(shape), OVER)
    assert digits.lengths == [16]
    assert digits.runs.filter(arm="elman")["status"].to_list() == ["error"] * 3


def test_one_length_of_a_grid_keeps_all_its_arms_and_remembers_nothing_of_the_whole() -> None:
    shape = Shape(cells=("gru", "elman"), digits_length=None)
    (whole,) = grids_of("cells", study_tables(shape), OVER)
    shortest = whole.at("shortest")
    assert (shortest.arms, shortest.lengths, whole.lengths) == (whole.arms, [10], [10, 20])
    assert whole.at(10) is shortest
    assert shortest.at("longest") is shortest
    assert whole.memo("key", lambda: 1) == 1
    assert shortest.memo("key", lambda: 2) == 2


def test_tables_are_kept_up_to_a_size_and_made_anew_beyond_it() -> None:
    made: list[str] = []

    def make(table: str) -> pl.DataFrame:
        made.append(table)
        return pl.DataFrame({"value": [0.0] * {"small": 10, "large": 1000}[table]})

    tables = Tables(["small", "large"], make, kept_bytes=100)
    assert [tables[name].height for name in ("small", "large", "small", "large")] == [10, 1000, 10, 1000]
    assert made == ["small", "large", "large"]
    assert (list(tables), len(tables), "none" in tables) == (["small", "large"], 2, False)
