from __future__ import annotations

import math
from dataclasses import replace

import polars as pl
import pytest

from pipeline.figures import gradient_into_encoder as figure
from pipeline.figures.style import to_svg
from pipeline.quantities import GridTables
from tests.synthetic_decoding import ATTENTION, RECURRENCE, Arm, Setting, decoding_grid

EXACT = Setting(spread=0.0)


def test_it_applies_to_encoders_alone(exact: list[GridTables]) -> None:
    assert figure.applies(decoding_grid(ATTENTION))
    assert not figure.applies(exact[0])
    assert not figure.applies(decoding_grid({"self-attention": RECURRENCE["self-attention"]}))


def test_norms_are_relative_to_the_last_token_and_factors_are_recovered() -> None:
    tables = decoding_grid(ATTENTION, EXACT)
    drawn = figure.table(tables).filter(stage="end", arm="none")
    assert drawn["lag"].to_list() == list(range(40))
    assert drawn["mean"].to_list() == pytest.approx([lag * math.log10(0.85) for lag in range(40)], abs=1e-12)
    factors = {(row["stage"], row["arm"]): 10 ** row["mean"] for row in figure.rates(tables).iter_rows(named=True)}
    assert factors == {
        (stage, name): pytest.approx(arm.factors[end])
        for end, stage in enumerate(("initialisation", "end"))
        for name, arm in ATTENTION.items()
    }


def test_only_the_last_layer_of_the_encoder_and_its_h_are_taken() -> None:
    tables = decoding_grid(ATTENTION, EXACT)
    other = tables.traces.filter(part="encoder").with_columns(log10_norm=pl.lit(7.0))
    below = tables.traces.with_columns(layer=pl.when(pl.col("part") == "encoder").then(1).otherwise("layer"))
    backward, cell = (
        other.with_columns(pl.lit(1).cast(pl.Int64).alias("layer"), told)
        for told in (pl.lit("backward").alias("direction"), pl.lit("c").alias("quantity"))
    )
    decoder = other.with_columns(part=pl.lit("decoder"), timestep=pl.col("timestep") + 50)
    mixed = replace(tables, traces=pl.concat([other, below, backward, cell, decoder]))
    assert figure.table(mixed).equals(figure.table(tables))
    assert "the last layer, forward in time, is shown" in figure.caption(mixed)


@pytest.mark.parametrize(
    ("arms", "title"),
    [
        (ATTENTION, "by ×0.850 [0.850, 0.850] without attention, by ×0.980 [0.980, 0.980] with it"),  # √(.99 · .97)
        (
            {"a": Arm(factors=(0.7, 0.8)), "b": Arm(factors=(0.7, 0.9))},
            "per timestep of lag by ×0.800 [0.800, 0.800] with a, by ×0.900 [0.900, 0.900] with b",
        ),
        ({"a": Arm()}, "per timestep of lag by ×0.900 [0.900, 0.900] with a"),
        (
            {"none": Arm(), "dot": Arm(attends=True)},
            "Inconclusive: no difference in the encoder's gradient with and without attention is established",
        ),
        (
            {"none": Arm(factors=(0.6, 0.9)), "dot": Arm(factors=(0.95, 0.9), attends=True)},
            "by ×0.600 [0.600, 0.600] without attention, by ×0.950 [0.950, 0.950] with it; after training no "
            "difference is established",
        ),
        ({"a": Arm(diverged=(0, 1, 2))}, "No replica finished training: only the initial gradient is known"),
    ],
)
def test_title_tells_the_factors_with_and_without_attention(arms: dict[str, Arm], title: str) -> None:
    tables = decoding_grid(arms, EXACT)
    assert figure.title(tables).endswith(title)
    assert b"<svg" in to_svg(figure.draw(tables))


def test_a_norm_of_zero_is_left_out_and_counted() -> None:
    tables = decoding_grid(ATTENTION, EXACT)
    far = (pl.col("timestep") == 1) & (pl.col("arm") == "none") & (pl.col("part") == "encoder")
    norm = pl.when(far).then(-math.inf).otherwise("log10_norm")
    zero = replace(tables, traces=tables.traces.with_columns(log10_norm=norm))
    assert figure.rates(zero)["mean"].to_list() == pytest.approx(figure.rates(tables)["mean"].to_list())
    assert "6 values that are not finite left out of means" in figure.caption(zero)


def test_the_caption_says_how_straight_the_lines_are() -> None:
    assert "(R², mean over seeds): none 1.00; dot 1.00; additive 1.00." in figure.caption(decoding_grid(ATTENTION))
    labels = [text.get_text() for text in figure.draw(decoding_grid(ATTENTION, EXACT)).legends[0].get_texts()]
    assert labels[0] == "none  ×0.700 → ×0.850"
