from __future__ import annotations

import pytest

from pipeline.figures import forcing_schedule as figure
from pipeline.figures.style import to_svg
from pipeline.quantities import GridTables
from tests.synthetic_decoding import LAST, SCHEDULES, Arm, Setting, decoding_grid, token_error


def test_it_applies_where_a_schedule_left_teacher_forcing(exact: list[GridTables]) -> None:
    assert figure.applies(decoding_grid(SCHEDULES))
    assert not figure.applies(decoding_grid({"always": Arm(), "also": Arm()}))
    assert not figure.applies(exact[0])


def test_the_schedule_is_by_step_and_the_error_at_validation_steps() -> None:
    drawn = figure.table(decoding_grid(SCHEDULES)).filter(arm="linear")
    given, wrong = (drawn.filter(metric=metric) for metric in (figure.PROBABILITY, figure.ERROR))
    assert given["step"].to_list() == list(range(1, LAST + 1))
    assert given["mean"].to_list() == pytest.approx([1 - 0.8 * step / LAST for step in range(1, LAST + 1)])
    assert wrong["step"].to_list() == list(range(0, LAST + 1, 10))
    assert wrong["mean"][-1] == pytest.approx(token_error(SCHEDULES["linear"], Setting(), "free_running"))


def test_a_replica_that_stopped_keeps_its_last_error() -> None:
    tables = decoding_grid({"linear": Arm(epsilon=(1.0, 0.0), diverged=(2,))})
    last = figure.table(tables).filter(metric=figure.ERROR).row(-1, named=True)
    assert (last["step"], last["num_seeds"]) == (LAST, 3)
    finished = token_error(Arm(), Setting(), "free_running")
    assert last["mean"] > 1.05 * finished  # the third seed stopped at a higher one
    assert "1 diverged: diverged ones count with their last weights" in figure.caption(tables)


@pytest.mark.parametrize(
    ("arms", "title"),
    [
        (SCHEDULES, "Free-running token error after training: 6.5 % with linear, 16 % with «teacher forcing»"),
        ({"linear": SCHEDULES["linear"]}, "Free-running token error after training with linear: 6.5 %"),
        (
            {"linear": SCHEDULES["linear"], "twin": SCHEDULES["linear"]},
            "Inconclusive: no difference between schedules in the free-running token error is established",
        ),
        ({"lost": Arm(epsilon=(0.5, 0.5), diverged=(0, 1, 2))}, "Inconclusive: no replica finished training"),
    ],
)
def test_title_tells_the_best_and_the_worst_schedule(arms: dict[str, Arm], title: str) -> None:
    tables = decoding_grid(arms)
    assert figure.title(tables) == title
    assert b"<svg" in to_svg(figure.draw(tables))


def test_equal_schedules_are_said_to_coincide() -> None:
    assert "lie upon each other" not in figure.caption(decoding_grid(SCHEDULES))
    twins = SCHEDULES | {"dot": Arm(attends=True)}
    assert "Arms with the same schedule lie upon each other." in figure.caption(decoding_grid(twins))


def test_the_schedule_stands_above_the_error() -> None:
    above, below = figure.draw(decoding_grid(SCHEDULES)).axes
    assert [ax.get_title(loc="left") for ax in (above, below)] == ["a  Schedule", "b  Running free"]
    assert len(above.lines) == len(below.lines) == 3
    assert max(above.lines[1].get_ydata()) <= 1 < max(below.lines[1].get_ydata())  # type: ignore[arg-type,type-var]
