from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import samples
from pipeline.figures.style import to_svg
from pipeline.quantities import GridTables
from tests.synthetic_attention import attending, grid, writing

LOSSES = {"lstm": 1.6, "gru": 1.5}


def losses(arm: str, seed: int) -> dict[str, object]:
    return {"test_loss": LOSSES[arm] + 0.1 * seed}


@pytest.fixture(scope="module")
def tables() -> GridTables:
    broken = {"gru#0": "timed_out", "gru#1": "diverged", "lstm#1": "error"}
    return grid(list(LOSSES), writing, num_seeds=3, broken=broken, trial=losses)


def test_it_applies_where_a_prompt_was_continued(tables: GridTables) -> None:
    assert samples.applies(tables)
    assert not samples.applies(grid(["dot"], attending({"dot": 0.9})))


def test_the_table_has_the_first_texts_of_each_arm(tables: GridTables) -> None:
    drawn = samples.table(tables)
    assert drawn.select("arm", "seed", "example").unique(maintain_order=True).rows() == [("lstm", 0, 0), ("gru", 0, 0)]
    texts = dict(drawn.filter(arm="gru").select("sequence", "text").iter_rows())
    assert list(texts) == ["prompt", "greedy", "sample (temperature 1.0)"]
    assert texts["prompt"] == "def "
    assert texts["greedy"] == "abcd" * 75
    assert texts["sample (temperature 1.0)"].endswith("xyz⏎nyeon")


def test_of_one_arm_there_are_more_prompts() -> None:
    tables = grid(["lstm"], writing)
    assert samples.table(tables)["example"].unique().sort().to_list() == [0, 1]
    assert [ax.get_title(loc="left") for ax in samples.draw(tables).axes] == ["a  LSTM", "b  LSTM"]


def test_words_are_put_together_with_gaps(tables: GridTables) -> None:
    words = tables.tokens.with_columns(token=pl.lit("word"))
    assert samples.table(replace(tables, tokens=words))["text"][0] == "word word word word"


def test_variety_is_the_share_of_distinct_runs(tables: GridTables) -> None:
    found = {
        tuple(row[:2]): row[2:]
        for row in samples.variety(tables).select("arm", "sequence", "mean", "num_seeds").iter_rows()
    }
    assert found["lstm", "greedy"] == (pytest.approx(4 / 297), 2)
    assert found["lstm", "sample (temperature 1.0)"] == (1.0, 2)


def test_the_title_names_the_text_that_repeats_itself_most(tables: GridTables) -> None:
    assert samples.title(tables) == (
        "The GRU repeats itself most in its greedy text: 1 % of runs of 4 characters are distinct, against 100 % in "
        "sample (temperature 1.0)"
    )
    greedy = tables.tokens.filter(pl.col("sequence").is_in(["prompt", "greedy"]))
    one = samples.title(replace(tables, tokens=greedy))
    assert one == "In the greedy text of the GRU 1 % of runs of 4 characters are distinct"
    short = samples.title(replace(tables, tokens=tables.tokens.filter(pl.col("position") < 4)))
    assert short == "What the LSTM and the GRU write after a prompt"


def test_texts_are_drawn_in_lines_and_cut(tables: GridTables) -> None:
    figure = samples.draw(tables)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["a  LSTM", "b  GRU"]
    _, prompt, label, greedy, *_ = (text.get_text() for text in figure.axes[0].texts)
    assert (prompt, label) == ("def ", "greedy")
    lines = greedy.split("\n")
    assert [len(line) for line in lines] == [samples.LETTERS] * samples.MAX_LINES
    assert "".join(lines) == ("abcd" * 75)[: 3 * samples.LETTERS - 1] + "…"
    assert "Texts are cut after 246 letters." in samples.caption(tables)


def test_texts_lie_apart_and_on_the_page(tables: GridTables) -> None:
    figure = samples.draw(tables)
    figure.draw_without_rendering()
    for ax in figure.axes:
        boxes = [text.get_window_extent() for text in ax.texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert max(box.x1 for box in boxes) <= figure.bbox.x1


def test_the_caption_says_what_is_left_out(tables: GridTables) -> None:
    caption = samples.caption(tables)
    assert "Test loss in nats per token, mean over 2 seeds" in caption
    assert "1 diverged, 1 ran out of time and 1 failed with an error: diverged and failed ones are not shown" in caption


def test_formulas_and_one_seed_without_losses_are_drawn() -> None:
    tables = grid(["lstm"], writing, num_seeds=1)
    dollars = tables.tokens.with_columns(token=pl.lit("$"))
    to_svg(samples.draw(replace(tables, tokens=dollars)))
    assert "Test loss" not in samples.caption(tables)
    assert "Texts are cut" not in samples.caption(replace(tables, tokens=tables.tokens.filter(pl.col("position") < 9)))
