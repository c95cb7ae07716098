from __future__ import annotations

import polars as pl
import pytest

from pipeline.figures.decoding import error_by_source_length, exposure_bias, forcing_schedule
from pipeline.figures.findings import with_arm
from pipeline.figures.style import to_svg
from pipeline.quantities import Grid
from tests.synthetic_attention import autoencoding, grid
from tests.synthetic_decoding import (
    ATTENTION,
    LAST,
    SCHEDULES,
    Arm,
    Setting,
    all_lost,
    decoding_grid,
    token_error,
    with_tables,
)


@pytest.fixture(scope="module")
def attended() -> Grid:
    return decoding_grid(ATTENTION)


@pytest.fixture(scope="module")
def forced() -> Grid:
    return decoding_grid(SCHEDULES)


def test_figures_of_decoders_need_one() -> None:
    no_decoder = grid(["lstm"], autoencoding)
    assert not any(frame.is_of(no_decoder) for frame in (exposure_bias, error_by_source_length, forcing_schedule))


def test_arms_that_attend_are_told_from_the_one_that_does_not(attended: Grid) -> None:
    names = [with_arm(arm, attended) for arm in attended.arms]
    assert names == ["without attention", "with dot", "with additive"]


@pytest.mark.parametrize("others", [{}, {"input feeding": Arm()}])
def test_where_several_or_all_do_not_attend_every_arm_has_its_name(others: dict[str, Arm]) -> None:
    assert with_arm("none", decoding_grid({"none": Arm(), **others})) == "with none"


def test_exposure_bias_needs_both_modes(forced: Grid) -> None:
    assert exposure_bias.is_of(forced)
    one_way = forced["curves"].filter((pl.col("mode") != "teacher_forced") | (pl.col("split") != "test"))
    assert not exposure_bias.is_of(with_tables(forced, curves=one_way))


@pytest.mark.parametrize(
    ("arms", "numbers"),
    [
        (
            {"always": Arm(drift=0.031), "never": Arm(drift=0.0)},
            ["14 [13, 15] percentage points with always", "0 with never"],
        ),
        ({"always": Arm(drift=0.031)}, ["14 [13, 15] percentage points"]),
        ({"always": Arm(drift=0.0)}, ["Inconclusive: no gap"]),
        ({"a": Arm(), "b": Arm()}, ["Inconclusive: no difference between arms"]),
    ],
)
def test_the_title_states_gaps_that_differ(arms: dict[str, Arm], numbers: list[str]) -> None:
    title = exposure_bias.view(decoding_grid(arms)).title
    assert all(number in title for number in numbers)


def test_the_one_arm_without_attention_is_named_so() -> None:
    arms = {"none": Arm(drift=0.03), "dot": Arm(attends=True, drift=0.0)}
    assert "points without attention" in exposure_bias.view(decoding_grid(arms)).title


def test_diverged_replicas_are_in_no_gap() -> None:
    caption = exposure_bias.view(decoding_grid(SCHEDULES | {"lost": Arm(diverged=(2,))})).caption
    assert "1 diverged: diverged and failed ones are not shown" in caption
    assert "means over 2 to 3 seeds" in caption
    assert exposure_bias.view(all_lost(decoding_grid(SCHEDULES))).title.startswith("Inconclusive")


def test_of_many_arms_four_are_drawn_along_the_output_and_every_gap() -> None:
    tables = decoding_grid({f"schedule {i}": Arm(drift=0.01 * i) for i in range(9)})
    along, gaps = exposure_bias.draw(tables).axes
    assert len(along.lines) == 2 * 4
    assert [label.get_text() for label in gaps.get_yticklabels()] == [f"schedule {i}" for i in range(9)]
    assert "4 of 9 arms are drawn: the extremes by the gap" in exposure_bias.view(tables).caption


def test_teacher_forcing_is_dashed() -> None:
    along = exposure_bias.draw(decoding_grid({"always": Arm()})).axes[0]
    looks = {line.get_linestyle(): line.get_marker() for line in along.lines}
    assert looks["--"] == looks["-"] != ""
    assert along.get_ylim()[0] == 0


def test_one_seed_is_drawn_without_intervals() -> None:
    tables = decoding_grid(SCHEDULES, Setting(num_seeds=1))
    assert exposure_bias.view(tables).title.startswith("Inconclusive")
    assert b"<svg" in to_svg(exposure_bias.draw(tables))


def test_error_by_source_length_needs_several_lengths(attended: Grid) -> None:
    assert error_by_source_length.is_of(attended)
    assert not error_by_source_length.is_of(decoding_grid(ATTENTION, Setting(source_lengths=(10,))))
    trained = Setting(source_lengths=(10,), trained_lengths=(10, 20))
    assert error_by_source_length.is_of(decoding_grid(ATTENTION, trained))


@pytest.mark.parametrize(
    ("arms", "title"),
    [
        (
            {"none": ATTENTION["none"], "dot": ATTENTION["dot"]},
            "Without attention the error grows from 3.0 % at 10 source tokens to 80 % at 40; "
            "with dot it is 1.0 % at most",
        ),
        (
            {"none": ATTENTION["none"], "additive": ATTENTION["additive"]},
            "Without attention the error grows from 3.0 % at 10 source tokens to 80 % at 40; "
            "with additive from 2.0 % to 5.0 %",
        ),
        ({"none": Arm(), "dot": Arm(attends=True, errors=(0.0, 0.0))}, "with dot it stays at 0"),
        ({"GRU": Arm()}, "With GRU the error grows from 10 % at 10 source tokens to 50 % at 40"),
        (
            {"none": Arm(errors=(0.5, 0.5)), "dot": Arm(attends=True, errors=(0.4, 0.3))},
            "No growth of the error from 10 to 40 source tokens is established; with dot 30 % of the longest are wrong",
        ),
    ],
)
def test_the_title_states_the_most_growth_and_the_best_arm(arms: dict[str, Arm], title: str) -> None:
    assert error_by_source_length.view(decoding_grid(arms)).title.endswith(title)


def test_an_error_that_grows_alike_in_every_seed_has_grown() -> None:
    tables = decoding_grid({"none": Arm(errors=(0.0, 1.0))}, Setting(spread=0.0, num_seeds=5))
    title = error_by_source_length.view(tables).title
    assert title == "With none the error grows from 0 % at 10 source tokens to 100 % at 40"


def test_one_seed_establishes_no_growth() -> None:
    tables = decoding_grid(ATTENTION, Setting(num_seeds=1))
    assert "is established (one seed has no interval)" in error_by_source_length.view(tables).title
    assert b"<svg" in to_svg(error_by_source_length.draw(tables))


def test_where_every_replica_diverged_the_figure_says_so() -> None:
    tables = all_lost(decoding_grid(ATTENTION, Setting(trained_lengths=(10, 20, 40))))
    assert error_by_source_length.view(tables).title.startswith("Inconclusive: no replica finished")
    (ax,) = error_by_source_length.draw(tables).axes
    assert [text.get_text() for text in ax.texts] == ["no replica finished"]
    assert "no seeds" in error_by_source_length.view(tables).caption


def test_the_caption_says_how_lengths_are_gathered(attended: Grid) -> None:
    many = decoding_grid({"none": Arm()}, Setting(source_lengths=range(1, 34)))
    own = decoding_grid(ATTENTION, Setting(trained_lengths=(10, 20, 40)))
    says = ("of that length", "in 8 bins", "trained at that length")
    for tables, text in zip((attended, many, own), says, strict=True):
        assert text in error_by_source_length.view(tables).caption


def test_arms_stand_side_by_side_about_their_length(attended: Grid) -> None:
    (ax,) = error_by_source_length.draw(attended).axes
    places = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() != "None" and len(line.get_xdata()) == 3]
    assert places[1] == pytest.approx(10)
    assert 0 < places[1] - places[0] == pytest.approx(places[2] - places[1])


def test_forcing_needs_a_schedule_that_leaves_teacher_forcing(forced: Grid) -> None:
    assert forcing_schedule.is_of(forced)
    assert not forcing_schedule.is_of(decoding_grid({"always": Arm(), "also": Arm()}))


def test_the_schedule_is_by_step_and_the_error_at_validation_steps(forced: Grid) -> None:
    drawn = forcing_schedule.view(forced).means.filter(arm="linear")
    schedule, error = (drawn.filter(quantity=name) for name in ("schedule", "error"))
    assert schedule["step"].to_list() == list(range(1, LAST + 1))
    assert schedule["mean"].to_list() == pytest.approx([1 - 0.8 * step / LAST for step in range(1, LAST + 1)])
    assert error["step"].to_list() == list(range(0, LAST + 1, 10))
    assert error["mean"][-1] == pytest.approx(token_error(SCHEDULES["linear"], Setting(), "free_running"))


def test_a_replica_that_stopped_keeps_its_last_error() -> None:
    view = forcing_schedule.view(decoding_grid({"linear": Arm(epsilon=(1.0, 0.0), diverged=(2,))}))
    last = view.means.filter(quantity="error").row(-1, named=True)
    assert (last["step"], last["num_seeds"]) == (LAST, 3)
    assert last["mean"] > 1.05 * token_error(Arm(), Setting(), "free_running")  # the third seed stopped at a higher one
    assert "1 diverged: diverged ones count with their last weights" in view.caption


@pytest.mark.parametrize(
    ("arms", "title"),
    [
        (SCHEDULES, "6.5 % with linear, 16 % with «teacher forcing»"),
        ({"linear": SCHEDULES["linear"]}, "with linear: 6.5 %"),
        ({"linear": SCHEDULES["linear"], "twin": SCHEDULES["linear"]}, "no difference between schedules"),
        ({"lost": Arm(epsilon=(0.5, 0.5), diverged=(0, 1, 2))}, "Inconclusive: no replica finished"),
    ],
)
def test_the_title_states_the_best_and_the_worst_schedule(arms: dict[str, Arm], title: str) -> None:
    tables = decoding_grid(arms)
    assert title in forcing_schedule.view(tables).title
    assert b"<svg" in to_svg(forcing_schedule.draw(tables))


def test_equal_schedules_are_said_to_coincide(forced: Grid) -> None:
    says = "Arms with the same schedule lie upon each other."
    assert says not in forcing_schedule.view(forced).caption
    assert says in forcing_schedule.view(decoding_grid(SCHEDULES | {"dot": Arm(attends=True)})).caption


def test_the_schedule_stands_above_the_error_in_percent(forced: Grid) -> None:
    above, below = forcing_schedule.draw(forced).axes
    assert "probability" in above.get_ylabel()
    assert "wrong tokens" in below.get_ylabel()
    assert len(above.lines) == len(below.lines) == 3
    assert max(above.lines[1].get_ydata()) <= 1 < max(below.lines[1].get_ydata())  # type: ignore[arg-type,type-var]
