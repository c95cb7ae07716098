"""A module of one's own as a network of a study: the same numbers as torch's, every state tapped, mistakes told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tests.own_models
from pipeline.config.strict import InvalidFieldError, build, plain
from pipeline.core.measures.gradients import log10_norm, trace_gradients
from pipeline.core.measures.spectrum import recurrent_blocks
from pipeline.core.models import (
    AnyModel,
    CustomModel,
    Interface,
    ModelSpec,
    Replicas,
    RunOptions,
    build_network,
    check_custom,
)
from pipeline.core.models.custom import layout_of
from pipeline.core.models.generation import network_of
from pipeline.errors import ConfigError
from pipeline.trace import trace

LAST = Interface(input_kind="real", input_size=3, target_at="last", target_kind="value", output_size=2)
EVERY = Interface(input_kind="real", input_size=3, target_at="every", target_kind="value", output_size=2)
WORDS = Interface(input_kind="token", input_size=7, target_at="every", target_kind="class", output_size=4, padded=True)
ONE_WORD = Interface(
    input_kind="token", input_size=7, target_at="last", target_kind="class", output_size=4, padded=True
)
T, B = 6, 4
QUICK = ("LSTM", "LSTMCell", "projections", "two modules", "dropout")
"""Of the networks below, those of the quick run."""

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "LSTM": ("Last", {}),
    "two layers of GRU, both ways": ("Last", {"kind": "GRU", "num_layers": 2, "bidirectional": True}),
    "RNN": ("Last", {"kind": "RNN", "nonlinearity": "relu"}),
    "no biases": ("Last", {"bias": False}),
    "projections": ("Last", {"proj_size": 3, "num_layers": 2}),
    "LSTMCell": ("Steps", {"kind": "LSTMCell"}),
    "GRUCell": ("Steps", {"kind": "GRUCell"}),
    "RNNCell": ("Steps", {"kind": "RNNCell"}),
    "two modules": ("Two", {}),
    "dropout": ("Dropped", {}),
    "dropout between layers": ("Last", {"num_layers": 2, "dropout": 0.4}),
    "not all is trained": ("Frozen", {}),
    "two names of one parameter": ("Tied", {}),
}


def custom(name: str, **fields: Any) -> CustomModel:
    return CustomModel(import_=f"tests.own_models:{name}", **fields)


def replicas_of(spec: AnyModel, interface: Interface, seeds: int = 3) -> Replicas:
    return Replicas([build_network(interface, spec, seed) for seed in range(seeds)])


def batch(interface: Interface, seed: int = 0) -> tuple[Tensor, Tensor]:
    start = torch.Generator().manual_seed(seed)
    shape = (B, T) if interface.target_at == "every" else (B,)
    x = torch.randn(B, T, interface.input_size, generator=start, dtype=torch.float64)
    return x, torch.randn(*shape, interface.output_size, generator=start, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param(*network, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, network in NETWORKS.items()
    ],
)
def test_loss_gradient_and_traces_are_those_of_the_module_itself(name: str, arguments: dict[str, Any]) -> None:
    """Against torch's autograd, and against `trace`, which is itself held to loops by hand."""
    replicas, (x, y) = replicas_of(custom(name, arguments=arguments), LAST), batch(LAST)
    exact_RP = replicas.flat_RP.double()
    run = replicas.backpropagate(exact_RP, x, y, trace=True, shared=True)
    for r in range(3):
        module = network_of(replicas, exact_RP, r).module.eval()
        with trace(module, float64=True) as traced:
            loss = F.mse_loss(module(x), y)
            loss.backward()
        assert run.losses[r].item() == pytest.approx(loss.item(), rel=1e-12)
        expected = torch.cat([each.grad.flatten() for each in module.parameters()])
        torch.testing.assert_close(run.grad_RP[r], expected, rtol=1e-10, atol=1e-12)
        rows, alone = traced.table, len({key.part for key in replicas.model.state_keys}) == 1
        for key in replicas.model.state_keys:
            mine = rows.filter(layer=key.layer, direction=key.direction, state=key.quantity)
            mine = mine if alone else mine.filter(module=key.part)
            found = log10_norm(run.grad_states[key][r].flatten(1))
            torch.testing.assert_close(found, mine.sort("timestep")["log10_norm"].to_torch(), rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize(("name", "arguments"), NETWORKS.values(), ids=NETWORKS)
def test_the_fast_gradient_is_the_exact_one_to_rounding(name: str, arguments: dict[str, Any]) -> None:
    replicas, (x, y) = replicas_of(custom(name, arguments=arguments), LAST), batch(LAST)
    fast = replicas.backpropagate(replicas.flat_RP, x.float(), y.float(), shared=True).grad_RP.double()
    exact = trace_gradients(replicas, replicas.flat_RP, x, y).grad_RP
    assert ((fast - exact).norm(dim=1) < 1e-6 * exact.norm(dim=1)).all()


@pytest.mark.parametrize(
    ("name", "arguments"), [*NETWORKS.values(), ("Orthogonal", {})], ids=[*NETWORKS, "made of other parameters"]
)
def test_recurrent_weights_are_those_that_a_pass_reads(name: str, arguments: dict[str, Any]) -> None:
    """What multiplies the state: of every gate, layer, direction and module; with a projection between, of both."""
    replicas = replicas_of(custom(name, arguments=arguments), LAST)
    moved_RP = replicas.flat_RP.double() + 0.1
    blocks = recurrent_blocks(replicas, moved_RP)
    places = {(key.part, key.layer, key.direction) for key in replicas.model.state_keys}
    assert {(part, place.layer, place.direction) for part, place, _ in blocks} == places
    for r in range(3):
        parts: Any = network_of(replicas, moved_RP, r).parts
        for (part, place, gate), block_RHH in blocks.items():
            suffix = f"_l{place.layer}{'_reverse' * (place.direction == 'backward')}"
            suffix = suffix if isinstance(parts[part], nn.RNNBase) else ""
            gates = {"LSTM": "ifgo", "GRU": "rzn"}.get(type(parts[part]).__name__.removesuffix("Cell"))
            rows = getattr(parts[part], f"weight_hh{suffix}").double()
            rows = rows if gates is None else rows.chunk(len(gates))[gates.index(gate)]
            whole = rows @ getattr(parts[part], f"weight_hr{suffix}") if rows.shape[0] > rows.shape[1] else rows
            torch.testing.assert_close(block_RHH[r], whole, rtol=1e-12, atol=1e-14)
    assert torch.equal(replicas.flat_RP, replicas_of(custom(name, arguments=arguments), LAST).flat_RP)


def test_seeds_are_one_program_where_they_can_be() -> None:
    reasons = {name: layout_of(custom(net, arguments=given), LAST, T).reason for name, (net, given) in NETWORKS.items()}
    in_turn = {name for name, reason in reasons.items() if reason is not None}
    assert in_turn == {"dropout", "dropout between layers"}
    assert reasons["dropout"] == "it draws random numbers in training"
    assert "_pack_padded_sequence" in str(layout_of(custom("Tagger"), WORDS, T).reason)


def test_that_seeds_run_one_after_the_other_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    spec = custom("Dropped", arguments={"rate": 0.3125})
    for _ in range(2):
        check_custom(spec, LAST, T)
    assert caplog.text.count("Dropped {'rate': 0.3125}: seeds are trained one after the other") == 1


def test_weights_follow_from_the_seed_and_nothing_else() -> None:
    spec, state = custom("Last"), torch.get_rng_state()
    first, torch_seed = build_network(LAST, spec, 4), torch.initial_seed()
    torch.rand(3)
    second, other = build_network(LAST, spec, 4), build_network(LAST, spec, 5)
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    assert not any(map(torch.equal, first.parameters(), other.parameters()))
    torch.set_rng_state(state)
    build_network(LAST, spec, 6)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.initial_seed() == torch_seed


def test_random_numbers_of_training_follow_from_coins_and_evaluation_has_none() -> None:
    replicas, (x, y) = replicas_of(custom("Dropped"), LAST), batch(LAST)
    inputs, targets = x.float().expand(3, B, T, 3), y.float().expand(3, B, 2)

    def losses(coin: float | None) -> Tensor:
        coins = [] if coin is None else [torch.full((3, 1, B, 1), coin, dtype=torch.float64)]
        return replicas.backpropagate(replicas.flat_RP, inputs, targets, RunOptions(dropout=coins)).losses

    state = torch.get_rng_state()
    assert torch.equal(losses(0.25), losses(0.25))
    assert not (losses(0.25) == losses(0.75)).any()
    assert torch.equal(losses(None), losses(None))
    assert not (losses(None) == losses(0.25)).any()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["Every", "Steps"])
def test_states_can_be_carried_from_one_window_to_the_next(name: str) -> None:
    """Of a loop of one's own, too: its first state gives way to the one that is carried."""
    replicas = replicas_of(custom(name), EVERY if name == "Every" else LAST)
    x, _ = batch(LAST)
    named, whole = replicas.named(replicas.flat_RP.double()), []
    inputs = x.expand(3, B, T, 3)
    for piece in inputs.split(2, dim=2):
        whole = replicas.advance(named, piece, whole)
    for carried, expected in zip(whole, replicas.advance(named, inputs), strict=True):
        torch.testing.assert_close(carried, expected, rtol=1e-12, atol=1e-14)


def test_a_gradient_is_clipped_inside_the_recurrence_as_in_a_built_in_network() -> None:
    own, built_in = replicas_of(custom("Last"), LAST), replicas_of(ModelSpec.plain("lstm", 5), LAST)
    for replicas in (own, built_in):
        replicas.flat_RP = torch.linspace(-1, 1, own.num_parameters).expand(3, -1).contiguous()
    x, y = batch(LAST)
    options = RunOptions(state_threshold=0.05)
    steps = replicas_of(custom("Steps"), LAST)
    steps.flat_RP = torch.cat([torch.zeros(3, 5), own.flat_RP], dim=1)  # the learnt first state comes first
    found = [each.backpropagate(each.flat_RP, x.float(), y.float(), options, shared=True) for each in (own, built_in)]
    torch.testing.assert_close(found[0].grad_RP, found[1].grad_RP, rtol=1e-5, atol=1e-7)
    free = own.backpropagate(own.flat_RP, x.float(), y.float(), shared=True).grad_RP
    assert not torch.allclose(found[0].grad_RP, free, rtol=1e-2)
    by_step = steps.backpropagate(steps.flat_RP, x.float(), y.float(), options, shared=True).grad_RP
    torch.testing.assert_close(by_step[:, 5:], found[0].grad_RP, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "interface"), [("Tagger", WORDS), ("Classifier", ONE_WORD)])
def test_what_is_packed_is_traced_example_by_example(name: str, interface: Interface) -> None:
    """The gradients in the states of each sequence are those of it alone, whatever the order in the pack."""
    replicas = replicas_of(custom(name), interface, seeds=2)
    tokens = torch.tensor([[3, 4, 0, 0, 0], [5, 6, 3, 4, 5], [6, 3, 4, 0, 0]])
    every = interface.target_at == "every"
    targets = torch.tensor([[1, 2, 0, 0, 0], [3, 1, 2, 1, 3], [2, 1, 3, 0, 0]]) if every else torch.tensor([1, 2, 3])
    exact_RP = replicas.flat_RP.double()
    together = replicas.backpropagate(exact_RP, tokens, targets, trace=True, shared=True)
    lengths = (tokens != 0).sum(dim=1).tolist()
    for b, length in enumerate(lengths):
        mine = (tokens[b : b + 1, :length], targets[b : b + 1, :length] if every else targets[b : b + 1])
        alone = replicas.backpropagate(exact_RP, *mine, trace=True, shared=True)
        share = length / sum(lengths) if every else 1 / 3
        for key in replicas.model.state_keys:
            found, expected = together.grad_states[key][:, :length, b], share * alone.grad_states[key][:, :, 0]
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
            assert (together.grad_states[key][:, length:, b] == 0).all()


def test_what_needs_no_gradient_is_not_trained_and_counts_in_every_precision() -> None:
    replicas = replicas_of(custom("Frozen"), LAST)
    assert {*replicas.shapes} == {f"module.rnn.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    again = network_of(replicas, replicas.flat_RP.double(), 1)
    assert torch.equal(again.module.readout.weight, torch.full((2, 5), 0.25, dtype=torch.float64))


def test_parameters_begin_as_rules_by_name_say() -> None:
    rules = {
        "rnn.weight_hh_*": {"name": "orthogonal", "gain": 1.5},
        "rnn.bias_ih_l0": {"name": "forget_bias", "value": 2.0},
        "*.bias_hh_l0": {"name": "constant", "value": 0.0},
        "readout.weight": {"name": "constant", "value": 0.125},
    }
    spec = build(CustomModel, {"name": "custom", "import": "tests.own_models:Last", "initialisation": rules}, "a test")
    module = build_network(LAST, spec, 2).module
    untouched = build_network(LAST, custom("Last"), 2).module
    for block in module.rnn.weight_hh_l0.chunk(4):
        torch.testing.assert_close(block @ block.T, 2.25 * torch.eye(5), rtol=1e-5, atol=1e-5)
    assert module.rnn.bias_ih_l0.tolist() == [0.0] * 5 + [2.0] * 5 + [0.0] * 10  # i, f, g, o
    assert (module.rnn.bias_hh_l0 == 0).all()
    assert (module.readout.weight == 0.125).all()
    assert torch.equal(module.rnn.weight_ih_l0, untouched.rnn.weight_ih_l0)
    others = [build_network(LAST, spec, seed).module.rnn.weight_hh_l0 for seed in (2, 3)]
    assert torch.equal(others[0], module.rnn.weight_hh_l0)
    assert not torch.equal(*others)


SAID = {
    ("nowhere.at:All", ""): r"model\.import: expected a module that can be imported \(ModuleNotFoundError: No module",
    ("tests.own_models:Lost", ""): r"model\.import: expected a class or function of tests\.own_models \(.*'Last'",
    ("tests.own_models:number", ""): r"model\.import: expected what makes an nn\.Module, got 'a int'",
    ("tests.own_models:unlucky", ""): r"model\.arguments: .*unlucky can be made \(RuntimeError: no luck\)",
    ("tests.own_models:Steps", "hiden_size"): r"model\.arguments: .* of Steps \(.*did you mean 'hidden_size'",
    (
        "tests.own_models:Every",
        "",
    ): r"Every to return a tensor of shape \(2, 2\) for inputs of shape \(2, 6, 3\), got 'shape",
    ("tests.own_models:Tuples", ""): r"Tuples to return a tensor of shape .* got 'a tuple'",
    ("tests.own_models:Normalised", ""): r"Normalised to leave its buffers as they are.*got 'norm\.running_mean'",
    ("tests.own_models:Noisy", ""): r"Noisy to draw no random numbers in evaluation mode",
    ("tests.own_models:Idle", ""): r"Idle to run each of its recurrent modules.*\['other'\] did not",
    ("tests.own_models:Single", ""): r"Single as a module that runs in float64 .*dtype",
    ("tests.own_models:Drawn", ""): r"Drawn to have buffers and untrained parameters that are the same.*got 'noise'",
    ("tests.own_models:Empty", ""): r"Empty to have parameters to train",
    ("tests.own_models:Tagger", ""): r"Tagger as a module that runs in float32 .*TypeError",
}


@pytest.mark.parametrize(("where", "message"), SAID.items(), ids=[" ".join(where) for where in SAID])
def test_what_is_no_network_of_a_study_is_told_by_name(where: tuple[str, str], message: str) -> None:
    name, argument = where
    with pytest.raises(InvalidFieldError, match=message):
        check_custom(CustomModel(import_=name, arguments={argument: 3} if argument else {}), LAST, T)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"import": "no colon"}, r"a test\.import: expected where a class or function is"),
        ({"import": "a.b:c.d"}, r"a test\.import: expected where"),
        ({"import": 3}, r"a test\.import: expected text, got 3"),
        ({}, r"a test: missing key 'import' \(text\)"),
        (
            {"import": "a:b", "cell": "lstm"},
            r"a test: unknown key 'cell'.*known: arguments, import, initialisation, name",
        ),
        ({"import": "a:b", "arguments": {"x": object()}}, r"a test\.arguments\.x: expected a text, a finite number"),
        ({"import": "a:b", "arguments": {"x": [1, {"y": float("nan")}]}}, r"arguments\.x\[1\]\.y: expected a text"),
        ({"import": "a:b", "initialisation": {"x": {"name": "ortogonal"}}}, r"did you mean 'orthogonal'"),
    ],
)
def test_a_spec_of_a_module_is_read_strictly(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(AnyModel, {"name": "custom", **fields}, "a test")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"rnn.weight_hh": {"name": "identity", "scale": 1.0}}, r"initialisation: .*did you mean 'rnn\.weight_hh_l0'"),
        (
            {"rnn.*": {"name": "constant", "value": 0.0}, "*.bias": {"name": "constant", "value": 0.0}}
            | {"readout.*": {"name": "constant", "value": 1.0}},
            r"one rule for 'readout\.bias', which '\*\.bias' names",
        ),
        ({"rnn.bias_hh_l0": {"name": "orthogonal", "gain": 1.0}}, r"no matrix \(constant\), for 'rnn\.bias_hh_l0'"),
        ({"readout.bias": {"name": "forget_bias", "value": 1.0}}, r"a gate that keeps the past, for 'readout\.bias'"),
        ({"readout.weight": {"name": "spectral_radius", "radius": 1.0}}, r"need not be square, for 'readout\.weight'"),
    ],
)
def test_rules_that_fit_nothing_are_refused(rules: dict[str, Any], message: str) -> None:
    spec = build(CustomModel, {"name": "custom", "import": "tests.own_models:Last", "initialisation": rules}, "a test")
    with pytest.raises(InvalidFieldError, match=message):
        build_network(LAST, spec, 0)


def test_a_spec_says_of_itself_what_its_file_said() -> None:
    raw = {"name": "custom", "import": "tests.own_models:Last", "arguments": {"hidden_size": 4, "bidirectional": True}}
    spec = build(AnyModel, raw, "a test")
    assert plain(spec) == {**raw, "initialisation": {}}
    assert build(AnyModel, plain(spec), "a test") == spec
    assert spec.label == "Last"
    assert hasattr(tests.own_models, spec.label)


def test_targets_that_a_decoder_writes_are_refused() -> None:
    written = Interface(
        input_kind="token", input_size=5, target_at="sequence", target_kind="class", output_size=5, padded=True
    )
    with pytest.raises(
        InvalidFieldError, match=r"model\.name: expected a built-in network, for this dataset's targets"
    ):
        check_custom(custom("Last"), written, T)
