from __future__ import annotations

import math

import polars as pl
import pytest

from pipeline.figures.frame import FAINT_MEANS, TOP_LAYER
from pipeline.figures.gradients import (
    gradient_by_lag,
    gradient_by_layer,
    gradient_heatmap,
    gradient_heatmap_row,
    gradient_into_encoder,
    input_gradients,
)
from pipeline.figures.style import to_png, to_svg
from pipeline.quantities import Grid
from tests.figures.conftest import changed, grids, legend, panels
from tests.synthetic_decoding import ATTENTION, RECURRENCE, Arm, Setting, decoding_grid, with_tables
from tests.synthetic_dynamics import dynamical_grid
from tests.synthetic_results import END_FACTORS, Shape, Variant

EXACT = Setting(spread=0.0)


def test_norms_are_relative_to_lag_zero_at_the_longest_length(exact: list[Grid]) -> None:
    drawn = gradient_by_lag.view(exact[0]).means.filter(stage="end", arm="lstm", state="c")
    assert drawn["lag"].to_list() == list(range(20))
    assert drawn["mean"].to_list() == pytest.approx([lag * math.log10(0.985) for lag in range(20)], abs=1e-12)


def test_the_fastest_and_the_slowest_decay_are_the_finding(exact: list[Grid]) -> None:
    title = gradient_by_lag.view(exact[0]).title
    fast, slow = (f"{-1 / math.log10(END_FACTORS[series]):.0f}" for series in ("elman/h", "lstm/c"))
    assert f"tenfold every {fast} timesteps in the Elman network's h, every {slow} in the LSTM's c" in title


@pytest.mark.parametrize(
    ("end", "finding"),
    [
        ({"elman/h": 0.85, "gru/h": 1.02}, "no decay is established in the GRU's h"),
        ({"elman/h": 0.85, "gru/h": 1.001}, "it keeps its size in the GRU's h"),
        ({"elman/h": 1.1, "gru/h": 1.1}, "no gradient is shown to decay with lag"),
    ],
)
def test_what_does_not_decay_is_no_decay(end: dict[str, float], finding: str) -> None:
    (grid,) = grids(Shape(cells=("elman", "gru"), digits_length=None, end_factors=end, noise=0.0))
    assert finding in gradient_by_lag.view(grid).title


def test_one_seed_establishes_nothing() -> None:
    (grid,) = grids(Shape(num_seeds=1, digits_length=None))
    assert "one seed has no interval" in gradient_by_lag.view(grid).title


def test_a_diverged_replica_is_in_the_first_panel_only(broken: list[Grid]) -> None:
    view = gradient_by_lag.view(broken[0])
    drawn = view.means.filter(arm="elman", lag=3)
    assert dict(drawn.select("stage", "num_seeds").iter_rows()) == {"initialisation": 3, "end": 2}
    assert "1 diverged and 1 ran out of time" in view.caption


def test_zero_and_nan_are_counted(exact: list[Grid]) -> None:
    seed, at = pl.col("seed"), pl.col("timestep") == 5
    norm = pl.when((seed == 0) & at).then(-math.inf).when((seed == 1) & at).then(math.nan).otherwise("log10_norm")
    grid = changed(exact[0], traces=exact[0]["traces"].with_columns(log10_norm=norm))
    drawn = gradient_by_lag.view(grid).means.filter(lag=15, stage="end", arm="gru")
    assert drawn.select("num_seeds", "num_nonfinite").rows() == [(1, 2)]
    assert FAINT_MEANS in gradient_by_lag.view(grid).caption  # one of three seeds is left there


def test_many_arms_have_one_state_each(many: Grid) -> None:
    labels = legend(gradient_by_lag.draw(many))
    assert labels[0] == "tanh, orthogonal ×1.00 h  ×0.800 → ×0.800"
    assert labels[3] == "tanh, orthogonal ×1.03 h  ×0.800 → no fit"  # every seed diverged
    assert len(labels) == 12
    variants = {f"bias {i}": Variant("lstm", 0.5, 0.9) for i in range(5)}
    (lstms,) = grids(Shape(variants=variants, digits_length=None))
    assert gradient_by_lag.view(lstms).rows["state"].unique().to_list() == ["c"]


def test_every_layer_and_direction_has_a_line(deep: Grid) -> None:
    drawn = gradient_by_layer.view(deep).means.filter(stage="end", arm="elman")
    assert drawn.select("layer", "direction").unique().height == 6
    slope = math.log10(END_FACTORS["elman/h"])
    first = drawn.filter(layer=0, direction="forward")["mean"].to_list()
    assert first == pytest.approx([-1.8 - 0.8 + 1.5 * slope * (20 - t) for t in range(1, 21)])
    backward = drawn.filter(layer=2, direction="backward")["mean"].to_list()
    assert backward == pytest.approx([-1.8 + slope * (t - 1) for t in range(1, 21)])
    assert len(legend(gradient_by_layer.draw(deep))) == 6


def test_the_finding_of_layers_follows_the_gap(deep: Grid) -> None:
    title = gradient_by_layer.view(deep).title
    assert "is below the last layer's in the LSTM (0.91 [0.91, 0.91] decades) and the Elman network" in title
    shift = pl.when(pl.col("layer") == 0).then(9 * pl.col("seed") - 8.0).otherwise(0.0)
    wild = changed(deep, traces=deep["traces"].with_columns(log10_norm=pl.col("log10_norm") + shift))
    title = gradient_by_layer.view(wild).title
    assert "no difference is established in the LSTM (-0.094 [-22, 22] decades)" in title
    assert "smaller" not in title
    lifted = pl.when(pl.col("layer") == 0).then(pl.col("log10_norm") + 8).otherwise("log10_norm")
    title = gradient_by_layer.view(changed(deep, traces=deep["traces"].with_columns(log10_norm=lifted))).title
    assert "is above the last layer's in the LSTM (7.1 [7.1, 7.1] decades)" in title


def test_one_layer_both_ways_compares_directions(deep: Grid) -> None:
    flat = changed(deep, traces=deep["traces"].filter(pl.col("layer") == 0, pl.col("arm") == "elman"))
    assert "forward minus the backward states after training: the Elman network" in gradient_by_layer.view(flat).title
    assert gradient_by_layer.draw(flat).axes


def test_of_many_deep_arms_only_the_end_is_drawn() -> None:
    variants = {f"deep {i}": Variant("elman", 0.7, 0.8 + 0.02 * i) for i in range(7)}
    shape = Shape(variants=variants, num_layers=2, noise=0.0, digits_length=None, lengths=(6,), learning_rates=(0.01,))
    (grid,) = grids(shape)
    view = gradient_by_layer.view(grid)
    assert view.rows["stage"].unique().to_list() == ["end"]
    assert len(view.shown) == 6
    assert "6 of 7 arms are shown" in view.caption


def test_other_figures_take_the_last_layer_forward(deep: Grid, measured: Grid) -> None:
    assert not gradient_by_layer.is_of(measured)
    drawn = gradient_heatmap.view(deep).means.filter(arm="elman", step=0)
    assert drawn["mean"][-1] == pytest.approx(-1.5)
    assert TOP_LAYER in gradient_by_lag.view(deep).caption
    assert TOP_LAYER not in gradient_by_lag.view(measured).caption


def test_a_heat_map_has_every_timestep_of_scheduled_steps(exact: list[Grid]) -> None:
    means = gradient_heatmap.view(exact[0]).means
    panel = means.filter(arm="elman", state="h", step=0)
    assert panel["timestep"].to_list() == list(range(1, 21))
    assert panel["mean"].to_list() == pytest.approx([-1.5 + math.log10(0.6) * lag for lag in range(19, -1, -1)])
    assert means["num_seeds"].unique().to_list() == [3]


def test_a_heat_maps_finding_is_the_decades_lost(exact: list[Grid]) -> None:
    least, most = (-19 * math.log10(factor) for factor in (0.985, 0.85))
    title = gradient_heatmap.view(exact[0]).title
    assert f"{least:.2f} decades (LSTM's c) below to {most:.1f} decades (Elman's h) below" in title


def test_one_setting_is_drawn_alone(exact: list[Grid]) -> None:
    trial = exact[0].runs.filter(arm="lstm", length=20)["trial_id"][0]
    figure = gradient_heatmap.draw(exact[0].of_trial(trial))
    assert panels(figure)[:2] == ["LSTM h", "LSTM c"]
    assert to_png(figure).startswith(b"\x89PNG")


def test_of_many_arms_some_have_a_heat_map(many: Grid) -> None:
    view = gradient_heatmap.view(many)
    assert {"tanh, orthogonal ×1.00", "tanh, orthogonal ×1.11"} <= set(view.shown)
    assert f"{len(view.shown)} of 12 arms are shown" in view.caption


def test_a_row_of_heat_maps_is_of_h_at_the_steps_of_the_longest_training() -> None:
    variants = {f"f{i}": Variant("lstm", 0.5, 0.80 + 0.02 * i) for i in range(6)} | {"fast": Variant("gru", 0.5, 0.99)}
    patience = {"lstm": 90.0, "gru": 2.0}
    (grid,) = grids(
        Shape(
            variants=variants, patience=patience, noise=0.0, digits_length=None, lengths=(20,), learning_rates=(0.01,)
        )
    )
    assert grid["traces"].filter(arm="fast")["step"].max() < 40  # it stops at the criterion
    view = gradient_heatmap_row.view(grid)
    steps = view.means.group_by("arm").agg(pl.col("step").unique().sort())["step"].to_list()
    assert steps == [steps[0]] * 7
    assert steps[0][-1] == 40
    assert view.rows["state"].unique().to_list() == ["h"]
    ends = view.means.filter(arm="fast", timestep=1).sort("step")["mean"].to_list()
    own = grid["traces"].filter(arm="fast", quantity="h", timestep=1, seed=0).sort("step")["log10_norm"]
    assert ends[-1] == pytest.approx(own[-1], abs=1e-6)  # the last measurement stands for the steps after it
    assert view.shown == ["fast", "f4", "f3", "f2", "f0"]  # least decades lost first
    figure = gradient_heatmap_row.draw(grid)
    assert panels(figure)[:5] == ["fast h", "f4 h", "f3 h", "f2 h", "f0 h"]
    assert [bool(ax.get_ylabel()) for ax in figure.axes[:5]] == [True, False, False, False, False]
    limits = {ax.collections[0].get_clim() for ax in figure.axes[:5]}
    assert len(limits) == 1  # one scale of colours


def test_gradients_into_an_encoder_are_of_encoders_alone(exact: list[Grid]) -> None:
    assert gradient_into_encoder.is_of(decoding_grid(ATTENTION))
    assert not gradient_into_encoder.is_of(exact[0])
    assert not gradient_into_encoder.is_of(decoding_grid({"self-attention": RECURRENCE["self-attention"]}))


def test_encoder_norms_are_relative_to_the_last_token() -> None:
    grid = decoding_grid(ATTENTION, EXACT)
    drawn = gradient_into_encoder.view(grid).means.filter(stage="end", arm="none")
    assert drawn["lag"].to_list() == list(range(40))
    assert drawn["mean"].to_list() == pytest.approx([lag * math.log10(0.85) for lag in range(40)], abs=1e-12)
    assert legend(gradient_into_encoder.draw(grid))[0] == "none  ×0.700 → ×0.850"
    assert "none 1.00; dot 1.00; additive 1.00" in gradient_into_encoder.view(grid).caption  # R²


def test_only_the_last_layer_of_the_encoder_and_its_h_are_taken() -> None:
    grid = decoding_grid(ATTENTION, EXACT)
    traces = grid["traces"]
    other = traces.filter(part="encoder").with_columns(log10_norm=pl.lit(7.0))
    below = traces.with_columns(layer=pl.when(pl.col("part") == "encoder").then(1).otherwise("layer"))
    one = pl.lit(1, pl.Int64)
    backward = other.with_columns(layer=one, direction=pl.lit("backward"))
    cell = other.with_columns(layer=one, quantity=pl.lit("c"))
    decoder = other.with_columns(part=pl.lit("decoder"), timestep=pl.col("timestep") + 50)
    mixed = changed(grid, traces=pl.concat([other, below, backward, cell, decoder], how="vertical_relaxed"))
    assert gradient_into_encoder.view(mixed).means.equals(gradient_into_encoder.view(grid).means)


@pytest.mark.parametrize(
    ("arms", "finding"),
    [
        (ATTENTION, "by ×0.850 [0.850, 0.850] without attention, by ×0.980 [0.980, 0.980] with it"),  # √(.99 · .97)
        (
            {"a": Arm(factors=(0.7, 0.8)), "b": Arm(factors=(0.7, 0.9))},
            "by ×0.800 [0.800, 0.800] with a, by ×0.900 [0.900, 0.900] with b",
        ),
        ({"a": Arm()}, "by ×0.900 [0.900, 0.900] with a"),
        ({"none": Arm(), "dot": Arm(attends=True)}, "Inconclusive: no difference"),
        (
            {"none": Arm(factors=(0.6, 0.9)), "dot": Arm(factors=(0.95, 0.9), attends=True)},
            "by ×0.600 [0.600, 0.600] without attention, by ×0.950 [0.950, 0.950] with it; after training no",
        ),
        ({"a": Arm(diverged=(0, 1, 2))}, "only the initial gradient is known"),
    ],
)
def test_factors_with_and_without_attention_are_the_finding(arms: dict[str, Arm], finding: str) -> None:
    grid = decoding_grid(arms, EXACT)
    assert finding in gradient_into_encoder.view(grid).title
    assert b"<svg" in to_svg(gradient_into_encoder.draw(grid))


def test_input_gradients_compare_arms_with_and_without_recurrence(exact: list[Grid]) -> None:
    assert input_gradients.is_of(decoding_grid(RECURRENCE))
    assert not input_gradients.is_of(decoding_grid(ATTENTION))
    assert not input_gradients.is_of(exact[0])  # recurrent only, with the gradient of their input
    assert not input_gradients.is_of(decoding_grid({"self-attention": Arm(recurs=False)}))
    assert legend(input_gradients.draw(decoding_grid(RECURRENCE))) == ["LSTM", "self-attention (no recurrence)"]
    assert "With recurrence: LSTM." in input_gradients.view(decoding_grid(RECURRENCE)).caption


def test_input_norms_are_relative_to_the_largest_of_the_replica() -> None:
    grid = decoding_grid({**RECURRENCE, "growing": Arm(recurs=False, factors=(1.1, 1.1))}, EXACT)
    drawn = input_gradients.view(grid).means.filter(stage="end")
    means = {arm: drawn.filter(arm=arm)["mean"].to_list() for arm in grid.arms}
    assert means["lstm"] == pytest.approx([lag * math.log10(0.8) for lag in range(40)], abs=1e-12)
    assert means["growing"] == pytest.approx([(lag - 39) * math.log10(1.1) for lag in range(40)], abs=1e-12)


def test_what_the_farther_half_gets_is_the_finding() -> None:
    far = [-sum(lag * math.log10(factor) for lag in range(20, 40)) / 20 for factor in (0.8, 0.99)]
    title = input_gradients.view(decoding_grid(RECURRENCE, Setting(spread=0.01))).title
    assert f"{far[0]:.1f} [2.8, 2.9] decades below the largest with recurrence, {far[1]:.2f} [0.13, 0.13]" in title


@pytest.mark.parametrize(
    ("arms", "finding"),
    [
        ({"lstm": Arm(), "self-attention": Arm(recurs=False)}, "Inconclusive: no difference between input gradients "),
        ({"lstm": Arm(diverged=(0, 1, 2)), "self-attention": Arm(recurs=False)}, "no replica of both kinds"),
    ],
)
def test_what_is_not_established_is_inconclusive(arms: dict[str, Arm], finding: str) -> None:
    grid = decoding_grid(arms, EXACT)
    assert finding in input_gradients.view(grid).title
    assert b"<svg" in to_svg(input_gradients.draw(grid))


def test_an_input_without_gradient_is_counted_and_so_is_a_replica_without_any() -> None:
    grid = decoding_grid(RECURRENCE, EXACT)
    far, of_attention = pl.col("timestep") == 1, pl.col("arm") == "self-attention"
    none = (far & ~of_attention & (pl.col("part") == "input")) | (of_attention & (pl.col("seed") == 0))
    norm = pl.when(none).then(-math.inf).otherwise("log10_norm")
    grid = changed(grid, traces=grid["traces"].with_columns(log10_norm=norm))
    drawn = input_gradients.view(grid).means.filter(stage="end")
    assert drawn.filter(arm="lstm", lag=39).select("num_seeds", "num_nonfinite").rows() == [(0, 3)]
    assert drawn.filter(arm="self-attention", lag=0).select("num_seeds", "num_nonfinite").rows() == [(2, 1)]


def test_of_a_cell_with_more_states_h_and_c_are_drawn() -> None:
    """As of the sLSTM, which has a normaliser and a stabiliser besides."""
    made = dynamical_grid({"lstm": (0.9, 0.99), "gru": (0.8, 0.9)})
    traces = made["traces"]
    more = [traces.filter(arm="lstm").with_columns(quantity=pl.lit(state)) for state in "cnm"]
    view = gradient_by_lag.view(with_tables(made, traces=pl.concat([traces, *more])))
    assert {*view.means.select("arm", "state").iter_rows()} == {("lstm", "h"), ("lstm", "c"), ("gru", "h")}
    assert b"<svg" in to_svg(view.frame.draw(view.grid))
