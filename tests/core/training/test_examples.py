"""What trials leave for people to look at: texts, attention, breakdowns, images, samples; each against its source."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.core.models.generation import log_probability
from pipeline.core.training import train_networks
from pipeline.errors import ConfigError
from pipeline.results import schema
from tests.core.training.sequences import (
    ADDITIVE,
    LETTERS,
    alphabet,
    canvases,
    curve,
    films,
    finished,
    letter_before,
    reversal,
    scheduled_sampling,
    small,
    trial_of,
)


@pytest.mark.slow
def test_tables_of_a_decoder_have_their_schema_and_every_row(spec_of: Any) -> None:
    dataset = reversal()
    result, sink = finished(scheduled_sampling(spec_of), dataset)
    tables = sink.tables()
    assert set(tables) == {"curves", "traces", "eigenvalues", "attention", "breakdown", "tokens"}
    for table, columns in tables.items():
        frame = pl.DataFrame(columns).with_columns(trial_id=pl.lit("a trial"))
        assert schema.check(table, frame, "a test").height > 0
    assert result.status == "ok"
    test, tokens = dataset.splits["test"], tables["tokens"]
    lengths = (test.inputs != 0).sum(axis=1)
    attention = pl.DataFrame(tables["attention"])
    assert attention.height == 3 * sum((n + 1) * n for n in lengths[:6].tolist())
    sums = attention.group_by("seed", "example", "output_position").agg(pl.col("weight").sum())["weight"]
    np.testing.assert_allclose(sums.to_numpy(), 1.0, rtol=1e-6)
    for row in attention.rows(named=True):
        expected = row["source_position"] == lengths[row["example"]] + 1 - row["output_position"]
        assert row["aligned"] == expected
    for example in range(6):
        for sequence in ("source", "target"):
            told = tokens["token"][(tokens["example"] == example) & (tokens["sequence"] == sequence)]
            ids = (test.inputs if sequence == "source" else test.targets)[example]
            assert told.tolist() == [LETTERS[token] for token in ids if token] * 3
    breakdown = pl.DataFrame(tables["breakdown"])
    for mode, by, num in (
        ("teacher_forced", "output_position", (test.targets != 0).sum(axis=0)),
        ("free_running", "output_position", (test.targets != 0).sum(axis=0)),
        ("free_running", "source_length", np.bincount(lengths)[1:]),
    ):
        rows = breakdown.filter(pl.col("mode") == mode, pl.col("by") == by).sort("seed", "at")
        assert rows["num"].to_list() == num.tolist() * 3
    for r, row in enumerate(result.rows):
        rows = breakdown.filter(pl.col("seed") == r, pl.col("by") == "source_length")
        assert (rows["num"] * rows["error"]).sum() / rows["num"].sum() == pytest.approx(row["test_error"], abs=1e-12)
        rows = breakdown.filter(pl.col("seed") == r, pl.col("mode") == "teacher_forced")
        share = (rows["num"] * rows["error"]).sum() / rows["num"].sum()
        forced = curve(tables, "token_error", r, split="test", mode="teacher_forced")
        assert forced.tolist() == [pytest.approx(share, abs=1e-6)]


@pytest.mark.slow
def test_an_autoencoder_writes_what_it_was_shown_and_what_it_drew(spec_of: Any) -> None:
    dataset, spec = films(), small(spec_of, model__code_size=2, model__cell="lstm")
    result, tables = trial_of(spec, dataset)
    assert {row["test_error"] for row in result.rows} == {None}
    images = pl.DataFrame(tables["images"])
    schema.check("images", images.with_columns(trial_id=pl.lit("a trial")), "a test")
    frames = dataset.splits["test"].inputs[:6]
    drawn = train_networks(spec, dataset)[0](torch.from_numpy(frames)).values.detach().numpy()
    for image, expected in (("input", frames), ("reconstruction", drawn)):
        rows = images.filter(pl.col("image") == image).sort("example", "frame", "row", "column")
        assert {*rows["seed"]} == {0}
        np.testing.assert_allclose(rows["brightness"], expected.flatten(), rtol=1e-5, atol=1e-6)
    assert {*tables["traces"]["part"]} == {"encoder", "decoder", "input"}


@pytest.mark.slow
def test_a_captioner_writes_images_captions_and_where_it_looked(spec_of: Any) -> None:
    dataset = canvases()
    _, tables = trial_of(small(spec_of, model__attention=ADDITIVE), dataset)
    test, images = dataset.splits["test"], pl.DataFrame(tables["images"])
    rows = images.sort("example", "row", "column")
    assert {*rows["image"]} == {"input"}
    np.testing.assert_array_equal(rows["brightness"], test.inputs[:6].flatten())
    attention, num_tokens = pl.DataFrame(tables["attention"]), (test.targets[:6] != 0).sum()
    assert attention.height == 3 * 6 * num_tokens
    aligned = attention.filter(pl.col("aligned")).select("example", "output_position", "source_position").unique()
    assert {*aligned.iter_rows()} == {(n, u + 1, s + 1) for n, u, s in zip(*test.alignment[:6].nonzero(), strict=True)}
    assert {*tables["tokens"]["sequence"]} == {"target", "free_running"}
    assert {*tables["breakdown"]["by"]} == {"output_position"}  # an image has no length


@pytest.mark.slow
def test_a_language_model_writes_samples(spec_of: Any) -> None:
    spec = small(
        spec_of, training__max_steps=150, training__evaluate_every=50, optimiser={"name": "sgd", "learning_rate": 1.0}
    )
    result, tables = trial_of(spec, alphabet())
    assert max(row["test_error"] for row in result.rows) == 0.0
    tokens = pl.DataFrame(tables["tokens"])
    texts = {key: "".join(rows.sort("position")["token"]) for key, rows in tokens.group_by(["example", "sequence"])}
    assert {sequence for _, sequence in texts} == {"prompt", "greedy", "sample (temperature 0.7)", "beam (4)"}
    for example in range(3):
        prompt = texts[example, "prompt"]
        assert texts[example, "greedy"] == texts[example, "beam (4)"]
        assert prompt + texts[example, "greedy"] in "abcd" * 40
    network = train_networks(spec, alphabet())[0]
    assert log_probability(network, [0, 1, 2, 3]).sum() > log_probability(network, [0, 1, 2, 2]).sum()


@pytest.mark.slow
def test_maps_are_of_every_traced_step_and_end_as_they_do_without(spec_of: Any) -> None:
    writer = {"model__attention": ADDITIVE, "diagnostics__num_traces": 4, "training__max_steps": 9}
    plain, mapped = (
        pl.DataFrame(trial_of(small(spec_of, **writer, diagnostics__measures=measures), reversal())[1]["attention"])
        for measures in ([], ["maps"])
    )
    steps = mapped["step"].unique().sort().to_list()
    assert len(steps) == 4
    assert steps[0] == 0
    assert mapped.filter(step=steps[-1]).equals(plain)
    early = mapped.filter(pl.col("step") < steps[-1])
    assert early["example"].unique().sort().to_list() == [0, 1, 2]
    sums = early.group_by("step", "seed", "example", "output_position").agg(pl.col("weight").sum())["weight"]
    np.testing.assert_allclose(sums.to_numpy(), 1.0, rtol=1e-6)
    first = early.filter(step=0, example=0)["weight"]
    assert (first != plain.filter(example=0)["weight"]).any()


def test_maps_of_self_attention_are_over_the_timesteps_of_each_sequence(spec_of: Any) -> None:
    dataset = letter_before(further=2)
    selfish = {"model__attention": {"name": "self", "num_heads": 2}, "diagnostics__measures": ["maps"]}
    maps = pl.DataFrame(trial_of(small(spec_of, **selfish), dataset)[1]["attention"])
    lengths = (dataset.splits["test"].inputs[:6] != 0).sum(axis=1).tolist()
    last = maps.filter(pl.col("step") == pl.col("step").max())
    assert last.height == 3 * sum(n * n for n in lengths)
    sums = maps.group_by("step", "seed", "example", "output_position").agg(pl.col("weight").sum())["weight"]
    np.testing.assert_allclose(sums.to_numpy(), 1.0, rtol=1e-6)
    assert maps.filter(pl.col("source_position") > pl.col("output_position"))["weight"].sum() == 0.0


def test_maps_are_refused_where_nothing_attends(spec_of: Any) -> None:
    with pytest.raises(ConfigError, match=r"diagnostics\.measures: expected measures that a network without attention"):
        small(spec_of, diagnostics__measures=["maps"])
