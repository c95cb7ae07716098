"""Trials of a module of one's own: what a built-in network's are, updates, truncation, clipping, resume, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.core.training import MemorySink, TrialSpec, run_trial, train_networks
from pipeline.errors import ConfigError
from tests.core.slowly import slowly
from tests.core.training.conftest import SmallDataset, Split
from tests.core.training.sequences import curve, finished, first_letter, letter_before, reversal
from tests.core.training.test_trial import killed_and_resumed, rows_of, sorted_rows


def identity(scale: float) -> dict[str, Any]:
    return {"name": "identity", "scale": scale}


def constant(value: float) -> dict[str, Any]:
    return {"name": "constant", "value": value}


BUILT_IN = {
    "model__cell": "lstm",
    "model__hidden_size": 5,
    "model__initialisation": {
        "input": identity(0.7),
        "recurrent": identity(0.5),
        "gates": {},
        "bias": constant(0.25),
        "readout": identity(0.3),
    },
}
OWN = {
    "name": "custom",
    "import": "tests.own_models:Last",
    "initialisation": {
        "rnn.weight_ih_l0": identity(0.7),
        "rnn.weight_hh_l0": identity(0.5),
        "rnn.bias_ih_l0": constant(0.25),
        "rnn.bias_hh_l0": constant(0.0),
        "readout.weight": identity(0.3),
        "readout.bias": constant(0.0),
    },
}
EVERY = {**OWN, "import": "tests.own_models:Every"}
WINDOWS = {"update_every": 3, "backward_length": 5}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        *slowly(
            {"clipping": {"name": "state_norm", "threshold": 0.01}},
            {"training__accumulation": 4, "clipping": {"name": "value", "threshold": 0.001}},
        ),
        {"training__truncation": WINDOWS},
        *slowly({"training__truncation": {"update_every": 4, "backward_length": 4}}),
    ],
    ids=["whole", "clipped inside", "accumulated", "truncated", "truncated before the end"],
)
def test_a_trial_of_the_same_network_is_the_same_trial(
    changes: dict[str, Any], adding: Any, symbols: Any, spec_of: Any
) -> None:
    """The same weights at the start, the same batches: every curve and trace to rounding."""
    truncated = changes.get("training__truncation") == WINDOWS
    dataset = one_hot(symbols) if truncated else adding
    mine = finished(spec_of(model=EVERY if truncated else OWN, **changes), dataset)[1].tables()
    theirs = finished(spec_of(**BUILT_IN, **changes), dataset)[1].tables()
    metrics = [
        ("loss", {"split": "validation"}),
        ("loss", {"split": "train"}),
        ("clipped_grad_norm", {}),
        ("clip_cosine", {}),
    ]
    for metric, facts in metrics:
        found, expected = (curve(each, metric, seed=1, **facts) for each in (mine, theirs))
        assert len(found) == len(expected) > 2
        np.testing.assert_allclose(found, expected, rtol=2e-5)
    for quantity in ("h", "c", "x"):
        rows = [each["traces"]["quantity"] == quantity for each in (mine, theirs)]
        found, expected = (each["traces"]["log10_norm"][at] for each, at in zip((mine, theirs), rows, strict=True))
        np.testing.assert_allclose(found, expected, atol=1e-4)


def one_hot(symbols: Any) -> SmallDataset:
    """The symbols as real vectors, which are a built-in network's inputs and one's own alike."""
    eye = np.eye(4, dtype=np.float32)
    splits = {name: Split(eye[each.inputs], each.targets) for name, each in symbols.splits.items()}
    return SmallDataset(splits, "real", 4, "every", "class", 4, float(np.log(4)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Dropped", "Steps"])
def test_a_killed_trial_goes_on_bit_for_bit_whatever_it_draws(name: str, adding: Any, spec_of: Any) -> None:
    spec = spec_of(
        model={"name": "custom", "import": f"tests.own_models:{name}"},
        training__accumulation=2,
        training__max_steps=12,
        training__evaluate_every=4,
        diagnostics__num_traces=2,
        diagnostics__measures=["smoothness"],
    )
    expected, whole = finished(spec, adding)
    result, interrupted = killed_and_resumed(spec, adding, 7)
    assert rows_of(result) == rows_of(expected)
    for table in ("curves", "traces"):
        assert sorted_rows(interrupted, table) == sorted_rows(whole, table)
    assert {row["status"] for row in expected.rows} <= {"ok", "not_converged"}


@pytest.mark.slow
def test_a_seed_that_runs_in_its_turn_is_alone_what_it_is_among_others(adding: Any, spec_of: Any) -> None:
    model = {"name": "custom", "import": "tests.own_models:Dropped"}
    several, single = (finished(spec_of(model=model, seeds=seeds), adding) for seeds in ([0, 1], [1]))
    assert rows_of(several[0])[1] == rows_of(single[0])[0]
    assert sorted_rows(several[1], "curves", [1]) == sorted_rows(single[1], "curves")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dataset"), [("Classifier", first_letter()), ("Tagger", letter_before())])
def test_packed_sequences_are_trained_and_traced(name: str, dataset: SmallDataset, spec_of: Any) -> None:
    spec = spec_of(model={"name": "custom", "import": f"tests.own_models:{name}"}, training__max_steps=20)
    result, sink = finished(spec, dataset)
    assert all(row["status"] in {"ok", "not_converged"} for row in result.rows)
    losses = curve(sink.tables(), "loss", seed=0, split="validation")
    assert losses[-1] < losses[0]
    traces = sink.tables()["traces"]
    assert {*traces["quantity"]} == {"h", "c"}
    assert {*traces["direction"]} == {"forward", "backward"}
    assert {*traces["part"]} == {"recurrent"}


def test_a_trained_network_is_the_module_itself(adding: Any, spec_of: Any) -> None:
    networks = train_networks(spec_of(model=OWN, training__max_steps=3), adding)
    assert [type(network.module).__name__ for network in networks] == ["Last"] * 3
    assert not np.allclose(*(network.module.readout.weight.detach() for network in networks[:2]))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"diagnostics__measures": ["gates"]}, r"diagnostics\.measures: expected smoothness alone, for a module of one's"),
    ({"regularisation": {"name": "vanishing_gradient", "weight": 1.0}}, r"regularisation\.name: expected none, for a"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_is_measured_of_built_in_networks_alone_is_refused(
    changes: dict[str, Any], message: str, spec_of: Any
) -> None:
    with pytest.raises(ConfigError, match=message):
        spec_of(model=OWN, **changes)


def custom(spec_of: Any, name: str, **changes: Any) -> TrialSpec:
    return spec_of(model={"name": "custom", "import": f"tests.own_models:{name}"}, **changes)


def test_what_does_not_fit_the_data_is_refused_before_training(adding: Any, symbols: Any, spec_of: Any) -> None:
    both_ways = {"arguments": {"bidirectional": True}}
    cases = [
        (custom(spec_of, "Last"), reversal(), r"model\.name: expected a built-in network, for this dataset's targets"),
        (custom(spec_of, "Last"), one_hot(symbols), r"model\.import: .*return a tensor of shape \(2, 12, 4\)"),
        (
            custom(spec_of, "NoRecurrence", clipping={"name": "state_norm", "threshold": 1.0}),
            adding,
            r"clipping\.name: .*no recurrent module",
        ),
        (
            spec_of(model=EVERY | both_ways, training__truncation=WINDOWS),
            one_hot(symbols),
            r"training\.truncation: .*forward in time",
        ),
        (
            custom(spec_of, "NoRecurrence", training__truncation={"update_every": 5, "backward_length": 5}),
            adding,
            r"training\.truncation: .*recurrences all run forward",
        ),
        (spec_of(model=OWN, training__truncation=WINDOWS), adding, r"truncation\.update_every: .*one update per"),
        (
            spec_of(model=OWN, training__state_forcing={"name": "sparse", "every": 3}),
            adding,
            r"training\.state_forcing: expected null: the network reads its inputs",
        ),
    ]
    for spec, dataset, message in cases:
        with pytest.raises(ConfigError, match=message):
            run_trial(spec, dataset, MemorySink())


def test_a_module_without_recurrence_trains_too(adding: Any, spec_of: Any) -> None:
    result, sink = finished(spec_of(model={"name": "custom", "import": "tests.own_models:NoRecurrence"}), adding)
    assert result.rows[0]["kernel"] is None
    assert {*sink.tables()["traces"]["part"]} == {"input"}


def test_a_module_whose_gradient_explodes_is_a_row_that_says_where(adding: Any, spec_of: Any) -> None:
    wild = {"optimiser": {"name": "sgd", "learning_rate": 1e8}, "clipping": {"name": "none"}}
    model = {"name": "custom", "import": "tests.own_models:Last", "arguments": {"kind": "RNN", "nonlinearity": "relu"}}
    rows = run_trial(spec_of(model=model, **wild), adding, MemorySink()).rows
    assert {row["status"] for row in rows} == {"diverged"}
    assert {row["diverged_quantity"] for row in rows} <= {"grad_h", "parameters", "loss", "validation_loss"}
    assert "grad_h" in {row["diverged_quantity"] for row in rows}


def test_names_of_ones_own_say_nothing_of_padding(spec_of: Any) -> None:
    """Norms by timestep are counted from the end of each sequence, whatever the upper recurrence is called."""
    traces = []
    for names in (("lower", "upper"), ("encoder", "decoder")):
        model = {"name": "custom", "import": "tests.own_models:Stacked", "arguments": {"names": list(names)}}
        table = finished(spec_of(model=model, training__max_steps=2), letter_before())[1].tables()["traces"]
        places = [{"lower": "encoder", "upper": "decoder"}.get(part, part) for part in table["part"]]
        traces.append(sorted(zip(places, *(list(table[key]) for key in KEYS), strict=True)))
    assert traces[0] == traces[1]
    assert {"encoder", "decoder"} <= {row[0] for row in traces[0]}


KEYS = ("seed", "step", "quantity", "timestep", "log10_norm")
