from __future__ import annotations

import math

import pytest

from pipeline.figures import gradient_heatmap
from pipeline.figures.style import to_png
from pipeline.quantities import GridTables
from tests.synthetic_results import Shape, study_tables


def test_table_has_every_timestep_of_scheduled_steps(exact: list[GridTables]) -> None:
    tables = exact[0]
    drawn = gradient_heatmap.table(tables.at_longest(tables.traces))
    panel = drawn.filter(arm="elman", quantity="h", step=0)
    assert panel["timestep"].to_list() == list(range(1, 21))
    assert panel["mean"].to_list() == pytest.approx([-1.5 + math.log10(0.6) * lag for lag in range(19, -1, -1)])
    assert drawn["num_seeds"].unique().to_list() == [3]


def test_title_states_the_decades_lost(exact: list[GridTables]) -> None:
    least, most = (-19 * math.log10(factor) for factor in (0.985, 0.85))
    assert gradient_heatmap.title(exact[0]) == (
        f"After training the first timestep's gradient lies {least:.2f} decades (LSTM's c) below to {most:.1f} decades "
        "(Elman's h) below the last one's"
    )


def test_one_setting_is_drawn_from_its_traces_alone() -> None:
    tables = study_tables(Shape(lengths=(10,), cells=("lstm",), digits_length=None))
    trial = tables["settings"]["trial_id"][0]
    figure = gradient_heatmap.draw_for_setting(tables["traces"].filter(trial_id=trial))
    assert [ax.get_title(loc="left") for ax in figure.axes[:2]] == ["∂L/∂h", "∂L/∂c"]
    assert to_png(figure).startswith(b"\x89PNG")


def test_of_many_arms_six_have_a_panel(many: GridTables) -> None:
    figure = gradient_heatmap.draw(many)
    assert len([ax for ax in figure.axes if ax.get_title(loc="left")]) == 6
    assert "6 of 12 arms are shown" in gradient_heatmap.caption(many)
