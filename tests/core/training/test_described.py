"""Trials of networks that read texts of images: what they leave, padding, packs, resuming, what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.core.training import MemorySink, TrialSpec, run_trial, train_networks
from pipeline.core.training.data import interface_of, to_device
from pipeline.errors import ConfigError
from tests.core.training.sequences import curve, described, finished, small, trial_of
from tests.core.training.test_pack import alone, packed, same
from tests.core.training.test_trial import killed_and_resumed, rows_of, sorted_rows

DOT = {"name": "dot", "feeds": "nothing"}
FED = {"name": "dot", "feeds": "attentional_state"}
ADDITIVE = {"name": "additive", "feeds": "context", "size": 6}
TABLES = ("curves", "traces", "eigenvalues", "attention", "tokens")


@pytest.fixture
def fed(spec_of: Any) -> TrialSpec:
    return small(spec_of, model__attention=FED, model__embedding_size=3, diagnostics__measures=["maps", "smoothness"])


@pytest.mark.slow
def test_a_trial_leaves_words_answers_images_and_where_each_word_looked(fed: TrialSpec) -> None:
    dataset, (result, sink) = described(), finished(fed, described())
    tables, test = sink.tables(), dataset.splits["test"]
    assert {row["status"] for row in result.rows} == {"ok"}
    assert max(row["gradient_check_error"] for row in result.rows) < 1e-3
    images = pl.DataFrame(tables["images"]).sort("example", "row", "column")
    assert {*images["image"]} == {"input"}
    np.testing.assert_array_equal(images["brightness"], test.images[:6].flatten())
    lengths = (test.inputs[:6] != 0).sum(axis=1)
    assert {*lengths.tolist()} == {2, 3}
    maps = pl.DataFrame(tables["attention"])
    assert maps["step"].unique().sort().to_list() == [0, 3, 12]
    last = maps.filter(step=12)
    assert last.height == 3 * 6 * lengths.sum()  # seeds, cells, words; once, though `maps` are asked for
    aligned = last.filter(pl.col("aligned")).select("example", "output_position", "source_position").unique()
    assert {*aligned.iter_rows()} == {(n, u + 1, s + 1) for n, u, s in zip(*test.alignment[:6].nonzero(), strict=True)}
    sums = maps.group_by("step", "seed", "example", "output_position").agg(pl.col("weight").sum())["weight"]
    np.testing.assert_allclose(sums.to_numpy(), 1.0, rtol=1e-6)
    texts = pl.DataFrame(tables["tokens"]).sort("position").group_by("seed", "example", "sequence").agg("token")
    found = {(seed, example, sequence): tokens for seed, example, sequence, tokens in texts.iter_rows()}
    test_inputs = to_device(test, interface_of(dataset), "cpu").take(slice(6)).inputs
    network = train_networks(fed, dataset)[1]
    answers = network(test_inputs).values.argmax(dim=1).tolist()
    for example in range(6):
        words = [dataset.input_tokens[word] for word in test.inputs[example] if word]
        assert found[1, example, "words"] == words
        assert found[1, example, "class"] == [dataset.target_tokens[test.targets[example]]]
        assert found[1, example, "answer"] == [dataset.target_tokens[answers[example]]]


@pytest.mark.slow
def test_curves_have_the_alignment_of_the_last_word_and_the_error_of_each_kind_of_text(fed: TrialSpec) -> None:
    dataset, (result, sink) = described(), finished(fed, described())
    tables, (inputs, targets) = sink.tables(), (dataset.splits["test"].inputs, dataset.splits["test"].targets)
    for metric in ("attention_entropy_nats", "alignment_error", "alignment_share"):
        values = curve(tables, metric)
        assert values.shape == (3,)
        assert np.isfinite(values).all()
    assert curve(tables, "teacher_forcing_probability").size == 0
    network = train_networks(fed, dataset)[0]
    answers = network(to_device(dataset.splits["test"], interface_of(dataset), "cpu").inputs).values.argmax(dim=1)
    for group, word in (("bright", 4), ("dim", 5)):
        asked = (inputs == word).any(axis=1)
        expected = (answers.numpy() != targets)[asked].mean()
        assert curve(tables, "error", split="test", group=group) == pytest.approx([expected])
    assert result.rows[0]["test_error"] == pytest.approx((answers.numpy() != targets).mean())
    traces = pl.DataFrame(tables["traces"]).filter(step=12)
    assert {*traces.select("part", "quantity").unique().iter_rows()} == {("recurrent", "h"), ("input", "x")}
    ends = traces.filter(pl.col("part") == "recurrent", pl.col("timestep") == 3)["log10_norm"]
    assert np.isfinite(ends.to_numpy()).all()


@pytest.mark.slow
@pytest.mark.parametrize("attention", [{"name": "none"}, DOT, ADDITIVE], ids=["none", "dot", "additive"])
def test_padding_changes_no_row(attention: dict[str, Any], spec_of: Any) -> None:
    spec = small(spec_of, model__attention=attention, optimiser={"name": "sgd", "learning_rate": 0.1}, seeds=[0, 1])
    (short, mine), (long, theirs) = (trial_of(spec, described(further)) for further in (0, 3))
    for a, b in zip(short.rows, long.rows, strict=True):
        assert a["test_loss"] == pytest.approx(b["test_loss"], rel=1e-5)
        assert a["test_error"] == b["test_error"]
    measured = ("attention_entropy_nats", "alignment_share", "alignment_error") if attention["name"] != "none" else ()
    for metric, split in (("loss", "train"), ("grad_norm", ""), ("loss", "validation"), *((m, "") for m in measured)):
        first, second = (curve(tables, metric, split=split) for tables in (mine, theirs))
        assert first.size
        np.testing.assert_allclose(first, second, rtol=1e-4, err_msg=metric)
    traces, longer = (pl.DataFrame(tables["traces"]) for tables in (mine, theirs))
    last = longer.filter(pl.col("timestep") > 3).with_columns(pl.col("timestep") - 3)
    np.testing.assert_allclose(traces["log10_norm"], last["log10_norm"], atol=1e-3)


@pytest.mark.slow
def test_a_replica_alone_a_killed_trial_and_a_pack_give_the_same_rows(fed: TrialSpec, spec_of: Any) -> None:
    dataset, (expected, whole) = described(), finished(fed, described())
    alone_sink = MemorySink()
    alone_rows = rows_of(run_trial(dataclasses.replace(fed, seeds=(1,)), dataset, alone_sink))
    assert rows_of(expected)[1] == alone_rows[0]
    resumed, interrupted = killed_and_resumed(fed, dataset, 5)
    assert rows_of(resumed) == rows_of(expected)
    for table in TABLES:
        assert sorted_rows(whole, table, [1]) == sorted_rows(alone_sink, table)
        assert sorted_rows(interrupted, table) == sorted_rows(whole, table)
    shared = {"model__attention": DOT, "model__embedding_size": 3, "seeds": [2, 0], "training__max_steps": 6}
    specs = [
        small(spec_of, clipping=rule, **shared)
        for rule in ({"name": "none"}, {"name": "state_norm", "threshold": 0.01})
    ]
    for together, spec in zip(packed(specs, dataset), specs, strict=True):
        assert same(together, alone(spec, dataset))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"model__attention": {"name": "self", "num_heads": 2}},
            r"model\.attention\.name: expected none, dot, general",
        ),
        ({"model__bidirectional": True}, r"model\.bidirectional: expected false: a text of an image is not read both"),
        (
            {"model__attention": DOT, "regularisation": {"name": "doubly_stochastic", "weight": 1.0}},
            r"regularisation\.name: expected a rule for any network: this one writes nothing .*got doubly_stochastic",
        ),
        (
            {"training__truncation": {"update_every": 2, "backward_length": 2}},
            r"training\.truncation: expected null: this is not one recurrent stack that reads sequences of one length",
        ),
        *(
            ({"diagnostics__measures": [measure]}, rf"diagnostics\.measures: .*one recurrent stack .*got {measure}")
            for measure in ("gates", "jacobians", "lyapunov", "truncation")
        ),
        (
            {"training__forcing": {"schedule": {"name": "constant", "value": 0.5}, "coin": "token"}},
            r"training\.forcing\.schedule: expected a constant 1: nothing is decoded",
        ),
    ],
)
def test_what_such_a_network_cannot_do_is_refused(changes: dict[str, Any], told: str, spec_of: Any) -> None:
    dataset = dataclasses.replace(described(), padded=False)  # texts of one length, even
    with pytest.raises(ConfigError, match=told):
        run_trial(small(spec_of, **changes), dataset, MemorySink())
