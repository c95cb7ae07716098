"""Trials of networks that write sequences: what they leave, determinism, resuming, divergence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.core.models import Network, build_network
from pipeline.core.training import MemorySink, TrialSpec, run_trial, train_networks
from pipeline.core.training.loop import Trial
from tests.core.training.conftest import SmallDataset
from tests.core.training.sequences import (
    ADDITIVE,
    LINEAR,
    WIDTH,
    canvases,
    curve,
    finished,
    first_letter,
    letter_before,
    reversal,
    scheduled_sampling,
    small,
    trial_of,
)
from tests.core.training.test_trial import killed_and_resumed, rows_of, sorted_rows

TABLES = ("curves", "traces", "eigenvalues", "attention", "breakdown", "tokens")
JUDGED = (("loss", "train"), ("grad_norm", ""), ("loss", "validation"), ("error", "validation"))
"""Metrics that every trial with classes has, and of which split."""

BOTH_WAYS = {"model__bidirectional": True}
SELF = {"model__attention": {"name": "self", "num_heads": 2}}


@pytest.fixture
def sampled(spec_of: Callable[..., TrialSpec]) -> TrialSpec:
    return scheduled_sampling(spec_of)


@pytest.mark.slow
def test_curves_of_a_decoder_say_what_was_evaluated_and_when(sampled: TrialSpec) -> None:
    tables = finished(sampled, reversal())[1].tables()
    every, evaluated, traced, last = [*range(1, 13)], [0, 6, 12], [0, 3, 12], [12]
    expected: list[tuple[str, dict[str, str | int], list[int]]] = [
        ("teacher_forcing_probability", {}, every),
        ("loss", {"split": "train"}, every),
        ("loss", {"split": "validation"}, evaluated),
        ("error", {"split": "validation"}, evaluated),
        ("loss", {"split": "validation", "mode": "free_running"}, evaluated),
        ("token_error", {"split": "validation", "mode": "teacher_forced"}, evaluated),
        ("token_error", {"split": "validation", "mode": "free_running"}, evaluated),
        ("loss", {"split": "test", "mode": "free_running"}, last),
        ("token_error", {"split": "test", "mode": "free_running"}, last),
        ("attention_entropy_nats", {}, traced),
        ("alignment_error", {}, traced),
        ("alignment_share", {}, traced),
        ("probe_grad_norm", {}, traced),
        ("local_smoothness", {}, [0, 3]),
        ("loss", {"split": "test", "tested_length": 6}, last),
        ("error", {"split": "test", "tested_length": 6}, last),
    ]
    for metric, facts, steps in expected:
        for seed in range(3):
            assert sorted(curve(tables, metric, seed, "step", **facts).tolist()) == steps, (metric, facts)
    schedule = sampled.training.forcing.schedule
    assert curve(tables, "teacher_forcing_probability").tolist() == pytest.approx(
        [schedule.probability(step) for step in range(12)], rel=1e-6
    )


@pytest.mark.slow
def test_traces_reach_the_encoder_and_what_it_reads(sampled: TrialSpec) -> None:
    tables = finished(sampled, reversal())[1].tables()
    traces = tables["traces"]
    places = {*zip(traces["part"], traces["direction"], traces["quantity"], strict=True)}
    assert places == {
        ("encoder", "forward", "h"),
        ("encoder", "backward", "h"),
        ("decoder", "forward", "h"),
        ("input", "forward", "x"),
    }
    for part, width in (("encoder", WIDTH), ("decoder", WIDTH + 1), ("input", WIDTH)):
        assert {*traces["timestep"][traces["part"] == part]} == {*range(1, width + 1)}
    assert np.isfinite(traces["log10_norm"]).all()
    assert {*tables["eigenvalues"]["part"]} == {"encoder", "decoder"}


@pytest.mark.slow
def test_same_spec_twice_and_a_replica_alone_give_the_same_rows(sampled: TrialSpec) -> None:
    dataset, (first, sink) = reversal(), finished(sampled, reversal())
    sinks = [sink, MemorySink(), MemorySink()]
    again = run_trial(sampled, dataset, sinks[1])
    alone = run_trial(dataclasses.replace(sampled, seeds=(1,)), dataset, sinks[2])
    assert rows_of(first) == rows_of(again)
    assert rows_of(first)[1] == rows_of(alone)[0]
    for table in TABLES:
        assert sorted_rows(sinks[0], table) == sorted_rows(sinks[1], table)
        assert sorted_rows(sinks[0], table, [1]) == sorted_rows(sinks[2], table)


@pytest.mark.slow
def test_a_captioner_alone_gives_the_rows_it_gives_in_a_pack(spec_of: Any) -> None:
    spec = small(spec_of, model__attention=ADDITIVE, training__forcing=LINEAR)
    sinks, dataset = [MemorySink() for _ in range(2)], canvases()
    together = run_trial(spec, dataset, sinks[0])
    alone = run_trial(dataclasses.replace(spec, seeds=(2,)), dataset, sinks[1])
    assert rows_of(together)[2] == rows_of(alone)[0]
    for table in ("curves", "traces", "attention", "breakdown", "tokens"):
        assert sorted_rows(sinks[0], table, [2]) == sorted_rows(sinks[1], table)


@pytest.mark.slow
@pytest.mark.parametrize("die_after", [1, 5, 9])
def test_a_killed_trial_goes_on_under_scheduled_sampling_bit_for_bit(sampled: TrialSpec, die_after: int) -> None:
    dataset = reversal()
    expected, whole = finished(sampled, dataset)
    result, interrupted = killed_and_resumed(sampled, dataset, die_after)
    assert rows_of(result) == rows_of(expected)
    for table in TABLES:
        assert sorted_rows(interrupted, table) == sorted_rows(whole, table)


@pytest.mark.slow
def test_a_replica_that_diverges_on_the_way_leaves_its_neighbours_bit_identical(
    sampled: TrialSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, poisoned, update = reversal(), MemorySink(), Trial.update
    expected, clean = finished(sampled, dataset)

    def planted(trial: Trial) -> None:
        if trial.progress.step == 7:
            trial.replicas.named(trial.progress.state.flat_RP)["encoder.weight_hh_l0"][1] = math.nan
        update(trial)

    monkeypatch.setattr(Trial, "update", planted)
    result = run_trial(sampled, dataset, poisoned)
    assert [row["status"] for row in result.rows] == ["ok", "diverged", "ok"]
    assert (result.rows[1]["diverged_step"], result.rows[1]["num_steps"], result.rows[1]["best_step"]) == (8, 7, 6)
    assert result.rows[1]["diverged_quantity"] == "grad_h (decoder)"  # which the backward pass meets first
    assert [rows_of(result)[r] for r in (0, 2)] == [rows_of(expected)[r] for r in (0, 2)]
    for table in TABLES:
        assert sorted_rows(poisoned, table, [0, 2]) == sorted_rows(clean, table, [0, 2])
    assert 1 not in poisoned.tables()["tokens"]["seed"]


def test_replicas_that_all_diverge_at_once_are_rows(spec_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(*arguments: Any) -> Network:
        network = build_network(*arguments)
        with torch.no_grad():
            next(network.parameters()).fill_(math.nan)
        return network

    monkeypatch.setattr("pipeline.core.training.loop.build_network", planted)
    result, tables = trial_of(small(spec_of, model__attention=ADDITIVE), reversal())
    assert {(row["status"], row["diverged_step"], row["test_loss"]) for row in result.rows} == {("diverged", 0, None)}
    assert "tokens" not in tables
    assert np.isnan(curve(tables, "error", split="validation")).all()


@pytest.mark.slow
def test_the_doubly_stochastic_term_makes_attention_cover_the_source(spec_of: Any) -> None:
    dataset, found = reversal(), {}
    for weight in (1e-6, 3.0):
        rule = {"name": "doubly_stochastic", "weight": weight}
        spec = small(spec_of, model__attention=ADDITIVE, regularisation=rule, training__max_steps=40)
        _, tables = trial_of(spec, dataset)
        found[weight] = np.stack([curve(tables, "coverage", seed) for seed in range(3)])
        assert found[weight].shape == (3, 40)
    assert (found[3.0][:, 0] == found[1e-6][:, 0]).all()
    assert (found[3.0][:, -1] < 0.8 * found[1e-6][:, -1]).all()


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        pytest.param(first_letter, {}, id="first letter", marks=pytest.mark.slow),
        pytest.param(first_letter, BOTH_WAYS, id="first letter, both ways"),
        pytest.param(first_letter, SELF, id="first letter, self-attention", marks=pytest.mark.slow),
        pytest.param(letter_before, {}, id="letter before", marks=pytest.mark.slow),
        pytest.param(letter_before, BOTH_WAYS, id="letter before, both ways", marks=pytest.mark.slow),
        pytest.param(letter_before, SELF, id="letter before, self-attention"),
    ],
)
def test_classification_of_ragged_sequences_ignores_padding(
    make: Callable[[int], SmallDataset], changes: dict[str, Any], spec_of: Any
) -> None:
    spec = small(spec_of, model__embedding_size=3, optimiser={"name": "sgd", "learning_rate": 0.1}, **changes)
    (short, mine), (long, theirs) = (trial_of(spec, make(further)) for further in (0, 3))
    for a, b in zip(short.rows, long.rows, strict=True):
        assert a["test_loss"] == pytest.approx(b["test_loss"], rel=1e-5)
        assert a["test_error"] == b["test_error"]
    for metric, split in (*JUDGED, ("attention_entropy_nats", "")):
        first, second = (curve(tables, metric, split=split) for tables in (mine, theirs))
        np.testing.assert_allclose(first, second, rtol=1e-4, err_msg=metric)
    traces, longer = (pl.DataFrame(tables["traces"]) for tables in (mine, theirs))
    last = longer.filter(pl.col("timestep") > 3).with_columns(pl.col("timestep") - 3)
    np.testing.assert_allclose(traces["log10_norm"], last["log10_norm"], atol=1e-3)
    assert (longer.filter(pl.col("timestep") <= 3)["log10_norm"] == -math.inf).all()


def test_errors_at_every_timestep_are_shares_of_tokens_not_of_padding(spec_of: Any) -> None:
    dataset, spec = letter_before(), small(spec_of, seeds=[4])
    result, _ = trial_of(spec, dataset)
    (network,), test = train_networks(spec, dataset), dataset.splits["test"]
    missed, num_tokens, loss = 0, 0, 0.0
    for source, targets in zip(test.inputs, test.targets, strict=True):
        length = int((source != 0).sum())
        log_p = network(torch.from_numpy(source[None, :length])).values[0].log_softmax(dim=1)
        for t in range(length):
            loss -= log_p[t, targets[t]].item()
            missed += int(log_p[t].argmax() != targets[t])
        num_tokens += length
    assert result.rows[0]["test_error"] == pytest.approx(missed / num_tokens, abs=1e-9)
    assert result.rows[0]["test_loss"] == pytest.approx(loss / num_tokens, rel=1e-5)


@pytest.mark.slow
def test_padding_of_sources_and_targets_changes_no_row_of_a_decoder(sampled: TrialSpec) -> None:
    forcing = dataclasses.replace(sampled.training.forcing, coin="sequence")  # one coin, however long the target is
    spec = dataclasses.replace(sampled, training=dataclasses.replace(sampled.training, forcing=forcing))
    (short, mine), (long, theirs) = (trial_of(spec, reversal(further)) for further in (0, 2))
    attended = ((metric, "") for metric in ("attention_entropy_nats", "alignment_error", "alignment_share"))
    for metric, split in (*JUDGED, *attended):
        first, second = (curve(tables, metric, split=split) for tables in (mine, theirs))
        np.testing.assert_allclose(first, second, rtol=1e-3, err_msg=metric)
    first, second = (curve(tables, "loss", split="validation", mode="free_running") for tables in (mine, theirs))
    np.testing.assert_allclose(first, second, rtol=1e-3)
    assert [row["test_error"] for row in short.rows] == [row["test_error"] for row in long.rows]
    for table in ("attention", "tokens", "breakdown"):
        assert len(mine[table]["seed"]) == len(theirs[table]["seed"])
